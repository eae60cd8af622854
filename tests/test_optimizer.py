"""Learning rates at the steps where they change; what the optimizer decays and clips."""

import math

import jax
import numpy as np
import optax
import pytest

from step_jax.errors import InputError
from step_jax.optimizer import (
    describe_groups,
    group_factors,
    make_optimizer,
    make_schedule,
    rate_factors,
    rate_table,
    scaled_rate,
)

PARAMS = {"kernel": np.full((2, 3), 2.0, np.float32), "bias": np.full(3, 2.0, np.float32)}


def rates(steps, **options):
    schedule = make_schedule(learning_rate=0.8, total_steps=100, **options)
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize("kind", ["constant", "cosine", "step_decay"])
def test_table_of_rates(kind):
    options = {"kind": kind, "learning_rate": 0.8, "total_steps": 30, "warmup_steps": 5}
    schedule = make_schedule(**options, decay_steps=(20,), first_update=1)
    expected = [float(schedule(step)) for step in range(30)]
    np.testing.assert_allclose(rate_table(schedule, 30), expected, rtol=1e-6, atol=1e-8)


def test_constant():
    assert rates([0, 99], kind="constant") == pytest.approx([0.8, 0.8])


def test_warmup_is_linear_from_zero():
    for kind in ("constant", "cosine", "step_decay"):
        found = rates([0, 1, 5, 10], kind=kind, warmup_steps=10, decay_steps=(60,))
        assert found == pytest.approx([0, 0.08, 0.4, 0.8])


def test_warmup_from_a_share_of_the_rate():
    options = {"kind": "cosine", "warmup_steps": 10, "warmup_start": 0.1}
    assert rates([0, 5, 10], **options) == pytest.approx([0.08, 0.44, 0.8])
    found = rates([0, 9, 54, 99], first_update=1, **options)
    assert found == pytest.approx([0.8 * (0.1 + 0.9 / 10), 0.8, 0.4, 0], abs=1e-6)


@pytest.mark.parametrize("warmup", [0, 20])
def test_cosine_ends_at_zero(warmup):
    middle = (warmup + 100) // 2
    found = rates([warmup, middle, 99, 100], kind="cosine", warmup_steps=warmup)
    last = 0.4 * (1 + math.cos(math.pi * (99 - warmup) / (100 - warmup)))
    assert found == pytest.approx([0.8, 0.4, last, 0], abs=1e-6)


@pytest.mark.parametrize("warmup", [0, 10])
def test_step_decay_counts_steps_of_the_training(warmup):
    options = {"kind": "step_decay", "decay_steps": (57, 86), "warmup_steps": warmup}
    found = rates([56, 57, 85, 86, 99], decay_factor=0.1, **options)
    assert found == pytest.approx([0.8, 0.08, 0.08, 0.008, 0.008])


def test_decays_at_the_same_step_multiply():
    """The shares of Section 4.1 coincide in a very short training, or before the warm-up ends."""
    found = rates([0, 1], kind="step_decay", decay_steps=(1, 1), decay_factor=0.5)
    assert found == pytest.approx([0.8, 0.2])
    found = rates([5], kind="step_decay", decay_steps=(2, 4), warmup_steps=5, decay_factor=0.5)
    assert found == pytest.approx([0.2])


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match=r"optimizer.schedule 'linear': expected one of constant"):
        rates([0], kind="linear")


@pytest.mark.parametrize("kind", ["L2", ""])
def test_an_unknown_decay_is_refused(kind):
    with pytest.raises(InputError, match=f"weight_decay_kind '{kind}': expected one of decoupled"):
        make_optimizer(optax.constant_schedule(1), weight_decay_kind=kind)


def updated(optimizer, gradients, *, times=1):
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(times):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_it_is_adam():
    """Against the formula of the paper that introduced it, three updates with other gradients."""
    optimizer = make_optimizer(optax.constant_schedule(0.1))
    rng = np.random.default_rng(0)
    params, state = PARAMS, optimizer.init(PARAMS)
    theta, m, v = 2.0, 0.0, 0.0
    for t in (1, 2, 3):
        gradients = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), PARAMS)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        g = gradients["bias"][0]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert params["bias"][0] == pytest.approx(theta, rel=1e-5)


def test_only_matrices_are_decayed():
    """Decoupled: without a gradient a matrix shrinks by rate times decay."""
    optimizer = make_optimizer(optax.constant_schedule(0.1), weight_decay=0.5)
    params = updated(optimizer, jax.tree.map(np.zeros_like, PARAMS))
    np.testing.assert_allclose(params["kernel"], 2 * (1 - 0.05), rtol=1e-6)
    np.testing.assert_array_equal(params["bias"], PARAMS["bias"])


