"""Areas under precision-recall curves, as ACT's evaluation takes them and as VOC's does.

ACT's: straight lines between the points, no envelope, nothing beyond the last recall. VOC's gives
other numbers, most of the time higher ones.
"""

from __future__ import annotations

import numpy as np

from step_jax.errors import InputError

AP_RULES = {
    "trapezoid": "trapezoid AP from precision 1 at recall 0",
    "voc": "VOC-style AP (envelope of the precision, all points)",
}


def check_ap_rule(rule: str) -> str:
    """The rule itself. Raises InputError for what is not one of AP_RULES."""
    if rule not in AP_RULES:
        raise InputError(f"ap {rule!r}: expected one of {', '.join(AP_RULES)}")
    return rule


def average_precision(precision: np.ndarray, recall: np.ndarray, *, rule: str) -> float:
    """Average precision in [0, 1] of a curve, by one of AP_RULES."""
    return (trapezoid_ap if rule == "trapezoid" else voc_ap)(precision, recall)


def precision_recall(hits: np.ndarray, num_ground_truth: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, best first: bool `[n]` -> two float64 `[n]`.

    Recall is NaN where there is no ground truth.
    """
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    return precision, true_positives / (num_ground_truth or np.nan)


def trapezoid_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Average precision in [0, 1], of a curve that starts at recall 0 with precision 1."""
    return area_over_recall(precision, recall, first=1.0)


def voc_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """The area under the curve whose precision is the best at that recall or a higher one.

    PASCAL VOC's since 2010; 0 beyond the last recall.
    """
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.append(0.0, recall)) * envelope))


def area_over_recall(values: np.ndarray, recall: np.ndarray, *, first: float) -> float:
    """The area under `values [n]` over `recall [n]`, from `first` at recall 0."""
    values, recall = np.append(first, values), np.append(0.0, recall)
    return float(np.sum(np.diff(recall) * (values[1:] + values[:-1]) / 2))


def ranking(labels: np.ndarray, scores: np.ndarray, *, num_classes: int) -> list[np.ndarray]:
    """For each class the indices of its detections, best first.

    Equal scores keep their order: the boxes of a tubelet share one score, and an unstable or a
    reversed ascending sort moves a class by points.
    """
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    classes = np.split(by_class, ends[:-1])
    return [rows[np.argsort(-scores[rows], kind="stable")] for rows in classes]
