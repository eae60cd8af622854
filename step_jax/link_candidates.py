"""What may be linked: of every window and class, the best tubelets that do not overlap.

ACT's rule: NMS of the tubelets of a window, for each class by its own scores, and of the survivors
the best ten, however small their scores. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from step_jax.errors import InputError
from step_jax.nms import starts_of_runs
from step_jax.tubelet_overlap import mean_overlap, overlap_planes
from step_jax.tubelet_table import TubeletRows
from step_jax.windows import window_starts

_BLOCK_VALUES = 2**16  # floats of one intermediate array: what fits into a cache is faster


@dataclass(frozen=True, eq=False)
class LinkWindows:
    """W windows, by video, then by start; those without tubelets are among them.

    video: int64 [W], index into the videos of the rows; start: int64 [W], first frame.
    first_row, num_rows: int64 [W], which rows are the window's.
    """

    video: np.ndarray
    start: np.ndarray
    first_row: np.ndarray
    num_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def of_videos(self, first: int, stop: int) -> LinkWindows:
        """The windows of the videos with these numbers."""
        some = slice(*np.searchsorted(self.video, [first, stop]))
        return LinkWindows(*(c[some] for c in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Candidates:
    """At most Q candidates of each window and class, in descending score, ties by the lower row.

    proposal: int32 [W, C, Q], the place among the rows of the window; -1 where there is none.
    score: float32 [W, C, Q]; 0 where there is none.
    """

    proposal: np.ndarray
    score: np.ndarray


def link_windows(rows: TubeletRows, *, num_frames: np.ndarray) -> LinkWindows:
    """The windows of rows in order of video, start and proposal.

    Those of the header's grid that have no row count as windows without tubelets.

    Args:
      num_frames: int [V], of each of the rows' videos.

    Raises InputError for a window beyond the end of its video.
    """
    K, stride = rows.header.clip_frames, rows.header.stride
    keys = (rows.video.astype(np.int64) << 32) + rows.start
    first = np.flatnonzero(starts_of_runs(keys))
    own = keys[first]
    grids = [
        (int(v) << 32) + window_starts(int(num_frames[v]), clip_frames=K, stride=stride)
        for v in np.unique(rows.video)
    ]
    every = np.union1d(own, np.concatenate([*grids, np.zeros(0, np.int64)]))
    video, start = every >> 32, every & 0xFFFFFFFF
    _check_starts(rows, video, start, num_frames)
    num_rows = np.zeros(len(every), np.int64)
    num_rows[np.searchsorted(every, own)] = np.diff(first, append=len(keys))
    return LinkWindows(video, start, np.cumsum(num_rows) - num_rows, num_rows)


def clipped_pixels(tubes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Normalised boxes in pixels, clipped to `limits`: width, height, width, height."""
    pixels = np.asarray(tubes, np.float32) * limits
    np.maximum(pixels, 0, out=pixels)
    return np.minimum(pixels, limits, out=pixels)


