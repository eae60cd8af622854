"""Which candidates of a window continue which tubelets of the windows before. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from step_jax.link_candidates import Candidates, LinkWindows, padded_rows
from step_jax.tubelet_overlap import mean_overlap, overlap_planes

_BLOCK_VALUES = 2**16


@dataclass(frozen=True, eq=False)
class Slots:
    """The boxes of a batch's candidates, each kept once.

    With several classes, which share their boxes, a slot is a tubelet of the window; with one it is
    a candidate.

    planes: float32 [5, K, P, W], see `overlap_planes`; a slot that no candidate has may hold any
      box.
    of_candidate: int32 [W, C, Q], the candidates' slots; -1 where there is no candidate.
    """

    planes: np.ndarray
    of_candidate: np.ndarray


def find_slots(tubes: np.ndarray, windows: LinkWindows, candidates: Candidates) -> Slots:
    """The slots of the windows' candidates; `tubes` float32 [N, K, 4] in pixels."""
    W, C, Q = candidates.proposal.shape
    if C > 1:
        most = int(windows.num_rows.max(initial=0))
        rows = padded_rows(windows, np.arange(W), most)
        return Slots(overlap_planes(tubes[rows]), candidates.proposal)
    exists = candidates.proposal[:, 0] >= 0
    rows = np.where(exists, windows.first_row[:, None] + candidates.proposal[:, 0], 0)
    of_candidate = np.where(exists, np.arange(Q, dtype=np.int32), -1)
    return Slots(overlap_planes(tubes[rows]), of_candidate[:, None])


def matches(before: np.ndarray, now: np.ndarray, *, off: int, threshold: float) -> np.ndarray:
    """Whether tubelets overlap enough on the frames that they share.

    Args:
      before, now: planes `[5, K, P, n]` and `[5, K, P', n]` of two windows, n times.
      off: frames from the first window's start to the second's, below K.
      threshold: mean IoU from which they match.

    Returns: bool `[n, P, P']`.
    """
    K, P = before.shape[1:3]
    result = np.empty((P, *now.shape[2:]), bool)
    for i in range(P):
        overlap = mean_overlap(before[:, off:, i, None], now[:, : K - off])
        np.greater_equal(overlap, threshold, out=result[i])
    return result.transpose(2, 0, 1)


def match_table(slots: Slots, windows: LinkWindows, *, threshold: float) -> np.ndarray:
    """All matches of a batch: bool `[lags, W, P, P]`.

    `[lag - 1, w, i, j]` says whether slot j of window w continues slot i of the same video's window
    `lag` places before; False where there is no such window or where they share no frame.
    """
    K, P, W = slots.planes.shape[1:]
    table = []
    for lag in range(1, K):
        now = np.arange(lag, W)
        off = windows.start[lag:] - windows.start[:-lag]
        linked = (windows.video[lag:] == windows.video[:-lag]) & (off < K)
        if not linked.any():
            break
        table.append(np.zeros((W, P, P), bool))
        for value in np.unique(off[linked]):
            some = now[linked & (off == value)]
            _fill(table[-1], slots, some, lag, off=int(value), threshold=threshold)
    return np.stack(table) if table else np.zeros((0, W, P, P), bool)


def _fill(result: np.ndarray, slots: Slots, now: np.ndarray, lag: int, *, off, threshold):
    K, P, _ = slots.planes.shape[1:]
    size = max(1, _BLOCK_VALUES // ((K - off) * max(P, 1)))
    for start in range(0, len(now), size):
        some = now[start : start + size]
        # Not by an index, which would leave the windows' axis apart in memory.
        before, here = (np.take(slots.planes, w, axis=3) for w in (some - lag, some))
        result[some] = matches(before, here, off=off, threshold=threshold)
