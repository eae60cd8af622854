"""One training step of the released model, number by number, given what was sampled in it.

The public PyTorch model made the numbers, without dropout, from pseudo-random weights and a clip of
400 px (released_weights.py, released_clip.py). What needs no network is compared always, gradients
in the slow test.
"""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_clip
import released_model

from configs import ava
from programs import training_config
from step_jax import optimizer, parallel, sampling
from step_jax.convert.released_keys import Architecture
from step_jax.detector_loss import (
    global_counts,
    sampled_losses,
    training_features,
    weighted_loss,
)
from step_jax.loss_options import LossOptions
from step_jax.models.heads import HeadOutput
from step_jax.models.step import StepOutput
from step_jax.train_state import init_variables
from step_jax.training_targets import Targets, overlaps
from step_jax.transfer import by_path

SIDE, SEED = 400, 5
STEPS = range(released_model.STEPS)
ENTRIES = Architecture(steps=released_model.STEPS).entries()
PATHS = {entry.key: entry.path for entry in ENTRIES}
THRESHOLDS = (0.2, 0.35, 0.5)


@pytest.fixture(scope="module")
def released():
    """The original's numbers."""
    return np.load(pathlib.Path(__file__).parents[1] / "data" / "released_training.npz")


@functools.cache
def config():
    return ava.get_config("released")


@functools.cache
def detector():
    return released_model.detector(context=True)


def loss_options():
    return LossOptions(**config().loss.to_dict())


# --- what was sampled, as this project says it ----------------------------------------------------


def sampled(released, step):
    """`fed [1, N, L, 4]`, samples and targets, where each sample has a tube of its own."""
    stored = released[f"s{step + 1}_targets"][None]  # (box, class flag, box flag, classes) x 3
    number, middles = stored.shape[1], [1, 4, 7]
    boxes = np.zeros((1, number, 9, 4), np.float32)
    mask = np.zeros((1, number, 9), bool)
    boxes[:, :, middles] = stored[..., :4]
    mask[:, :, middles] = stored[..., 5] > 0
    positive = stored[:, :, 1, 4] > 0
    index = np.arange(number)[None]
    samples = sampling.Samples(index, index * positive, positive, ~positive)
    targets = Targets(boxes, mask, stored[:, :, 1, 6:], positive)
    return released[f"s{step + 1}_sel_tubes"][None], samples, targets


def means(terms):
    """The losses in the original's order; without one it says 0."""
    names = ("classification", "localization", "anticipation")
    return [float(terms[n][0] / max(terms[n][1], 1)) if n in terms else 0.0 for n in names]


@pytest.mark.parametrize("step", STEPS)
def test_losses_of_what_the_heads_said(released, step):
    fed, samples, targets = sampled(released, step)

    def stored(name):
        return released[f"s{step + 1}_{name}"][None]

    probability = stored("prob").astype(np.float64)
    head = HeadOutput(
        logits=np.log(probability / (1 - probability)).astype(np.float32),
        deltas=stored("delta_loc")[:, :, :, None],
        first=stored("delta_first")[:, :, :, None] if step == 1 else None,
        last=stored("delta_last")[:, :, :, None] if step == 1 else None,
    )
    output = StepOutput(fed, head)
    terms = sampled_losses(detector(), step, output, samples, targets, loss_options())
    *losses, total = released[f"s{step + 1}_losses"]
    np.testing.assert_allclose(means(terms), losses, atol=1e-5)
    assert np.dot(means(terms), [1, 5, 1]) == pytest.approx(total, abs=3e-5)


def test_what_was_sampled_is_the_clips_ground_truth(released):
    """So the boxes above are in the same pixels as those of `make_ground_truth`."""
    boxes, labels = released_clip.make_ground_truth(SEED, side=SIDE)
    for step in STEPS:
        stored = released[f"s{step + 1}_targets"]
        for positive in stored[stored[:, 1, 4] > 0]:
            person = abs(boxes[:, 1] - positive[1, :4]).sum(axis=1).argmin()
            np.testing.assert_allclose(positive[1, :4], boxes[person, 1], rtol=1e-6)
            np.testing.assert_array_equal(positive[1, 6:], labels[person])


# --- which samples may be drawn -------------------------------------------------------------------


