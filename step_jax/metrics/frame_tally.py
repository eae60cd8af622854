"""Every detection in a frame put to account: a hit, or which kind of error. One pass serves all.

Blocks of whole videos come in any order and are counted in that of the split.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from step_jax.annotations import Annotations
from step_jax.boxes import box_iou
from step_jax.detections import TableHeader
from step_jax.errors import InputError
from step_jax.metrics.average_precision import ranking
from step_jax.metrics.frame_boxes import (
    FrameBoxes,
    annotated_frames,
    first_frames,
    frames_that_count,
    truth_boxes,
)
from step_jax.metrics.matching import match_pairs, pairs
from step_jax.nms import suppress

HIT, LOCALIZATION, CLASSIFICATION, TIME, OTHER = range(5)
COUNTED_FRAMES = ("all", "annotated")


def check_counted_frames(frames: str) -> str:
    """The option itself. Raises InputError for what is not one of COUNTED_FRAMES."""
    if frames not in COUNTED_FRAMES:
        raise InputError(f"counted frames {frames!r}: expected one of {', '.join(COUNTED_FRAMES)}")
    return frames


class FrameTally:
    """Counts one step's detections against the ground truth of a split.

    Args:
      annotations, split: the ground truth.
      header: of the table that the detections are from; says which frames were looked at.
      iou_threshold: overlap from which a detection matches.
      nms_threshold: overlap above which the NMS of each frame and class drops.
      frames: "all", or "annotated": detections in frames without ground truth are not counted.

    Raises InputError as `truth_boxes`, and for an unknown `frames`.
    """

    def __init__(
        self,
        annotations: Annotations,
        split: str,
        header: TableHeader,
        *,
        iou_threshold: float = 0.5,
        nms_threshold: float = 0.3,
        frames: str = "all",
    ):
        check_counted_frames(frames)
        self.annotations, self.split, self.header = annotations, split, header
        self.iou_threshold, self.nms_threshold, self.frames = iou_threshold, nms_threshold, frames
        self._truth = truth_boxes(annotations, split, header)
        videos = annotations.split(split)
        self._videos = first_frames(videos)
        self._annotated = annotated_frames(videos)
        self._num_counted = self._count_frames(frames_that_count(videos, header))
        self._truth_cells = np.unique(self._truth.cells(self._num_classes))
        self._truth_videos = np.unique(self._video_class(self._truth))
        self._covered = np.zeros(len(self._truth.frame), bool)
        self._parts: list[tuple[np.ndarray, ...]] = [_no_detections()]
        self._ranked: list[np.ndarray] | None = None

    def add(self, found: FrameBoxes) -> None:
        """Counts the boxes of whole videos, before the NMS of the frames.

        They must be in order by frame, class, descending score.
        """
        if self.frames == "annotated":
            found = found.take(self._annotated[found.frame])
        detection, box = pairs(found.frame, self._truth.frame)
        iou = box_iou(found.boxes[detection], self._truth.boxes[box], inclusive=True)
        self._covered[box[iou >= self.iou_threshold]] = True

        cells = found.cells(self._num_classes)
        kept = suppress(found.boxes, cells, self.nms_threshold, inclusive=True)
        among_kept = kept[detection]
        detection = (np.cumsum(kept) - 1)[detection[among_kept]]
        found, box, iou = found.take(kept), box[among_kept], iou[among_kept]
        kind = self._kinds(found, detection, box, iou)
        columns = found.frame.astype(np.int32), found.label.astype(np.int16), found.score
        self._parts.append((*columns, kind))
        self._ranked = None

    def ranked(self) -> list[np.ndarray]:
        """For each class what became of its detections, best first: HIT or an error, `[n]`."""
        if self._ranked is None:
            self._ranked = self._rank()
        return self._ranked

    @property
    def num_ground_truth(self) -> np.ndarray:
        """Boxes of each class, int `[C]`."""
        return np.bincount(self._truth.label, minlength=self._num_classes)

    @property
    def localization_recall(self) -> float:
        """Percentage of the ground truth that some detection of any class overlaps, before NMS.

        A box with several classes counts once for each. Says whether a step fails at boxes or at
        actions.
        """
        return 100 * float(self._covered.mean())

    @property
    def frames_text(self) -> str:
        """Which frames count, for the protocol."""
        total, videos = self._videos[-1], f"of {len(self._videos) - 1} videos"
        if self.frames == "annotated":
            return f"{self._num_counted:,} of {total:,} frames {videos} (annotated ones alone)"
        if self.header.frames == "all":
            return f"all {total:,} frames {videos} (also those without ground truth)"
        return (
            f"{self._num_counted:,} of {total:,} frames (the middle ones of windows of "
            f"{self.header.clip_frames} frames, stride {self.header.stride}) {videos} (also those "
            "without ground truth)"
        )

    @property
    def _num_classes(self) -> int:
        return len(self.annotations.classes)

    def _rank(self) -> list[np.ndarray]:
        frame, label, score, kind = map(np.concatenate, zip(*self._parts, strict=True))
        if (frame[1:] < frame[:-1]).any():
            order = np.argsort(frame, kind="stable")
            label, score, kind = label[order], score[order], kind[order]
        return [kind[rows] for rows in ranking(label, score, num_classes=self._num_classes)]

    def _count_frames(self, counted: np.ndarray) -> int:
        return np.count_nonzero(counted & (self._annotated | (self.frames == "all")))

    def _video_class(self, boxes: FrameBoxes) -> np.ndarray:
        video = np.searchsorted(self._videos, boxes.frame, side="right")
        return video * self._num_classes + boxes.label

    def _kinds(
        self, found: FrameBoxes, detection: np.ndarray, box: np.ndarray, iou: np.ndarray
    ) -> np.ndarray:
        """HIT or the first error that applies: int8 `[N]`, from all pairs that share a frame."""
        cells = found.cells(self._num_classes)
        same = found.label[detection] == self._truth.label[box]
        hit = match_pairs(
            cells, detection[same], box[same], iou[same], threshold=self.iou_threshold
        )
        on_a_box = np.zeros(len(found.frame), bool)
        on_a_box[detection[iou >= self.iou_threshold]] = True
        annotated = np.zeros(len(found.frame), bool)
        annotated[detection] = True
        conditions = [
            hit,
            _is_in(cells, self._truth_cells),
            on_a_box,  # of another class, for the frame has none of this one
            _is_in(self._video_class(found), self._truth_videos) & ~annotated,
        ]
        kinds = np.array([HIT, LOCALIZATION, CLASSIFICATION, TIME], np.int8)
        return np.select(conditions, list(kinds), np.int8(OTHER))


def tally(blocks: Iterable[FrameBoxes], *arguments, **options) -> FrameTally:
    """A `FrameTally(*arguments, **options)` of all blocks, at least one."""
    result = FrameTally(*arguments, **options)
    for block in blocks:
        result.add(block)
    return result


def _no_detections() -> tuple[np.ndarray, ...]:
    """Frames, labels, scores and kinds of which there are none."""
    return tuple(np.zeros(0, kind) for kind in (np.int32, np.int16, np.float32, np.int8))


def _is_in(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Whether each value is one of `among`, which is sorted."""
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return among[at] == values
