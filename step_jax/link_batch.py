"""Videos that are linked together, in the form that linking works on: boxes shared by the classes.

Where every class has its own boxes, or a window has very many tubelets, each (video, class) goes on
as if it were a video of one class. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from step_jax.link_candidates import LinkWindows, clipped_pixels
from step_jax.nms import starts_of_runs
from step_jax.tubelet_table import TubeletRows

_MOST_SHARED = 48  # tubelets a window, whose overlaps are worth computing once for all classes
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class LinkBatch:
    """V videos (or pairs of a video and a class) with C' classes each.

    windows: their `video` counts the V.
    scores: float32 [N, C']; tubes: float32 [N, K, 4] in pixels, within the frame.
    row: int64 [N], among the rows that the batch was made of.
    video: int64 [V], index into the videos of the rows; label: int64 [V, C'].
    hopeful: bool [V, C'], where a tube can have the score that it needs.
    """

    windows: LinkWindows
    scores: np.ndarray
    tubes: np.ndarray
    row: np.ndarray
    video: np.ndarray
    label: np.ndarray
    hopeful: np.ndarray


def make_batch(
    rows: TubeletRows,
    windows: LinkWindows,
    sides: np.ndarray,
    *,
    min_score: float,
    share: bool | None = None,
) -> LinkBatch:
    """The batch of some windows' videos.

    Args:
      rows: those of the windows, in order, and no others.
      sides: float32 [V, 2], width and height of each of the rows' videos.
      min_score: of a tube. No mean of scores that are all below it can reach it, so classes that
        are below it throughout a video are left out.
      share: whether the classes stay together, which needs boxes that they share; None: if they
        share them and no window is large.
    """
    limits = np.tile(sides, 2).astype(np.float32)[:, None]
    first_row, num_rows = _runs(rows.video)
    if share is None:
        share = rows.header.num_boxes == 1 and windows.num_rows.max() <= _MOST_SHARED
    hopeful = np.maximum.reduceat(rows.scores, first_row) >= min_score - _ROUNDING * abs(min_score)
    first_window, num_windows = _runs(windows.video)
    video = windows.video[first_window]
    if share:
        tubes = clipped_pixels(rows.tubes[:, 0], limits[rows.video])
        label = np.tile(np.arange(hopeful.shape[1]), (len(video), 1))
        windows = replace(windows, video=np.repeat(np.arange(len(video)), num_windows))
        row = np.arange(len(rows))
        return LinkBatch(windows, rows.scores, tubes, row, video, label, hopeful)

    pair, label = np.nonzero(hopeful)
    row = _ranges(first_row[pair], num_rows[pair])
    label_of_row = np.repeat(label, num_rows[pair])
    window = _ranges(first_window[pair], num_windows[pair])
    count = windows.num_rows[window]
    return LinkBatch(
        windows=LinkWindows(
            video=np.repeat(np.arange(len(pair)), num_windows[pair]),
            start=windows.start[window],
            first_row=np.cumsum(count) - count,
            num_rows=count,
        ),
        scores=rows.scores[row, label_of_row][:, None],
        tubes=clipped_pixels(
            rows.tubes[row, label_of_row % rows.header.num_boxes], limits[rows.video[row]]
        ),
        row=row,
        video=video[pair],
        label=label[:, None],
        hopeful=np.ones((len(pair), 1), bool),
    )


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal values begin and how long they are."""
    first = np.flatnonzero(starts_of_runs(values))
    return first, np.diff(first, append=len(values))


def _ranges(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... (length[0] of them), first[1], ..."""
    before = np.cumsum(length) - length
    return np.repeat(first - before, length) + np.arange(length.sum())
