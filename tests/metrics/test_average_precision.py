"""Areas by hand and against ACT's reference numbers."""

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.metrics.average_precision import (
    area_over_recall,
    average_precision,
    check_ap_rule,
    precision_recall,
    ranking,
    trapezoid_ap,
)


def test_reference_numbers(data_dir):
    reference = np.load(data_dir / "ucf101_24_units.npz")
    for case in range(6):
        hits, total = reference[f"ap_case{case}_hits"], int(reference[f"ap_case{case}_npos"])
        curve = precision_recall(hits, total)
        for rule, name in (("trapezoid", f"ap_case{case}"), ("voc", f"ap_case{case}_voc")):
            ap = average_precision(*curve, rule=rule)
            assert ap == pytest.approx(float(reference[name]), abs=1e-7)


def test_voc_by_hand():
    """Precisions 1/2, 2/3 at recalls 0, 1/2, 1: the envelope is 2/3 throughout."""
    curve = precision_recall(np.array([False, True, True]), 2)
    assert average_precision(*curve, rule="voc") == pytest.approx(2 / 3)
    assert average_precision(np.zeros(0), np.zeros(0), rule="voc") == 0
    with pytest.raises(InputError, match="ap 'coco': expected one of trapezoid, voc"):
        check_ap_rule("coco")


def test_precision_and_recall_by_hand():
    precision, recall = precision_recall(np.array([True, False, True]), 4)
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 2 / 4])
    assert trapezoid_ap(precision, recall) == pytest.approx(1 / 4 + (1 / 2 + 2 / 3) / 2 / 4)
    assert np.isnan(precision_recall(np.array([False]), 0)[1]).all()


def test_area_starts_from_the_given_value():
    assert area_over_recall(np.array([0.5]), np.array([1.0]), first=0.0) == 0.25
    assert area_over_recall(np.zeros(0), np.zeros(0), first=1.0) == 0


def test_ranking_keeps_the_order_of_equal_scores():
    labels = np.array([2, 0, 2, 2, 0])
    scores = np.array([0.5, 0.1, 0.9, 0.5, 0.1])
    assert [rows.tolist() for rows in ranking(labels, scores, num_classes=4)] == [
        [1, 4],
        [],
        [2, 0, 3],
        [],
    ]