@pytest.mark.parametrize("case", range(6))
def test_the_originals_samples_obey_our_rules(released, case):
    stored = {name: released[f"sel{case}_{name}"] for name in ("gt", "anchors", "pos", "neg")}
    plan = detector().plan
    there = np.ones((1, 3, 9), bool)
    boxes = np.repeat(stored["gt"][None, :, None], 9, axis=2)
    targets = Targets(boxes, there, np.zeros((1, 3, 60)), there[..., 0])
    tubes = np.repeat(stored["anchors"][None, :, None], 3, axis=2)
    overlap = np.asarray(overlaps(targets, jnp.asarray(tubes), plan, frames="middle"))[0]
    np.testing.assert_allclose(overlap, released[f"sel{case}_ious"], atol=1e-6)

    claimer = np.asarray(sampling.claim_proposals(jnp.asarray(overlap), claim_without_overlap=True))
    claims = {int(claimer[m]): overlap[claimer[m], m] for m in np.flatnonzero(claimer >= 0)}
    threshold = THRESHOLDS[case % 3]
    positives = [(int(tube), overlap[:, m]) for tube, m in stored["pos"]]
    # Which of equally good proposals is claimed is arbitrary: overlaps are compared.
    claimed = [tube for tube, over in positives if over[tube] == pytest.approx(claims[tube])]
    most = 5 if case < 4 else 2
    assert len(set(claimed)) == min(len(claims), most)
    assert len(positives) <= most
    for tube, over in positives:
        assert over[tube] == pytest.approx(claims[tube]) or over.max() > threshold
        assert over[tube] == pytest.approx(over.max()) or over[tube] == pytest.approx(claims[tube])
    assert all(overlap[:, m].max() <= threshold for _, m in stored["neg"])
    assert len(stored["neg"]) <= 2 * len(positives)


# --- the optimizer --------------------------------------------------------------------------------


@functools.cache
def shapes():
    key = jax.random.key(0)
    return jax.eval_shape(
        lambda: init_variables(detector(), image_size=64, num_proposals=1, key=key)
    )


def small_parameters(value):
    """All parameters, with two numbers along every axis."""
    return jax.tree.map(
        lambda leaf: np.full((2,) * leaf.ndim, value, np.float32), shapes()["params"]
    )


@functools.cache
def first_updates(gradient):
    """{path: update} of parameters 1 whose gradients are all `gradient`."""
    params, adam = small_parameters(1.0), training_config.optimizer_of(config())
    updates, _ = adam.update(small_parameters(gradient), adam.init(params), params)
    return {path: float(np.ravel(leaf)[0]) for path, leaf in by_path({"params": updates}).items()}


def test_every_parameter_that_is_trained_has_a_group(released):
    """The original names parameters that get no gradient too; ours are frozen."""
    trained, frozen = (by_path({name: shapes()[name]}) for name in ("params", "frozen"))
    paths = {PATHS[name] for name in released["opt_names"]}
    assert paths >= trained.keys()
    without = {name for name in released["opt_names"] if PATHS[name] not in trained}
    assert without == set(released["opt_names"]) - set(released["grad_names"])
    assert {PATHS[name] for name in without} <= frozen.keys()


def test_the_rates_of_the_first_update(released):
    """Adam's first update is the rate wherever the gradient is large."""
    updates = first_updates(1.0)
    for name, rate in zip(released["opt_names"], released["lr_first_iter"], strict=True):
        if PATHS[name] in updates:
            assert -updates[PATHS[name]] == pytest.approx(rate, rel=1e-5), name


def test_rates(released):
    factors = optimizer.rate_factors(
        small_parameters(0.0),
        groups=config().optimizer.groups,
        bias_rate=config().optimizer.bias_rate,
    )
    factors = by_path({"params": factors})
    for name, rate in zip(released["opt_names"], released["opt_lr"], strict=True):
        if PATHS[name] in factors:
            ours = factors[PATHS[name]] * config().optimizer.learning_rate
            assert ours == pytest.approx(rate), name


def test_weight_decay(released):
    """Without another gradient d, the decay, is all that Adam sees: its update is d / (d + eps)."""
    updates, rates = first_updates(0.0), first_updates(1.0)
    for name, decay in zip(released["opt_names"], released["opt_wd"], strict=True):
        if PATHS[name] in updates:
            ratio = updates[PATHS[name]] / rates[PATHS[name]]
            assert ratio == pytest.approx(decay / (decay + 1e-8), rel=1e-4), name


