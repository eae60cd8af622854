"""The constants of an evaluation, by their names, and their values in ACT's protocol."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from step_jax.errors import InputError
from step_jax.linking import LinkOptions
from step_jax.metrics.video_map import ALL_THRESHOLDS
from step_jax.trimming import TrimOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """What of a window's tubelets becomes detections in frames; see `clip_detections`."""

    score_threshold: float = 0.01
    per_class_top: int = 400
    nms_threshold: float = 0.45
    top: int = 200

    def __post_init__(self):
        _check_shares(self, "nms_threshold")
        if not math.isfinite(self.score_threshold):
            raise InputError(f"score_threshold is {self.score_threshold}; expected a number")
        for name in ("per_class_top", "top"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 or more")

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `clip_detections`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How detections are counted.

    iou_threshold: from which a box in a frame matches.
    frame_nms: IoU above which the NMS of a frame and class drops.
    tube_nms: iou3dt above which the NMS of a video and class drops.
    thresholds: of video-mAP.
    ap: "trapezoid", or "voc", see `average_precision`.
    frames: "all", or "annotated": detections in frames without ground truth do not count.
    """

    iou_threshold: float = 0.5
    frame_nms: float = 0.3
    tube_nms: float = 0.3
    thresholds: tuple[float, ...] = ALL_THRESHOLDS
    ap: str = "trapezoid"
    frames: str = "all"

    def __post_init__(self):
        _check_shares(self, "iou_threshold", "frame_nms", "tube_nms")

    def frame_options(self) -> dict[str, Any]:
        """Keyword arguments of `FrameTally`."""
        return {
            "iou_threshold": self.iou_threshold,
            "nms_threshold": self.frame_nms,
            "frames": self.frames,
        }

    def video_options(self) -> dict[str, Any]:
        """Keyword arguments of `video_map`."""
        return {
            "thresholds": self.thresholds,
            "nms_threshold": self.tube_nms,
            "ap": self.ap,
            "frames": self.frames,
        }


def _check_shares(options: Any, *names: str) -> None:
    """Raises InputError for overlaps that cannot be."""
    for name in names:
        if not 0 <= getattr(options, name) <= 1:
            raise InputError(f"{name} is {getattr(options, name)}; expected 0 to 1")


def linking_text(options: LinkOptions, *, clip_frames: int, candidates: str) -> str:
    """How tubes were linked, one line; `candidates` says of what."""
    over_all = ""
    if options.global_nms is not None:
        over_all = f", NMS {options.global_nms:g} over all classes (best {options.global_top})"
    longest = f" and at most {options.max_frames}" if options.max_frames else ""
    return (
        f"from {candidates}{over_all}: NMS {options.candidate_nms:g} per window and class, "
        f"best {options.candidates}, match at mean IoU {options.match_iou:g}, end after "
        f"{options.gap(clip_frames)} frames without one, tubes of score {options.min_score:g} or "
        f"more and of {options.min_frames} frames or more{longest}"
    )


def trimming_text(options: TrimOptions) -> str:
    """How tubes were trimmed, one line."""
    constants = ", ".join(f"{k} {v}" for k, v in dataclasses.asdict(options).items())
    return f"then trimmed: {constants}"
