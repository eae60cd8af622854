"""From the scores of a clip's tubelets to its detections: step 1 of the frame-mAP protocol.

A detection is a (tubelet, class) pair. docs/evaluation.md tells the protocol as a whole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from step_jax.errors import InputError
from step_jax.nms import ranks_in_runs, suppress


class ClipDetections(NamedTuple):
    """The (tubelet, class) pairs that survive; ordered by clip, class, descending score."""

    tubelet: np.ndarray  # int64 [D], rows of the scores
    label: np.ndarray  # int64 [D], action classes
    score: np.ndarray  # float [D]


def clip_detections(
    scores: np.ndarray,
    tubes: np.ndarray,
    *,
    clips: np.ndarray | None = None,
    score_threshold: float = 0.01,
    per_class_top: int = 400,
    nms_threshold: float = 0.45,
    top: int = 200,
) -> ClipDetections:
    """Threshold, NMS per class and caps, for one clip or for many at once.

    Args:
      scores: float `[N, C]`, without the background.
      tubes: float `[N, K, 4]`, or `[N, C, K, 4]` where each class has its own box, normalised;
        clipped to [0, 1] before they are compared.
      clips: int `[N]`, which clip a tubelet belongs to; None: all belong to one.
      score_threshold: a score must be above it.
      per_class_top: the best of a clip and class that enter the NMS.
      nms_threshold: mean IoU over the K frames, without the inclusive pixel, above which the lower
        score is dropped.
      top: the best pairs of a clip that are left in the end.

    At both caps equal scores go by class, then by the lower tubelet.
    """
    _check_finite(scores, tubes)
    clips = np.zeros(len(scores), int) if clips is None else np.asarray(clips)
    tubelet, label = np.nonzero(scores > score_threshold)
    score = scores[tubelet, label]
    group = clips[tubelet].astype(np.int64) * scores.shape[1] + label

    order = np.lexsort((-score, group))
    order = order[ranks_in_runs(group[order]) < per_class_top]
    tubelet, label, score, group = tubelet[order], label[order], score[order], group[order]

    inside = np.clip(tubes_of(tubes, tubelet, label), 0, 1)
    kept = np.flatnonzero(suppress(inside, group, nms_threshold, inclusive=False))
    kept = kept[_best_of_runs(clips[tubelet[kept]], score[kept], top)]
    return ClipDetections(tubelet[kept], label[kept], score[kept])


def clip_rows(
    scores: np.ndarray,
    tubes: np.ndarray,
    *,
    videos: list[str],
    starts: np.ndarray,
    num_frames: np.ndarray,
    stride: int,
    step: int,
    **limits,
) -> dict[str, np.ndarray]:
    """The rows of the detections table for one step of a batch of clips.

    Args:
      scores: float `[B, M, C]`, without the background.
      tubes: float `[B, M, K, 4]`, or `[B, M, R, K, 4]` with R = C or 1, normalised.
      videos, starts, num_frames: `[B]`, the clip's video, its first frame and the video's length.
      stride: between the windows of a video.
      step: 1-based.
      limits: as for `clip_detections`.

    Returns: columns for `DetectionsWriter.append`. A clip that is longer than its video has no rows
      for the frames past the end.
    """
    (B, M, C), K = scores.shape, tubes.shape[-2]
    tubes = tubes.reshape(B * M, *tubes.shape[2:])
    clips = np.repeat(np.arange(B), M)
    found = clip_detections(scores.reshape(B * M, C), tubes, clips=clips, **limits)

    order = np.lexsort((found.label, found.tubelet))  # as in a merged table
    tubelet, label, score = (column[order] for column in found)
    boxes = np.clip(tubes_of(tubes, tubelet, label), 0, 1)
    frame = np.asarray(starts)[clips[tubelet], None] + np.arange(K)
    row, offset = np.nonzero(frame < np.asarray(num_frames)[clips[tubelet], None])
    clip, proposal = np.divmod(tubelet[row], M)
    x1, y1, x2, y2 = boxes[row, offset].T
    return {
        "video": np.asarray(videos, object)[clip],
        "frame": frame[row, offset],
        "step": np.full(len(row), step),
        "tubelet": window_index(starts, stride=stride)[clip] * M + proposal,
        "class": label[row],
        "score": score[row],
        **{"x1": x1, "y1": y1, "x2": x2, "y2": y2},
    }


def tubes_of(tubes: np.ndarray, tubelet: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The tubes `[D, K, 4]` of (tubelet, class) pairs; of `[N, K, 4]` or `[N, C or 1, K, 4]`."""
    if tubes.ndim == 3:
        return tubes[tubelet]
    return tubes[tubelet, label % tubes.shape[1]]


def _tubes_of_classes(tubes: np.ndarray, tubelet: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The tubes `[D, K, 4]` of (tubelet, class) pairs, whether or not the classes share them."""
    if tubes.ndim == 3:
        return tubes[tubelet]
    return tubes[tubelet, label if tubes.shape[1] > 1 else 0]


def window_index(starts: np.ndarray, *, stride: int) -> np.ndarray:
    """The number of a window in its video's grid 0, stride, 2 * stride, ..., num_frames - K.

    The last one is off the grid where the stride misses the end, hence the rounding up.
    """
    return -(-np.asarray(starts) // stride)


def _best_of_runs(runs: np.ndarray, scores: np.ndarray, top: int) -> np.ndarray:
    """Indices, ascending, of the `top` best scores of each run; ties by the lower index."""
    order = np.lexsort((-scores, runs))
    return np.sort(order[ranks_in_runs(runs[order]) < top])


def _check_finite(scores: np.ndarray, tubes: np.ndarray):
    for name, values in (("scores", scores), ("boxes", tubes)):
        bad = np.count_nonzero(~np.isfinite(values))
        if bad:
            raise InputError(
                f"{bad} of the detector's {values.size} {name} are not finite; the parameters are "
                "broken: take an earlier checkpoint"
            )
