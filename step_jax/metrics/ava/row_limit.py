"""The best rows of each keyframe, chosen as the official evaluation does."""

from __future__ import annotations

import numpy as np

from step_jax.metrics.ava.keyframe_boxes import KeyframeBoxes
from step_jax.nms import ranks_in_runs, starts_of_runs

_CELLS = 2**22  # of the padded table of scores; a few tens of MB


def within_limit(found: KeyframeBoxes, limit: int) -> np.ndarray:
    """Which rows count if only `limit` of a keyframe do: bool [N]. Rows are sorted by keyframe.

    The official code pushes a keyframe's rows one after the other into a heap of (score, class, y1,
    x1, y2, x2), which a row enters only by a greater score than the least one's, and which then
    loses its least tuple. What it ends with can be told without it: let s be the limit-th greatest
    score. All rows above s stay. Of those that equal s only such were ever in the heap that are
    among the first `limit` rows with a score of s or more, and of these the greatest tuples are
    left.
    """
    starts = np.flatnonzero(starts_of_runs(found.keyframe))
    lengths = np.diff(starts, append=len(found))
    crowded = np.flatnonzero(lengths > limit)
    kept = np.ones(len(found), bool)
    if not len(crowded):
        return kept
    starts, lengths = starts[crowded], lengths[crowded]
    rows = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    keyframe = np.repeat(np.arange(len(crowded)), lengths)
    least = _kth_greatest(found.score, starts, lengths, limit)[keyframe]

    score = found.score[rows]
    above = score > least
    open_places = limit - np.bincount(keyframe[above], minlength=len(crowded))
    kept[rows] = above
    reaches = np.flatnonzero(score >= least)
    early = reaches[ranks_in_runs(keyframe[reaches]) < limit]
    candidates = early[~above[early]]
    candidates = candidates[_by_tuple(found, rows[candidates], keyframe[candidates])]
    fills = ranks_in_runs(keyframe[candidates]) < open_places[keyframe[candidates]]
    kept[rows[candidates[fills]]] = True
    return kept


def _kth_greatest(score: np.ndarray, starts: np.ndarray, lengths: np.ndarray, k: int) -> np.ndarray:
    """The k-th greatest of each run of scores, whose lengths are k or more: [runs]."""
    result = np.empty(len(starts), score.dtype)
    order = np.argsort(-lengths, kind="stable")  # runs of like length share a table without waste
    while len(order):
        width = lengths[order[0]]
        part, order = np.split(order, [max(1, _CELLS // width)])
        offset = np.arange(width)
        padded = score[np.minimum(starts[part, None] + offset, len(score) - 1)]
        padded[offset >= lengths[part, None]] = -np.inf
        result[part] = np.partition(padded, width - k, axis=1)[:, width - k]
    return result


def _by_tuple(found: KeyframeBoxes, rows: np.ndarray, keyframe: np.ndarray) -> np.ndarray:
    """What sorts rows by keyframe, in each by descending (class, y1, x1, y2, x2), then by row."""
    x1, y1, x2, y2 = -found.boxes[rows].T
    return np.lexsort((x2, y2, x1, y1, -found.label[rows], keyframe))
