"""Tubelets as far as a detections table still has them.

It holds what was above a score and survived the NMS of its window; the linker would see more.
"""

from __future__ import annotations

import numpy as np

from step_jax.detections import Detections
from step_jax.errors import InputError
from step_jax.nms import starts_of_runs
from step_jax.tubelet_table import TubeletHeader, TubeletRows

CANDIDATES = (
    "a detections table (candidates are only those above its score threshold that its tubelet NMS "
    "left, not all tubelets)"
)


def detected_tubelets(detections: Detections) -> TubeletRows:
    """The (tubelet, class) pairs of one step's detections as tubelets with a box for each class.

    A class that a tubelet was not detected for has score 0 and a box without area. Frames past the
    video's end, which have no rows, repeat the last box. Raises InputError for a table of middle
    frames.
    """
    header = detections.header
    if header.frames != "all":
        raise InputError(
            f"the detections table holds the {header.frames} frames of windows alone; tubes need "
            "all of them: evaluate with eval.frames=all"
        )
    K, C = header.clip_frames, len(header.classes)
    d = detections.take(np.lexsort((detections.frame, detections.tubelet, detections.video)))
    owner = (d.video.astype(np.int64) << 32) + d.tubelet
    begins = starts_of_runs(owner)
    row = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    start = d.frame[first]
    offset = d.frame - start[row]
    if (offset >= K).any():
        bad = int((offset >= K).argmax())
        raise InputError(
            f"detections of video {d.videos[d.video[bad]]!r}: tubelet {d.tubelet[bad]} spans more "
            f"than the table's {K} frames; expected a table that evaluate.py wrote"
        )
    scores = np.zeros((len(first), C), np.float32)
    scores[row, d.label] = d.score
    tubes = np.zeros((len(first), C, K, 4), np.float32)
    # The rows of a pair ascend by frame: each fills its frame and those after it.
    for frame in range(K):
        here = offset == frame
        tubes[row[here], d.label[here], frame:] = d.boxes[here, None]
    return TubeletRows(
        header=TubeletHeader(
            classes=header.classes,
            clip_frames=K,
            stride=header.stride,
            num_steps=header.num_steps,
            num_boxes=C,
            provenance=header.provenance,
        ),
        videos=d.videos,
        video=d.video[first].astype(np.int32),
        start=start,
        step=d.step[first],
        proposal=_ranks(d.video[first], start),
        scores=scores,
        tubes=tubes,
    )


def _ranks(video: np.ndarray, start: np.ndarray) -> np.ndarray:
    """A number for each row that is unique in its video and window, in order of the rows."""
    order = np.lexsort((start, video))
    key = (video[order].astype(np.int64) << 32) + start[order]
    begins = np.flatnonzero(starts_of_runs(key))
    ranks = np.arange(len(key)) - np.repeat(begins, np.diff(begins, append=len(key)))
    result = np.empty(len(key), np.int32)
    result[order] = ranks
    return result
