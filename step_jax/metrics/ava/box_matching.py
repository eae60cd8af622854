"""Which detections hit, as the official AVA evaluation decides."""

from __future__ import annotations

import numpy as np

from step_jax.boxes import box_iou
from step_jax.metrics.ava.keyframe_boxes import KeyframeBoxes
from step_jax.nms import starts_of_runs

_CHUNK_ROWS = 2**21


def true_positives(
    found: KeyframeBoxes, truth: KeyframeBoxes, *, num_classes: int, iou_threshold: float = 0.5
) -> np.ndarray:
    """Which detections are true positives: bool [N].

    Each detection asks for one box, the ground truth of its keyframe and class that it overlaps
    most (ties: the earlier one). A box goes to the best score among those that ask for it with an
    overlap of the threshold or more, ties to the earlier row. Who comes second gets no other.
    """
    cells = _cells(truth, num_classes)
    order = np.argsort(cells, kind="stable")
    cells, boxes = cells[order], truth.boxes[order].astype(np.float64)
    last = max(found.keyframe.max(initial=0), truth.keyframe.max(initial=0))
    count = np.bincount(cells, minlength=num_classes * (last + 1)).astype(np.int32)
    first = np.cumsum(count, dtype=np.int32) - count

    asking, wanted = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(found), _CHUNK_ROWS):
        chunk = np.arange(start, min(start + _CHUNK_ROWS, len(found)))
        chunk_cells = found.keyframe[chunk].astype(np.int64) * num_classes + found.label[chunk]
        has_truth = count[chunk_cells] > 0
        rows, chunk_cells = chunk[has_truth], chunk_cells[has_truth]
        box, iou = _favourites(
            found.boxes[rows].astype(np.float64), boxes, first[chunk_cells], count[chunk_cells]
        )
        asking.append(rows[iou >= iou_threshold])
        wanted.append(box[iou >= iou_threshold])
    rows, box = np.concatenate(asking), np.concatenate(wanted)
    order = np.lexsort((rows, -found.score[rows], box))
    rows, box = rows[order], box[order]
    hit = np.zeros(len(found), bool)
    hit[rows[starts_of_runs(box)]] = True
    return hit


def _cells(boxes: KeyframeBoxes, num_classes: int) -> np.ndarray:
    """A number for each keyframe and class: int64 [N]."""
    return boxes.keyframe.astype(np.int64) * num_classes + boxes.label


def _favourites(
    detected: np.ndarray, boxes: np.ndarray, first: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each detection the box that it overlaps most, and how much.

    Args:
      detected: float64 [D, 4].
      boxes: float64 [M, 4]. Detection i may have the `count[i] >= 1` boxes from `first[i]` on.

    Returns: int64 [D], float64 [D].
    """
    detection = np.repeat(np.arange(len(detected)), count)
    starts = np.cumsum(count) - count
    box = np.arange(len(detection)) + (first - starts)[detection]
    # float64, and the detection first: float32 or another order flips pairs at exactly .5.
    iou = box_iou(detected[detection], boxes[box])
    if not len(iou):
        return box, iou
    best = np.flatnonzero(iou == np.maximum.reduceat(iou, starts)[detection])
    best = best[starts_of_runs(detection[best])]
    return box[best], iou[best]
