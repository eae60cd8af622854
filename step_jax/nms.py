"""Greedy non-maximum suppression of boxes and tubelets, of one set or of very many sets at once.

Everywhere: the best score is kept first, what overlaps a kept one by more than the threshold is
dropped, equal scores go by the lower index. An overlap of exactly the threshold stays, as in ACT's
code; with `at_threshold` it is dropped, as in the released model's. numpy only.
"""

from __future__ import annotations

import numpy as np

from step_jax.boxes import box_iou


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    *,
    inclusive: bool = True,
    at_threshold: bool = False,
) -> np.ndarray:
    """Indices of the kept boxes, in descending score: `[N, 4]`, `[N]` -> int64 `[kept]`.

    With `inclusive` (the evaluation codes' convention) a box holds both its border pixels, so the
    boxes must be in pixels.
    """
    groups = np.zeros(len(scores), int)
    return grouped_nms(
        boxes, scores, groups, threshold, inclusive=inclusive, at_threshold=at_threshold
    )


def tubelet_nms(
    tubes: np.ndarray, scores: np.ndarray, threshold: float, *, inclusive: bool = False
) -> np.ndarray:
    """The same for tubelets `[N, K, 4]`, which overlap by the mean IoU of their K boxes."""
    return grouped_nms(tubes, scores, np.zeros(len(scores), int), threshold, inclusive=inclusive)


def grouped_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    *,
    inclusive: bool,
    at_threshold: bool = False,
) -> np.ndarray:
    """NMS within each group, all groups together: one frame's class, one clip's class, ...

    Args:
      boxes: float `[N, 4]`, or tubelets `[N, K, 4]`.
      scores: float `[N]`.
      groups: int `[N]`, in any order; boxes of different groups do not see each other.
      threshold: IoU above which the lower score is dropped.
      inclusive: as for `nms`.
      at_threshold: whether an overlap of exactly the threshold is dropped too.

    Returns: int64 indices of the kept boxes, ascending by group, descending by score within one.
    """
    order = np.lexsort((-scores, groups))
    kept = suppress(
        boxes[order], groups[order], threshold, inclusive=inclusive, at_threshold=at_threshold
    )
    return order[kept]


def suppress(
    boxes: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    *,
    inclusive: bool,
    at_threshold: bool = False,
) -> np.ndarray:
    """The same for boxes in order: groups adjacent, the best of a group first -> kept, bool `[N]`.

    Each round keeps the best box left in every group and drops what overlaps it, so there are as
    many rounds as the fullest group keeps boxes, whatever the number of groups.
    """
    kept = np.zeros(len(groups), bool)
    left = np.arange(len(groups))
    while len(left):
        is_best = starts_of_runs(groups[left])
        best = left[is_best][np.cumsum(is_best) - 1]
        kept[best] = True
        best, left = best[~is_best], left[~is_best]
        iou = box_iou(boxes[best], boxes[left], inclusive=inclusive)
        overlap = iou if iou.ndim == 1 else iou.mean(axis=-1)
        dropped = overlap >= threshold if at_threshold else overlap > threshold
        left = left[~dropped]
    return kept


def starts_of_runs(values: np.ndarray) -> np.ndarray:
    """Where a run of equal values begins: `[N]` -> bool `[N]`."""
    starts = np.ones(len(values), bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def ranks_in_runs(values: np.ndarray) -> np.ndarray:
    """The position of every item in its run of equal values, from 0: `[N]` -> int64 `[N]`."""
    starts = np.flatnonzero(starts_of_runs(values))
    lengths = np.diff(starts, append=len(values))
    return np.arange(len(values)) - np.repeat(starts, lengths)
