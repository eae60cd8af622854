"""Video-mAP: whole tubes against the ground truth, as ACT's evaluation counts them.

docs/evaluation.md tells the protocol and how others differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError
from step_jax.metrics.average_precision import (
    AP_RULES,
    average_precision,
    check_ap_rule,
    precision_recall,
    ranking,
)
from step_jax.metrics.frame_boxes import (
    annotated_frames,
    check_classes,
    first_frames,
    video_numbers,
)
from step_jax.metrics.frame_map import classes_text
from step_jax.metrics.frame_tally import check_counted_frames
from step_jax.metrics.matching import match_pairs, pairs
from step_jax.metrics.tube_overlap import (
    TubeBoxes,
    detected_tubes,
    iou3dt,
    tube_nms,
    tubes_of_frames,
)
from step_jax.tube_table import Tubes

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
AVERAGED = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
ALL_THRESHOLDS = tuple(sorted({*THRESHOLDS, *AVERAGED}))


@dataclass(frozen=True, eq=False)
class VideoMap:
    """The result; T thresholds, C classes.

    thresholds: of iou3dt, ascending.
    ap: float [T, C], percent; NaN for a class without ground truth in the split.
    mean: float [T], of the classes that have ground truth, percent.
    num_ground_truth: int [C], tubes. num_detections: int [C], tubes after the tube NMS.
    num_true_positives: int [T, C].
    precision, recall: for each threshold and class float [num_detections], in descending score.
    protocol: how it was counted, one line to print beside the numbers.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    ap: np.ndarray
    mean: np.ndarray
    num_ground_truth: np.ndarray
    num_detections: np.ndarray
    num_true_positives: np.ndarray
    precision: tuple[tuple[np.ndarray, ...], ...]
    recall: tuple[tuple[np.ndarray, ...], ...]
    protocol: str

    def at(self, threshold: float) -> float:
        """The mean at one threshold. Raises InputError for one that was not asked for."""
        if threshold not in self.thresholds:
            raise InputError(f"threshold {threshold}: there are {list(self.thresholds)}")
        return float(self.mean[self.thresholds.index(threshold)])

    @property
    def averaged(self) -> float | None:
        """Video-mAP at .5:.95, the mean of ten; None where one of them was not asked for."""
        if not set(AVERAGED) <= set(self.thresholds):
            return None
        return float(np.mean([self.at(threshold) for threshold in AVERAGED]))


