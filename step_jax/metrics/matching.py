"""Which detections match ground truth, for very many frames or videos at once."""

from __future__ import annotations

import numpy as np

from step_jax.nms import starts_of_runs


def pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of equal keys `[N]`, `[M]`: indices into `first`, ascending, and into `second`."""
    order = np.argsort(second, kind="stable")
    start = np.searchsorted(second, first, side="left", sorter=order)
    count = np.searchsorted(second, first, side="right", sorter=order) - start
    left = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, order[start[left] + offset]


def match_pairs(
    cells: np.ndarray,
    detection: np.ndarray,
    truth: np.ndarray,
    overlap: np.ndarray,
    *,
    threshold: float,
) -> np.ndarray:
    """Which of N detections are true positives: bool `[N]`.

    In ascending order, each detection takes the ground truth with the largest overlap among what is
    still free in its cell, if that reaches the threshold (ties: the lower index of ground truth).

    Args:
      cells: int `[N]`, the (frame, class) or (video, class) of each detection; detections of
        different cells do not see the same ground truth.
      detection, truth: int `[P]`, pairs of one cell; each pair once.
      overlap: float `[P]`, of the pairs.
      threshold: from which an overlap matches.
    """
    close = np.flatnonzero(overlap >= threshold)
    detection, truth, overlap = detection[close], truth[close], overlap[close]
    order = np.lexsort((truth, -overlap, detection, cells[detection]))
    detection, truth = detection[order], truth[order]

    # Each round settles the first pair left in every cell: its detection is the best there, and
    # its truth that detection's favourite. As many rounds as a cell has ground truth.
    hit = np.zeros(len(cells), bool)
    while len(detection):
        is_first = starts_of_runs(cells[detection])
        hit[detection[is_first]] = True
        of_cell = np.cumsum(is_first) - 1
        left = detection != detection[is_first][of_cell]
        left &= truth != truth[is_first][of_cell]
        detection, truth = detection[left], truth[left]
    return hit
