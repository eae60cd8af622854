"""What the versions of the official AVA evaluation count differently."""

from __future__ import annotations

from dataclasses import dataclass

from step_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Three options, each independent of the others.

    drop_excluded: whether the excluded keyframes are dropped, ground truth and detections.
    ignore_unlisted: whether detections on keyframes without any row in the ground truth's file are
      ignored, otherwise they are false positives. Rows of 2 columns and rows of classes that do not
      count list a keyframe too.
    limit: rows that count per keyframe, over all classes; None for all.
    """

    drop_excluded: bool
    ignore_unlisted: bool
    limit: int | None

    def __post_init__(self):
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit {self.limit}: expected 1 or more rows per keyframe")

    @property
    def name(self) -> str:
        """The year of the official version, or "custom"."""
        names = (name for name, protocol in PROTOCOLS.items() if protocol == self)
        return next(names, "custom")

    def describe(self, *, excluded: str) -> str:
        """One line, to print beside the number.

        excluded: what became of the excluded keyframes if they are dropped.
        """
        excluded = excluded if self.drop_excluded else "excluded keyframes counted"
        unlisted = "ignored" if self.ignore_unlisted else "false positives"
        limit = "all rows" if self.limit is None else f"the best {self.limit} rows"
        return (
            f"protocol {self.name}: {excluded}, detections on keyframes without ground truth "
            f"{unlisted}, {limit} of a keyframe"
        )


# The official code as it was in these years' ActivityNet challenges.
PROTOCOLS = {
    "2018": Protocol(drop_excluded=True, ignore_unlisted=False, limit=None),
    "2019": Protocol(drop_excluded=True, ignore_unlisted=False, limit=50),
    "2020": Protocol(drop_excluded=False, ignore_unlisted=True, limit=50),
}
