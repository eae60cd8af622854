"""The detections of single frames, put together from those of the windows that cover them."""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from step_jax.boxes import scale_boxes
from step_jax.nms import grouped_nms


class FrameBoxes(NamedTuple):
    """What was found in one frame at one step, in descending score; N boxes.

    tubelet: int `[N]`, number of the tubelet as in the detections table.
    label: int `[N]`, class; score: float `[N]`; boxes: float `[N, 4]`, normalised.
    """

    tubelet: np.ndarray
    label: np.ndarray
    score: np.ndarray
    boxes: np.ndarray


class FrameDetections:
    """Collects rows of the detections table and gives them out frame by frame, after NMS.

    Args:
      width, height: pixels of the frame, in which the NMS counts.
      score_threshold: rows below it are forgotten.
      nms_threshold: IoU above which the lower score of the same frame and class is dropped.
      labels: classes to keep; None keeps all.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        score_threshold: float,
        nms_threshold: float = 0.3,
        labels: Collection[int] | None = None,
    ):
        self._width, self._height = width, height
        self._score_threshold = score_threshold
        self._nms_threshold = nms_threshold
        self._labels = None if labels is None else np.array(sorted(labels))
        self._waiting: dict[int, list[FrameBoxes]] = collections.defaultdict(list)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Takes the columns of one video and step, as `clip_rows` gives them."""
        kept = np.asarray(rows["score"]) >= self._score_threshold
        if self._labels is not None:
            kept &= np.isin(rows["class"], self._labels)
        boxes = np.stack([rows[side] for side in ("x1", "y1", "x2", "y2")], axis=-1)
        columns = FrameBoxes(rows["tubelet"], rows["class"], rows["score"], boxes)
        for frame in np.unique(rows["frame"][kept]):
            chosen = kept & (rows["frame"] == frame)
            self._waiting[int(frame)].append(FrameBoxes(*(c[chosen] for c in columns)))

    def take(self, frame: int) -> FrameBoxes:
        """The boxes of a frame, which are then forgotten; call it when no rows can follow."""
        parts = self._waiting.pop(frame, None)
        if parts is None:
            empty = np.zeros(0, int)
            return FrameBoxes(empty, empty, np.zeros(0), np.zeros((0, 4)))
        found = FrameBoxes(*map(np.concatenate, zip(*parts, strict=True)))
        pixels = scale_boxes(found.boxes, width=self._width, height=self._height)
        kept = grouped_nms(pixels, found.score, found.label, self._nms_threshold, inclusive=True)
        kept = kept[np.argsort(-found.score[kept], kind="stable")]
        return FrameBoxes(*(column[kept] for column in found))
