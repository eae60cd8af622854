"""From the scores of a clip's tubelets to its detections: step 1 of the frame-mAP protocol.

A detection is a (tubelet, class) pair. docs/evaluation.md tells the protocol as a whole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from step_jax.boxes import make_valid
from step_jax.errors import InputError
from step_jax.nms import ranks_in_runs, suppress
from step_jax.windows import reported, window_index


class ClipDetections(NamedTuple):
    """The (tubelet, class) pairs that survive; ordered by clip, class, descending score."""

    tubelet: np.ndarray  # int64 [D], rows of the scores
    label: np.ndarray  # int64 [D], action classes
    score: np.ndarray  # float [D]
    boxes: np.ndarray  # float [D, K, 4], normalised, within the image


def clip_detections(
    scores: np.ndarray,
    tubes: np.ndarray,
    *,
    clips: np.ndarray | None = None,
    score_threshold: float = 0.01,
    per_class_top: int = 400,
    nms_threshold: float = 0.45,
    top: int = 200,
    inclusive_side: int | None = None,
) -> ClipDetections:
    """Threshold, NMS per class and caps, for one clip or for many at once.

    Args:
      scores: float `[N, C]`, without the background.
      tubes: float `[N, K, 4]`, or `[N, C, K, 4]` where each class has its own box, normalised;
        clipped to the image before they are compared.
      clips: int `[N]`, which clip a tubelet belongs to; None: all belong to one.
      score_threshold: a score must be above it.
      per_class_top: the best of a clip and class that enter the NMS.
      nms_threshold: mean IoU over the K frames above which the lower score is dropped.
      top: the best pairs of a clip that are left in the end.
      inclusive_side: None compares shares of the sides, as ACT's evaluation. The side of the
        network's input does what the released model does: boxes are in its pixels and made valid
        (2 px or less: the whole image), the IoU counts both border pixels, and what overlaps by
        exactly the threshold is dropped too.

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

    inside = _inside(tubes_of(tubes, tubelet, label), inclusive_side)
    released = inclusive_side is not None
    kept = suppress(inside, group, nms_threshold, inclusive=released, at_threshold=released)
    kept = np.flatnonzero(kept)
    kept = kept[_best_of_runs(clips[tubelet[kept]], score[kept], top)]
    boxes = inside[kept] / (inclusive_side or 1)
    return ClipDetections(tubelet[kept], label[kept], score[kept], boxes)


def clip_rows(
    scores: np.ndarray,
    tubes: np.ndarray,
    *,
    videos: list[str],
    starts: np.ndarray,
    num_frames: np.ndarray,
    stride: int,
    step: int,
    frames: str = "all",
    **limits,
) -> dict[str, np.ndarray]:
    """The rows of the detections table for one step of a batch of clips.

    Args:
      scores: float `[B, M, C]`, without the background.
      tubes: float `[B, M, K, 4]`, or `[B, M, R, K, 4]` with R = C or 1, normalised.
      videos, starts, num_frames: `[B]`, the clip's video, its first frame and the video's length.
      stride: between the windows of a video.
      step: 1-based.
      frames: "all" or "middle": what of a window is reported, and compared in the NMS.
      limits: as for `clip_detections`.

    Returns: columns for `DetectionsWriter.append`. A clip that is longer than its video has no rows
      for the frames past the end.
    """
    (B, M, C), K = scores.shape, tubes.shape[-2]
    shown = reported(frames, clip_frames=K)
    tubes = tubes.reshape(B * M, *tubes.shape[2:])[..., shown, :]
    clips = np.repeat(np.arange(B), M)
    found = clip_detections(scores.reshape(B * M, C), tubes, clips=clips, **limits)

    order = np.lexsort((found.label, found.tubelet))  # as in a merged table
    tubelet, label, score, boxes = (column[order] for column in found)
    frame = np.asarray(starts)[clips[tubelet], None] + np.arange(K)[shown]
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


def _inside(tubes: np.ndarray, inclusive_side: int | None) -> np.ndarray:
    """Normalised tubes as they are compared: clipped shares, or valid boxes in pixels."""
    if inclusive_side is None:
        return np.clip(tubes, 0, 1)
    side = inclusive_side
    return make_valid(tubes * side, height=side, width=side)


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
