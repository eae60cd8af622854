"""Why detections miss: ACT's error analysis of frame-mAP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations
from step_jax.boxes import box_iou
from step_jax.detections import Detections
from step_jax.metrics.average_precision import (
    area_over_recall,
    precision_recall,
    ranking,
    trapezoid_ap,
)
from step_jax.metrics.frame_boxes import (
    FrameBoxes,
    detected_boxes,
    first_frames,
    pairs,
    truth_boxes,
)
from step_jax.metrics.frame_map import match, suppressed

HIT, LOCALIZATION, CLASSIFICATION, TIME, OTHER = range(5)


@dataclass(frozen=True, eq=False)
class FrameErrors:
    """Percentages `[C]`, NaN for a class without ground truth; they need not add up to 100.

    ap: average precision.
    localization: lost to boxes in frames that have the class.
    classification: lost to boxes on another class.
    time: lost to frames without any action, of videos that have the class.
    other: lost to the rest.
    missed: ground truth that nothing matched.
    """

    classes: tuple[str, ...]
    ap: np.ndarray
    localization: np.ndarray
    classification: np.ndarray
    time: np.ndarray
    other: np.ndarray
    missed: np.ndarray


def frame_errors(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    iou_threshold: float = 0.5,
    nms_threshold: float = 0.3,
) -> FrameErrors:
    """Errors of one step's detections; arguments and errors as for `frame_map`.

    An error's share is the area under (such errors so far / detections so far) over recall.
    """
    truth = truth_boxes(annotations, split, detections.header)
    videos = first_frames(annotations.split(split))
    blocks = [
        suppressed(block, nms_threshold)
        for block in detected_boxes(detections, annotations, split, step=step)
    ]
    kinds = [classify(block, truth, videos, iou_threshold=iou_threshold) for block in blocks]
    kind = np.concatenate(kinds)
    label = np.concatenate([block.label for block in blocks])
    score = np.concatenate([block.score for block in blocks])

    num_classes = len(annotations.classes)
    num_ground_truth = np.bincount(truth.label, minlength=num_classes)
    ranked = ranking(label, score, num_classes=num_classes)
    shares = [_shares(kind[rows], n) for rows, n in zip(ranked, num_ground_truth, strict=True)]
    return FrameErrors(annotations.classes, *np.array(shares).T)


def classify(
    found: FrameBoxes, truth: FrameBoxes, videos: np.ndarray, *, iou_threshold: float
) -> np.ndarray:
    """HIT or the first error that applies: int `[N]`; `videos` are the first frames of each."""
    num_classes = 1 + max(found.label.max(initial=0), truth.label.max(initial=0))

    def video_class(boxes: FrameBoxes) -> np.ndarray:
        return np.searchsorted(videos, boxes.frame, side="right") * num_classes + boxes.label

    detection, box = pairs(found.frame, truth.frame)
    iou = box_iou(found.boxes[detection], truth.boxes[box], inclusive=True)
    on_a_box = np.zeros(len(found.frame), bool)
    on_a_box[detection[iou >= iou_threshold]] = True
    conditions = [
        match(found, truth, iou_threshold=iou_threshold),
        np.isin(found.cells(num_classes), truth.cells(num_classes)),
        on_a_box,  # of another class, for the frame has none of this one
        np.isin(video_class(found), video_class(truth)) & ~np.isin(found.frame, truth.frame),
    ]
    return np.select(conditions, [HIT, LOCALIZATION, CLASSIFICATION, TIME], OTHER)


def _shares(kinds: np.ndarray, num_ground_truth: int) -> list[float]:
    """AP, the four errors and what is missed, in percent, of one class's ranked detections."""
    if not num_ground_truth:
        return [np.nan] * 6
    precision, recall = precision_recall(kinds == HIT, num_ground_truth)
    areas = [trapezoid_ap(precision, recall)]
    for error in (LOCALIZATION, CLASSIFICATION, TIME, OTHER):
        rate, _ = precision_recall(kinds == error, num_ground_truth)
        areas.append(area_over_recall(rate, recall, first=0.0))
    missed = 1 - recall.max(initial=0.0)
    return [100 * share for share in (*areas, missed)]