def find_candidates(
    scores: np.ndarray,
    tubes: np.ndarray,
    windows: LinkWindows,
    *,
    nms_threshold: float,
    top: int,
) -> Candidates:
    """NMS in every window and class, then the best `top`.

    Args:
      scores: float32 [N, C]; tubes: float32 [N, K, 4], pixels. Rows as in `windows`.
      nms_threshold: mean IoU above which the lower score is dropped.
      top: how many survivors stay; a score threshold there is none.
    """
    C, K = scores.shape[1], tubes.shape[1]
    shape = (len(windows), C, min(top, int(windows.num_rows.max(initial=0))))
    result = Candidates(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
    by_size = np.argsort(windows.num_rows, kind="stable")  # little padding in a block
    by_size = by_size[windows.num_rows[by_size] > 0]
    while len(by_size):
        P = int(windows.num_rows[by_size[-1]])
        size = max(1, _BLOCK_VALUES // (P * max(K, C)))
        block, by_size = by_size[-size:], by_size[:-size]
        _fill_block(result, block, scores, tubes, windows, nms_threshold=nms_threshold)
    most = int((result.proposal >= 0).sum(axis=2).max(initial=0))
    return Candidates(result.proposal[:, :, :most], result.score[:, :, :most])


def _fill_block(
    result: Candidates,
    block: np.ndarray,
    scores: np.ndarray,
    tubes: np.ndarray,
    windows: LinkWindows,
    *,
    nms_threshold: float,
):
    """Writes the candidates of the windows `block`, of which the last has the most rows."""
    count = windows.num_rows[block]
    rows = padded_rows(windows, block, int(count[-1]))
    overlap = _overlaps(overlap_planes(tubes[rows]), nms_threshold)
    score = scores[rows].transpose(0, 2, 1)  # [n, C, P]
    order = _descending(score, count)
    kept = _greedy(order, count, overlap)
    rank = np.cumsum(kept, axis=2) - 1
    window, label, place = np.nonzero(kept & (rank < result.proposal.shape[2]))
    proposal, slot = order[window, label, place], rank[window, label, place]
    result.proposal[block[window], label, slot] = proposal
    result.score[block[window], label, slot] = score[window, label, proposal]


def padded_rows(windows: LinkWindows, which: np.ndarray, most: int) -> np.ndarray:
    """The rows of windows, `[n, most]`; where a window has fewer, some row of another."""
    rows = windows.first_row[which, None] + np.arange(most)
    last = windows.first_row[-1] + windows.num_rows[-1] - 1
    return np.minimum(rows, last)


def _overlaps(planes: np.ndarray, threshold: float) -> np.ndarray:
    """Which tubelets of a window overlap by more than the threshold: bool `[n, P, P]`."""
    P, n = planes.shape[2:]
    result = np.zeros((P, P, n), bool)
    for i in range(P - 1):
        above = mean_overlap(planes[:, :, i, None], planes[:, :, i + 1 :]) > threshold
        result[i, i + 1 :] = above
        result[i + 1 :, i] = above
    return np.ascontiguousarray(result.transpose(2, 0, 1))


def _descending(score: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The order of `[n, C, P]` scores, the best first, ties by the lower; padding last."""
    padding = np.arange(score.shape[2]) >= count[:, None]
    keys = np.where(padding[:, None], np.float32(np.inf), -score)
    return np.argsort(keys, axis=2, kind="stable")


def _greedy(order: np.ndarray, count: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Which places of an order `[n, C, P]` the greedy NMS keeps: bool `[n, C, P]`."""
    n, C, P = order.shape
    drops = overlap.reshape(n * P, P)  # a row: what a tubelet drops
    window = np.repeat(np.arange(n), C)
    dropped = np.zeros((n * C, P), bool)
    first = np.arange(n * C) * P
    kept = np.zeros((P, n * C), bool)
    count = np.repeat(count, C)
    for place in range(P):
        proposal = order[:, :, place].ravel()
        kept[place] = (place < count) & ~dropped.ravel()[first + proposal]
        rows = drops[window * P + proposal]
        rows &= kept[place][:, None]
        dropped |= rows
    return kept.T.reshape(n, C, P)


def _check_starts(rows: TubeletRows, video: np.ndarray, start: np.ndarray, num_frames: np.ndarray):
    K = rows.header.clip_frames
    beyond = np.flatnonzero(start > np.maximum(num_frames[video] - K, 0))
    if len(beyond):
        at = beyond[0]
        raise InputError(
            f"video {rows.videos[video[at]]!r}: a window of {K} frames at frame {start[at]}, but "
            f"the video has {num_frames[video[at]]} frames; are these annotations the ones that "
            f"the detector was evaluated on? ({len(beyond)} such windows)"
        )


def sizes_of(
    rows: TubeletRows, sizes: Mapping[str, tuple[int, int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """`num_frames` int64 [V] and `sides` float32 [V, 2] of the rows' videos; 0 of unused ones.

    Raises InputError for a video that has rows and no size.
    """
    used = np.unique(rows.video)
    missing = [rows.videos[v] for v in used if rows.videos[v] not in sizes]
    if missing:
        raise InputError(
            f"video {missing[0]!r} has tubelets, but is not among the {len(sizes)} annotated "
            f"videos ({len(missing)} such videos); expected the annotations and the split that "
            "the detector was evaluated on"
        )
    table = np.zeros((len(rows.videos), 3), np.int64)
    for v in used:
        table[v] = sizes[rows.videos[v]]
    return table[:, 0], table[:, 1:].astype(np.float32)