def test_l2_decay_is_part_of_the_gradient():
    """Adam forgets its strength: any decay alone moves a kernel by the rate."""
    for decay in (0.5, 0.05):
        optimizer = make_optimizer(
            optax.constant_schedule(0.1), weight_decay=decay, weight_decay_kind="l2"
        )
        params = updated(optimizer, jax.tree.map(np.zeros_like, PARAMS))
        np.testing.assert_allclose(params["kernel"], 2 - 0.1, rtol=1e-6)
        np.testing.assert_array_equal(params["bias"], PARAMS["bias"])


# --- groups ---------------------------------------------------------------------------------------

NESTED = {"backbone": {"stem": PARAMS, "top": PARAMS}, "heads_0": {"box": PARAMS}}
GROUPS = (("backbone/stem/*", 0.125), ("backbone/*", 0.5), ("heads_?/*", 3.0))


def test_the_first_pattern_that_matches_counts():
    factors = rate_factors(NESTED, groups=GROUPS, bias_rate=2.0)
    assert factors == {
        "backbone": {"stem": {"kernel": 0.125, "bias": 0.25}, "top": {"kernel": 0.5, "bias": 1.0}},
        "heads_0": {"box": {"kernel": 3.0, "bias": 6.0}},
    }
    assert set(jax.tree.leaves(rate_factors(NESTED))) == {1.0}


def test_each_parameter_moves_at_its_rate():
    """Decay too: decoupled, it is the rate times its strength."""
    optimizer = make_optimizer(
        optax.constant_schedule(0.1), weight_decay=0.25, groups=GROUPS, bias_rate=2.0
    )
    gradients = jax.tree.map(np.ones_like, NESTED)
    updates, _ = optimizer.update(gradients, optimizer.init(NESTED), NESTED)
    for path, factor in [(("backbone", "stem"), 0.125), (("heads_0", "box"), 3.0)]:
        found = updates[path[0]][path[1]]
        np.testing.assert_allclose(found["kernel"], -0.1 * factor * (1 + 0.25 * 2), rtol=1e-5)
        np.testing.assert_allclose(found["bias"], -0.1 * factor * 2, rtol=1e-5)


def test_groups_are_listed():
    lines = [line.split() for line in describe_groups(NESTED, groups=GROUPS, learning_rate=0.1)]
    assert lines == [
        ["backbone/stem/*", "rate", "0.0125", "9"],
        ["backbone/*", "rate", "0.05", "9"],
        ["heads_?/*", "rate", "0.3", "9"],
    ]
    assert not list(describe_groups(NESTED, groups=(), learning_rate=0.1))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[:2], "'heads_0/box/bias' is in none of them"),
        ((*GROUPS, ("head/*", 1.0)), "'head/\\*' is for no parameter"),
        ((("*", 1.0), ("backbone/*", 2.0)), "'backbone/\\*' is for no parameter that an earlier"),
    ],
)
def test_wrong_groups_are_refused(groups, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(optax.constant_schedule(1), groups=groups).init(NESTED)


def test_gradients_are_clipped_by_their_common_norm():
    """Adam forgets a common scale, so what is clipped shows in the state it keeps."""
    gradients = {"kernel": np.full((2, 3), np.float32(3)), "bias": np.full(3, np.float32(4))}
    norm = math.sqrt(6 * 9 + 3 * 16)
    for limit, scale in ((0.0, 1), (1.0, 1 / norm), (2 * norm, 1)):
        optimizer = make_optimizer(optax.constant_schedule(0.1), max_gradient_norm=limit)
        _, state = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
        first_moment = optax.tree.get(state, "mu")
        np.testing.assert_allclose(first_moment["bias"], 0.1 * 4 * scale, rtol=1e-5)
        np.testing.assert_allclose(first_moment["kernel"], 0.1 * 3 * scale, rtol=1e-5)


def test_factors_of_groups_with_biases_of_their_own():
    assert group_factors(PARAMS) == {}
    assert group_factors(PARAMS, bias_rate=2.0) == {"weights": 1.0, "biases": 2.0}
    groups = (("kernel", 0.5), ("*", 3.0))
    assert group_factors(PARAMS, groups=groups) == {"kernel": 0.5, "*": 3.0}
    both = group_factors({"a": PARAMS}, groups=(("a/*", 0.5),), bias_rate=2.0)
    assert both == {"a/*": 0.5, "a/* biases": 1.0}


def test_the_rate_is_in_proportion_to_the_batch():
    assert scaled_rate(0.1, batch_size=32, reference_batch_size=0) == 0.1
    assert scaled_rate(0.1, batch_size=32, reference_batch_size=8) == pytest.approx(0.4)
    with pytest.raises(InputError, match=r"optimizer.reference_batch_size is -4; expected the b"):
        scaled_rate(0.1, batch_size=32, reference_batch_size=-4)