def test_the_schedule(released):
    schedule = optimizer.make_schedule(
        kind=config().optimizer.schedule,
        learning_rate=1.0,
        total_steps=5000,
        warmup_steps=config().optimizer.warmup_steps,
        warmup_start=config().optimizer.warmup_start,
        first_update=config().optimizer.first_update,
    )
    ours = jax.vmap(schedule)(released["rate_steps"])
    np.testing.assert_allclose(ours, released["rate_factors"], atol=1e-6)


def test_the_first_update_of_given_gradients(released):
    """Those gradients of the first head that were kept whole."""
    norms = dict(zip(released["det0_update_names"], released["det0_update_norms"], strict=True))
    kept = [name for name in released.files if name.startswith("grad:det_net0/")]
    assert len(kept) == 4
    adam = training_config.optimizer_of(config())
    params = by_path({"params": small_parameters(1.0)})
    for name in kept:
        path = PATHS[name.removeprefix("grad:")]
        params[path] = released[name]
    gradients = _nested(params)  # all of them: a group without parameters is refused
    updates, _ = adam.update(gradients, adam.init(gradients), gradients)
    updates = by_path({"params": updates})
    for name in kept:
        key = name.removeprefix("grad:")
        norm = np.linalg.norm(updates[PATHS[key]])
        assert norm == pytest.approx(norms[key.removeprefix("det_net0/")], rel=1e-4), name


def _nested(arrays):
    """{path: leaf} -> tree."""
    tree = {}
    for path, leaf in arrays.items():
        *folders, name = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = leaf
    return tree


# --- the whole step -------------------------------------------------------------------------------


@pytest.mark.slow
def test_losses_and_gradients(released, one_device):
    """Minutes: forward and backward through everything at 400 px."""
    variables = released_model.variables(context=True)
    clip = released_clip.make_clip(SEED, batch=1, frames=36, side=SIDE)
    model = detector()

    def loss(params, clips):
        everything = variables | {"params": params}
        features, _ = training_features(model, everything, clips)
        terms, named = [], {}
        for step in STEPS:
            fed, samples, targets = sampled(released, step)
            output = model.apply(everything, step, features, jnp.asarray(fed), method="refine")
            terms.append(sampled_losses(model, step, output, samples, targets, loss_options()))
            named |= {f"{name}_{step + 1}": pair for name, pair in terms[-1].items()}
        return weighted_loss(named, global_counts(named), loss_options()), terms

    def loss_and_gradient(params, clips):
        return jax.value_and_grad(loss, has_aux=True)(params, clips)

    (total, terms), gradients = parallel.data_parallel(loss_and_gradient)(
        variables["params"], clip[None]
    )
    for step in STEPS:
        losses = released[f"s{step + 1}_losses"][:3]
        np.testing.assert_allclose(means(terms[step]), losses, atol=1e-5)
    assert total == pytest.approx(float(released["total_loss"]), abs=3e-5)
    check_norms(released, gradients)
    check_first_update(released, variables["params"], gradients)


def check_norms(released, gradients):
    found = {path: np.linalg.norm(leaf) for path, leaf in by_path({"params": gradients}).items()}
    wanted = dict(zip(released["grad_names"], released["grad_norms"], strict=True))
    wanted = {PATHS[name]: norm for name, norm in wanted.items()}
    assert found.keys() == wanted.keys()
    errors = {path: abs(found[path] / norm - 1) for path, norm in wanted.items()}
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-2, (worst, errors[worst])
    assert np.median(list(errors.values())) < 1e-3
    for net, start in (("base_net", "backbone"), ("context_net", "scene_context"),
                       *((f"det_net{step}", f"heads_{step}") for step in STEPS)):  # fmt: skip
        norm = math.sqrt(sum(v**2 for path, v in found.items() if path.startswith(start)))
        assert norm == pytest.approx(float(released[f"gradnorm:{net}"]), rel=3e-3)


def check_first_update(released, params, gradients):
    adam = training_config.optimizer_of(config())
    updates, _ = adam.update(gradients, adam.init(params), params)
    updates = by_path({"params": updates})
    for name, norm in zip(
        released["det0_update_names"], released["det0_update_norms"], strict=True
    ):
        path = PATHS[f"det_net0/{name}"]
        assert (path in updates) == (norm > 0), name
        if path in updates:
            assert np.linalg.norm(updates[path]) == pytest.approx(norm, rel=1e-2), name
