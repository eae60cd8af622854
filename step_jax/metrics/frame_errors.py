"""Why detections miss: ACT's error analysis of frame-mAP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations
from step_jax.detections import Detections
from step_jax.metrics.average_precision import (
    area_over_recall,
    precision_recall,
    trapezoid_ap,
)
from step_jax.metrics.frame_boxes import detected_boxes
from step_jax.metrics.frame_tally import (
    CLASSIFICATION,
    HIT,
    LOCALIZATION,
    OTHER,
    TIME,
    FrameTally,
    tally,
)

ERRORS = ("localization", "classification", "time", "other", "missed")


@dataclass(frozen=True, eq=False)
class FrameErrors:
    """Percentages `[C]`, NaN for a class without ground truth; together they are 100.

    ap: average precision by the trapezoid rule.
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

    def means(self) -> dict[str, float]:
        """Of the classes that have ground truth, for AP and each of ERRORS."""
        return {name: float(np.nanmean(getattr(self, name))) for name in ("ap", *ERRORS)}


def frame_errors(
    detections: Detections, annotations: Annotations, split: str, *, step: int, **options
) -> FrameErrors:
    """Errors of one step's detections; options of `FrameTally`, errors as for `frame_map`."""
    blocks = detected_boxes(detections, annotations, split, step=step)
    return errors_of(tally(blocks, annotations, split, detections.header, **options))


def errors_of(counted: FrameTally) -> FrameErrors:
    """The shares of the errors.

    An error's share is the area under (such errors so far / detections so far) over recall.
    """
    totals = counted.num_ground_truth
    shares = [_shares(kinds, n) for kinds, n in zip(counted.ranked(), totals, strict=True)]
    return FrameErrors(counted.annotations.classes, *np.array(shares).T)


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