def video_map(
    tubes: Tubes,
    annotations: Annotations,
    split: str,
    *,
    thresholds: Sequence[float] = ALL_THRESHOLDS,
    nms_threshold: float = 0.3,
    ap: str = "trapezoid",
    frames: str = "all",
) -> VideoMap:
    """Video-mAP of tubes over the videos of a split.

    Per class over all videos, by descending score (equal scores: in the order of the split, then of
    `tubes`): a tube matches if its largest iou3dt with the tubes of ground truth of its video and
    class that are still free reaches the threshold.

    Args:
      tubes: before the tube NMS; a video without any counts as one without detections.
      annotations: their classes must be those of the tubes; a tube of several classes counts once
        for each.
      split: name.
      thresholds: of iou3dt.
      nms_threshold: iou3dt above which the tube NMS of each video and class drops.
      ap: one of `average_precision.AP_RULES`.
      frames: "all", or "annotated": boxes of tubes in frames without ground truth do not count.

    Raises InputError for other classes, a video that is not in the split, a frame beyond its
    video's end, a score or box that is not finite, a split without a tube, and unknown options.
    """
    thresholds = check_thresholds(thresholds)
    check_ap_rule(ap)
    check_counted_frames(frames)
    videos, num_classes = annotations.split(split), len(annotations.classes)
    number = _checked_videos(tubes, annotations, split)
    truth, truth_cell = _ground_truth(annotations, split)
    found, boxes = _kept(tubes, number, videos, threshold=nms_threshold, frames=frames)

    cells = number[found.video] * num_classes + found.label
    detection, box = pairs(cells, truth_cell)
    overlap = iou3dt(boxes, truth, detection, box)
    hits = [match_pairs(cells, detection, box, overlap, threshold=t) for t in thresholds]

    ranked = ranking(found.label, found.score, num_classes=num_classes)
    totals = np.bincount(truth_cell % num_classes, minlength=num_classes)
    curves = [
        [precision_recall(hit[rows], total) for rows, total in zip(ranked, totals, strict=True)]
        for hit in hits
    ]
    areas = np.array([[100 * average_precision(*c, rule=ap) for c in row] for row in curves])
    areas = np.where(totals > 0, areas, np.nan)
    return VideoMap(
        classes=annotations.classes,
        thresholds=thresholds,
        ap=areas,
        mean=np.nanmean(areas, axis=1),
        num_ground_truth=totals,
        num_detections=np.array([len(rows) for rows in ranked]),
        num_true_positives=np.array([[np.count_nonzero(h[r]) for r in ranked] for h in hits]),
        precision=tuple(tuple(curve[0] for curve in row) for row in curves),
        recall=tuple(tuple(curve[1] for curve in row) for row in curves),
        protocol=_protocol(annotations, videos, areas[0], nms_threshold, rule=ap, frames=frames),
    )


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Ascending, each once. Raises InputError for what is no overlap."""
    values = tuple(sorted({float(t) for t in thresholds}))
    if not values or not 0 < values[0] <= values[-1] <= 1:
        raise InputError(f"thresholds are {list(thresholds)}; expected numbers above 0, up to 1")
    return values


def _kept(
    tubes: Tubes, number: np.ndarray, videos: Sequence[Video], *, threshold: float, frames: str
) -> tuple[Tubes, TubeBoxes]:
    """What the tube NMS leaves, by video, class and descending score; which frames of it count."""
    tubes = tubes.take(np.lexsort((-tubes.score, tubes.label, number[tubes.video])))
    if frames == "annotated":
        present = _annotated_rows(tubes, number, videos)
        any_left = np.add.reduceat(present, tubes.offset[:-1]) > 0 if len(tubes) else []
        tubes = tubes.take(np.flatnonzero(any_left))
        present = _annotated_rows(tubes, number, videos)
    else:
        present = np.ones(len(tubes.frame), bool)
    boxes = detected_tubes(tubes, present)
    kept = np.flatnonzero(tube_nms(tubes, threshold, boxes=boxes))
    left = tubes.take(kept)
    return left, detected_tubes(left, present[np.isin(tubes.row_tube, kept)])


def _annotated_rows(tubes: Tubes, number: np.ndarray, videos: Sequence[Video]) -> np.ndarray:
    """Whether the frame of each row has ground truth of any class: bool `[R]`."""
    own = first_frames(videos)[number[tubes.video]]
    return annotated_frames(videos)[own[tubes.row_tube] + tubes.frame]


def _ground_truth(annotations: Annotations, split: str) -> tuple[TubeBoxes, np.ndarray]:
    """A tube for each label of each tube of the split, and its (video, class) as a number."""
    num_classes = len(annotations.classes)
    tubes, cells = [], []
    for number, video in enumerate(annotations.split(split)):
        for tube in video.tubes:
            for label in tube.labels:
                tubes.append(tube)
                cells.append(number * num_classes + label)
    if not tubes:
        raise InputError(
            f"{annotations.name}: split {split!r} has no annotated tube; there is nothing to "
            "compare detections with"
        )
    truth = tubes_of_frames([tube.frames for tube in tubes], [tube.boxes for tube in tubes])
    return truth, np.array(cells)


def _checked_videos(tubes: Tubes, annotations: Annotations, split: str) -> np.ndarray:
    """For each of `tubes.videos` its number in the split."""
    check_classes(tubes.classes, annotations)
    number = video_numbers(tubes, annotations, split)
    num_frames = np.array([video.num_frames for video in annotations.split(split)])
    last = tubes.frame[tubes.offset[1:] - 1]
    finite = np.isfinite(tubes.score)
    finite &= (
        np.bincount(tubes.row_tube, ~np.isfinite(tubes.boxes).all(axis=1), minlength=len(tubes))
        == 0
    )
    for bad, text in (
        (last >= num_frames[number[tubes.video]], "reaches beyond the end of its video"),
        (~finite, "has a score or a box that is not finite"),
    ):
        if bad.any():
            first = int(bad.argmax())
            raise InputError(
                f"tube {first} (video {tubes.videos[tubes.video[first]]!r}, frames "
                f"{tubes.first[first]} to {last[first]}) {text} ({np.count_nonzero(bad)} such "
                "tubes); expected tubes of the videos that are annotated"
            )
    return number


def _protocol(
    annotations: Annotations,
    videos: Sequence[Video],
    ap: np.ndarray,
    nms_threshold: float,
    *,
    rule: str,
    frames: str,
) -> str:
    plain = rule == "trapezoid" and frames == "all"
    counted = "all frames" if frames == "all" else "annotated frames alone"
    num_tubes = sum(len(tube.labels) for video in videos for tube in video.tubes)
    return (
        f"video-mAP, {'' if plain else 'not '}ACT protocol: iou3dt (mean inclusive-pixel IoU over "
        f"common frames x common/union frames), tube NMS {nms_threshold:g} per video and class, "
        f"{counted} and {num_tubes:,} tubes of {len(videos)} videos, {AP_RULES[rule]}, "
        f"{classes_text(annotations.classes, ap)}"
    )
