"""ACT's NMS over all classes, before candidates are chosen; STEP has none. numpy only."""

from __future__ import annotations

import numpy as np

from step_jax.link_candidates import clipped_pixels
from step_jax.nms import grouped_nms, ranks_in_runs
from step_jax.tubelet_table import TubeletRows


def global_survivors(
    rows: TubeletRows, sides: np.ndarray, *, threshold: float, top: int
) -> np.ndarray:
    """The tubelets of each window that do not overlap a better one.

    Args:
      rows: tubelets of one step. Where classes have boxes of their own, a tubelet is where its best
        class says (our choice: ACT's boxes are shared).
      sides: float32 [V, 2], width and height of each of the rows' videos.
      threshold: mean IoU, with both border pixels, above which the one with the lower highest score
        of a class is dropped; ties keep the earlier row.
      top: how many of a window stay.

    Returns: int64 rows, by video and start, in descending score.
    """
    best = rows.scores.argmax(axis=1)
    score = rows.scores[np.arange(len(rows)), best]
    limits = np.tile(sides, 2).astype(np.float32)[rows.video][:, None]
    tubes = rows.tubes[np.arange(len(rows)), best % rows.header.num_boxes]
    window = (rows.video.astype(np.int64) << 32) + rows.start
    kept = grouped_nms(clipped_pixels(tubes, limits), score, window, threshold, inclusive=True)
    return kept[ranks_in_runs(window[kept]) < top]
