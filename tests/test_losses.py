"""The losses against loops; what has no weight has no part in them, whatever it holds."""

import math

import jax
import numpy as np
import pytest

from step_jax import losses

RNG = np.random.default_rng(0)
WEIGHT = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
LOGITS = RNG.normal(scale=3, size=(2, 3, 4)).astype(np.float32)


def smooth_l1(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def test_softmax_loss():
    labels = RNG.integers(0, 4, (2, 3))
    expected = 0.0
    for place in np.argwhere(WEIGHT):
        logits = [float(v) for v in LOGITS[tuple(place)]]
        p = math.exp(logits[labels[tuple(place)]]) / sum(map(math.exp, logits))
        expected -= math.log(p)
    total, count = losses.softmax_loss(LOGITS, labels, WEIGHT)
    assert total == pytest.approx(expected, rel=1e-5)
    assert count == 3


def test_sigmoid_loss():
    labels = RNG.integers(0, 2, (2, 3, 4)).astype(np.float32)
    expected = 0.0
    for place in np.argwhere(WEIGHT):
        for logit, label in zip(LOGITS[tuple(place)], labels[tuple(place)], strict=True):
            p = 1 / (1 + math.exp(-logit))
            expected -= math.log(p if label else 1 - p)
    total, count = losses.sigmoid_loss(LOGITS, labels, WEIGHT)
    assert total == pytest.approx(expected, rel=1e-5)
    assert count == 3 * 4


def test_box_loss():
    deltas, targets = RNG.normal(scale=1.5, size=(2, 2, 3, 4)).astype(np.float32)
    expected = sum(
        smooth_l1(float(a) - float(b))
        for place in map(tuple, np.argwhere(WEIGHT))
        for a, b in zip(deltas[place], targets[place], strict=True)
    )
    total, count = losses.box_loss(deltas, targets, WEIGHT)
    assert total == pytest.approx(expected, rel=1e-5)
    assert count == 3 * 4


def test_boxes_without_weight_may_have_any_target():
    deltas = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    targets = np.full((2, 3, 4), np.nan, np.float32)
    targets[0, 1], targets[1, 0, 2] = np.inf, -np.inf
    targets[WEIGHT > 0] = 0.5
    (total, count), gradient = jax.value_and_grad(losses.box_loss, has_aux=True)(
        deltas, targets, WEIGHT
    )
    assert np.isfinite(total)
    assert count == 12
    assert (gradient[WEIGHT > 0] != 0).all()
    assert not gradient[WEIGHT == 0].any()


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (losses.softmax_loss, np.zeros((2, 3), int)),
        (losses.sigmoid_loss, np.ones((2, 3, 4))),
        (losses.box_loss, np.full((2, 3, 4), np.inf)),
    ],
)
def test_nothing_chosen_is_zero_of_zero(loss, targets):
    total, count = loss(LOGITS, targets, np.zeros_like(WEIGHT))
    assert (total, count) == (0, 0)
