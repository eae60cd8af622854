"""Areas under precision-recall curves, as ACT's evaluation takes them.

Straight lines between the points, no envelope, nothing beyond the last recall: not the form of VOC
or COCO, which gives other numbers.
"""

from __future__ import annotations

import numpy as np


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


def area_over_recall(values: np.ndarray, recall: np.ndarray, *, first: float) -> float:
    """The area under `values [n]` over `recall [n]`, from `first` at recall 0."""
    values, recall = np.append(first, values), np.append(0.0, recall)
    return float(np.sum(np.diff(recall) * (values[1:] + values[:-1]) / 2))


def ranking(labels: np.ndarray, scores: np.ndarray, *, num_classes: int) -> list[np.ndarray]:
    """For each class the indices of its detections, best first.

    Equal scores keep their order: the boxes of a tubelet share one score, and an unstable or a
    reversed ascending sort moves a class by points.
    """
    order = np.lexsort((-scores, labels))
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return np.split(order, ends[:-1])
