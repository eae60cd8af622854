"""The best labelling of every frame of a tube, where changing the label costs. numpy only."""

from __future__ import annotations

import numpy as np


def label_paths(
    scores: np.ndarray, offset: np.ndarray, *, penalty: float, preferred: np.ndarray | int = 0
) -> np.ndarray:
    """Labels l that maximise the sum of `scores[t, l_t]` less the cost of all changes, by tube.

    Exact dynamic programming, all tubes at once. A change costs the same whatever the labels, and
    the ends are free. Among equally good labellings a label is kept rather than changed, seen from
    the end, where `preferred` comes first, then the lower label.

    Args:
      scores: float [R, L], of every frame of every tube for L labels.
      offset: int64 [N + 1], where the frames of each tube are.
      penalty: what a change costs, 0 or more.
      preferred: int, or int [N], the label that a tube ends with among equally good ones.

    Returns: int64 [R].
    """
    length = np.diff(offset)
    longest = np.argsort(-length, kind="stable")  # those that are live at a time come first
    first, length = offset[:-1][longest], length[longest]
    active = np.searchsorted(-length, -np.arange(length.max(initial=0)), side="left")
    before, values = _forward(scores, first, active, penalty=penalty)
    preferred = np.broadcast_to(preferred, len(first))[longest]
    best = values.argmax(axis=1)
    tied = values[np.arange(len(best)), preferred] == values[np.arange(len(best)), best]
    return _backward(before, first, active, np.where(tied, preferred, best))


def _forward(scores, first, active, *, penalty):
    """The label before each label [R, L], and the value of ending with each label [N, L]."""
    before = np.zeros(scores.shape, np.int16)
    labels = np.arange(scores.shape[1])
    values = np.zeros((len(first), scores.shape[1]))
    for time, n in enumerate(active):
        rows = first[:n] + time
        best = values[:n].argmax(axis=1)[:, None]
        changed = np.take_along_axis(values[:n], best, axis=1) - penalty
        keep = values[:n] >= changed
        before[rows] = np.where(keep, labels, best)
        values[:n] = scores[rows] + np.where(keep, values[:n], changed)
    return before, values


def _backward(before, first, active, last_label):
    """Labels [R], from the last of each tube."""
    result = np.zeros(len(before), np.int64)
    label = last_label.copy()
    for time in range(len(active) - 1, -1, -1):
        rows = first[: active[time]] + time
        result[rows] = label[: active[time]]
        label[: active[time]] = before[rows, label[: active[time]]]
    return result
