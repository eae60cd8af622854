"""How tubes overlap in space and time, for very many pairs at once.

iou3dt = mean IoU of the boxes over the frames that both tubes have, times (frames that both have /
frames that one has). IoU counts pixels inclusively.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.boxes import box_iou
from step_jax.nms import starts_of_runs
from step_jax.tube_table import Tubes

CHUNK_ROWS = 2**17  # boxes that are compared at a time; what fits into a cache is faster


@dataclass(frozen=True, eq=False)
class TubeBoxes:
    """N tubes as runs of frames, tube i at rows `offset[i]` to `offset[i + 1]`; R rows.

    first: int64 [N], the frame of a tube's first row; one row for each frame from there on.
    offset: int64 [N + 1].
    boxes: float [R, 4], pixels.
    present: bool [R]: whether the tube has a box there. False in a gap, whose boxes mean nothing.
    """

    first: np.ndarray
    offset: np.ndarray
    boxes: np.ndarray
    present: np.ndarray

    @property
    def stop(self) -> np.ndarray:
        """int64 [N], the frame after the last row."""
        return self.first + np.diff(self.offset)

    @property
    def num_present(self) -> np.ndarray:
        """int64 [N], frames in which a tube has a box."""
        return np.diff(np.append(0, np.cumsum(self.present))[self.offset])


def detected_tubes(tubes: Tubes, present: np.ndarray | None = None) -> TubeBoxes:
    """Tubes of the table; `present` bool `[R]` says which of their rows count, by default all."""
    if present is None:
        present = np.ones(len(tubes.frame), bool)
    return TubeBoxes(tubes.first.astype(np.int64), tubes.offset, tubes.boxes, present)


def tubes_of_frames(frames: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> TubeBoxes:
    """Tubes from increasing frame numbers `[n]`, which may leave some out, and boxes `[n, 4]`."""
    first = np.array([f[0] for f in frames], np.int64)
    length = np.array([f[-1] - f[0] + 1 for f in frames], np.int64)
    offset = np.append(0, np.cumsum(length)).astype(np.int64)
    dense = np.zeros((offset[-1], 4), np.float32)
    present = np.zeros(offset[-1], bool)
    for own, f, b in zip(offset, frames, boxes, strict=False):
        rows = own + np.asarray(f) - f[0]
        dense[rows], present[rows] = b, True
    return TubeBoxes(first, offset, dense, present)


def iou3dt(
    a: TubeBoxes, b: TubeBoxes, i: np.ndarray, j: np.ndarray, *, spatial_only: bool = False
) -> np.ndarray:
    """The overlap of tube `i[p]` of `a` with tube `j[p]` of `b`: two int `[P]` -> float64 `[P]`.

    0 without a common frame. With `spatial_only` the mean IoU over the common frames alone.
    """
    begin = np.maximum(a.first[i], b.first[j])
    length = np.maximum(np.minimum(a.stop[i], b.stop[j]) - begin, 0)
    left = a.offset[i] + begin - a.first[i]
    right = b.offset[j] + begin - b.first[j]
    total, common = np.zeros(len(i)), np.zeros(len(i))
    for chunk in _chunks(length):
        rows = length[chunk]
        pair = np.repeat(np.arange(len(rows)), rows)
        step = np.arange(len(pair)) - np.repeat(np.cumsum(rows) - rows, rows)
        row_a, row_b = left[chunk][pair] + step, right[chunk][pair] + step
        both = a.present[row_a] & b.present[row_b]
        # float64: an overlap of exactly a threshold must not be decided by rounding.
        first, second = a.boxes[row_a].astype(float), b.boxes[row_b].astype(float)
        iou = box_iou(first, second, inclusive=True)
        total[chunk] = np.bincount(pair, iou * both, minlength=len(rows))
        common[chunk] = np.bincount(pair, both, minlength=len(rows))
    union = a.num_present[i] + b.num_present[j] - common
    return total / np.maximum(common if spatial_only else union, 1)


def tube_nms(tubes: Tubes, threshold: float = 0.3, *, boxes: TubeBoxes | None = None) -> np.ndarray:
    """The tubes that the NMS of each video and class keeps, bool `[N]`.

    The best score is kept first; what overlaps a kept tube by an iou3dt above the threshold is
    dropped; equal scores go by the lower index. `boxes` are the tubes where not all rows count.
    """
    boxes = detected_tubes(tubes) if boxes is None else boxes
    cells = tubes.video.astype(np.int64) * len(tubes.classes) + tubes.label
    left = np.lexsort((-tubes.score, cells))
    kept = np.zeros(len(tubes), bool)
    while len(left):  # each round keeps the best that is left of every video and class
        is_best = starts_of_runs(cells[left])
        best = left[is_best][np.cumsum(is_best) - 1]
        kept[best] = True
        best, left = best[~is_best], left[~is_best]
        left = left[iou3dt(boxes, boxes, best, left) <= threshold]
    return kept


def _chunks(lengths: np.ndarray) -> Iterator[slice]:
    """Cuts items into runs of about CHUNK_ROWS together, at least one item each."""
    ends = np.cumsum(lengths)
    piece = (ends - lengths) // CHUNK_ROWS
    starts = np.flatnonzero(starts_of_runs(piece))
    for start, stop in zip(starts, np.append(starts, len(lengths))[1:], strict=True):
        yield slice(int(start), int(stop))
