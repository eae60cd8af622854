"""What became of each video: kept beside its records, as JSON a video and a table of all."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from step_jax.files import write_json, write_text

_LISTS = (
    "warned_seconds",
    "repeated_seconds",
    "empty_seconds",
    "repeated_keyframes",
    "missing_keyframes",
)


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """What a video was and what was made of it; where `error` is set, nothing was.

    key: of the source's version and the options; another key is another shard.
    kind: of source, "movie", "seconds" or "frames". fps: as the container states, or seconds have.
    first_s: time of the file's first frame, seconds; None for folders. first_is_exact: if not, it
        is known to half a frame. start_second: second of the movie that was taken for its time 0.
    num_frames: of the source, from second 900 to 1799.
    warned_seconds: with another number of frames than `fps` says, or that begin late.
    repeated_seconds: of 1 to 11 frames, of which some are repeated. empty_seconds: without any.
    repeated_keyframes, missing_keyframes: see `records.RecordsInfo`.
    num_undecodable: pictures that the one before stands in for.
    width, height: as stored. num_records, num_bytes: of the shard. source_bytes: of a movie's file.
    """

    video: str
    split: str
    key: str
    source: str
    error: str = ""
    kind: str = ""
    fps: float = 0.0
    first_s: float | None = None
    first_is_exact: bool = True
    start_second: float = 0.0
    num_frames: int = 0
    warned_seconds: Sequence[int] = ()
    repeated_seconds: Sequence[int] = ()
    empty_seconds: Sequence[int] = ()
    repeated_keyframes: Sequence[int] = ()
    missing_keyframes: Sequence[int] = ()
    num_undecodable: int = 0
    width: int = 0
    height: int = 0
    num_records: int = 0
    num_bytes: int = 0
    source_bytes: int = 0

    @property
    def remarks(self) -> list[str]:
        """What somebody should look at, one phrase each; uneven seconds are only in the tables."""
        texts = [
            f"{len(seconds)} {name.replace('_', ' ')} ({ranges(seconds)})"
            for name in _LISTS[1:]
            if (seconds := getattr(self, name))
        ]
        if self.first_s:
            about = "" if self.first_is_exact else "about "
            texts.append(f"its first frame is at {about}{self.first_s:.3f} s, not at 0")
        if self.num_undecodable:
            texts.append(f"{self.num_undecodable} damaged pictures")
        return texts


def ranges(seconds: Iterable[int]) -> str:
    """Seconds as text: "902-904 910"."""
    parts: list[list[int]] = []
    for second in seconds:
        if parts and second == parts[-1][-1] + 1:
            parts[-1][1:] = [second]
        else:
            parts.append([second])
    return " ".join("-".join(map(str, part)) for part in parts)


def read_report(path: pathlib.Path) -> VideoReport | None:
    """A video's report, None if there is none that can be read: it is made again then."""
    try:
        return VideoReport(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_report(path: pathlib.Path, report: VideoReport):
    """Writes a video's report. Raises InputError where that is not possible."""
    write_json(path, dataclasses.asdict(report))


def write_table(folder: pathlib.Path, reports: Sequence[VideoReport]):
    """Writes the reports of all videos as `report.json` and `report.csv`."""
    rows = [dataclasses.asdict(report) for report in reports]
    write_json(folder / "report.json", {"videos": rows})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(VideoReport)]
    writer.writerow(names)
    for row in rows:
        writer.writerow([ranges(row[name]) if name in _LISTS else row[name] for name in names])
    write_text(folder / "report.csv", text.getvalue())
