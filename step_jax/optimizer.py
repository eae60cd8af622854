"""Learning-rate schedules and the optimizer."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from step_jax.errors import InputError

SCHEDULES = ("constant", "cosine", "step_decay")
WEIGHT_DECAYS = ("decoupled", "l2")

PyTree = Any
# (pattern, factor): of the learning rate, for the parameters whose path the pattern matches.
Groups = tuple[tuple[str, float], ...]


def make_schedule(
    *,
    kind: str,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
    first_update: int = 0,
    decay_steps: tuple[int, ...] = (),
    decay_factor: float = 0.1,
) -> optax.Schedule:
    """The learning rate as a function of the updates made so far.

    Args:
      kind: "constant", "cosine" (to 0 at `total_steps`) or "step_decay" (Section 4.1).
      learning_rate: the highest rate.
      total_steps: of training.
      warmup_steps: of linear increase, before any of the three.
      warmup_start: share of the rate that the increase starts from.
      first_update: the step of this schedule that the first update is made at; the released model
        counts from 1.
      decay_steps: where "step_decay" multiplies by `decay_factor`.
      decay_factor: see there.
    """
    _one_of("schedule", kind, SCHEDULES)
    if kind == "step_decay":
        # After the warm-up, join_schedules counts from its end.
        starts = [max(step - warmup_steps, 0) for step in decay_steps]
        boundaries = {start: decay_factor ** starts.count(start) for start in starts}
        after = optax.piecewise_constant_schedule(learning_rate, boundaries)
    elif kind == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, max(total_steps - warmup_steps, 1))
    else:
        after = optax.constant_schedule(learning_rate)
    schedule = after
    if warmup_steps > 0:
        warmup = optax.linear_schedule(warmup_start * learning_rate, learning_rate, warmup_steps)
        schedule = optax.join_schedules([warmup, after], [warmup_steps])
    return schedule if first_update == 0 else lambda count: schedule(count + first_update)


def rate_table(schedule: optax.Schedule, total_steps: int) -> np.ndarray:
    """The rate of each update, float32 `[total_steps]`.

    All at once, before training: a single one, asked for meanwhile, would wait for its turn behind
    the steps that the device has yet to make.
    """
    rates = jax.vmap(schedule)(jnp.arange(total_steps))
    return np.asarray(rates, np.float32)


def scaled_rate(learning_rate: float, *, batch_size: int, reference_batch_size: int) -> float:
    """The linear scaling rule (arXiv:1706.02677): the rate of another batch size than its own.

    Args:
      learning_rate: the one for batches of `reference_batch_size`.
      batch_size: over all devices.
      reference_batch_size: 0 takes the rate as it is.
    """
    if reference_batch_size < 0:
        raise InputError(
            f"optimizer.reference_batch_size is {reference_batch_size}; expected the batch size "
            "that optimizer.learning_rate is meant for, or 0: it is meant for any"
        )
    if not reference_batch_size:
        return learning_rate
    return learning_rate * batch_size / reference_batch_size


def make_optimizer(
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    weight_decay_kind: str = "decoupled",
    max_gradient_norm: float = 0.0,
    groups: Groups = (),
    bias_rate: float = 1.0,
) -> optax.GradientTransformation:
    """Adam (Section 4.1), with weight decay and clipping by the global norm if asked.

    Biases and normalisation scales, which have one dimension, are not decayed.

    Args:
      schedule: of the learning rate.
      weight_decay: its strength.
      weight_decay_kind: "decoupled", or "l2": added to the gradient before Adam looks at it.
      max_gradient_norm: gradients are clipped to it; 0 does not clip.
      groups, bias_rate: factors of the learning rate, see `rate_factors`.
    """
    _one_of("weight_decay_kind", weight_decay_kind, WEIGHT_DECAYS)
    decay = optax.add_decayed_weights(
        weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
    parts = [optax.scale_by_adam(), decay]
    if weight_decay_kind == "l2":
        parts.reverse()
    if groups or bias_rate != 1.0:
        parts.append(_scale_by_group(groups, bias_rate))
    adam = optax.chain(*parts, optax.scale_by_learning_rate(schedule))
    if max_gradient_norm > 0:
        return optax.chain(optax.clip_by_global_norm(max_gradient_norm), adam)
    return adam


def rate_factors(params: PyTree, *, groups: Groups = (), bias_rate: float = 1.0) -> PyTree:
    """The factor of the learning rate that each parameter, an array or its shape, has.

    Args:
      params: the detector's.
      groups: (pattern, factor) pairs; of the patterns that match a parameter's path, such as
        "heads_0/classifier/kernel", the first counts. `*` stands for anything. Without groups all
        factors are 1.
      bias_rate: another factor, for biases.

    Raises:
      InputError: a parameter is in no group, or a group is empty.
    """
    unused = {pattern for pattern, _ in groups}

    def factor_of(keys: tuple, leaf: Any) -> float:
        del leaf
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        pattern, factor = _group_of(path, groups)
        unused.discard(pattern)
        return factor * (bias_rate if path.split("/")[-1] == "bias" else 1.0)

    factors = jax.tree_util.tree_map_with_path(factor_of, params)
    if unused:
        raise InputError(
            f"optimizer.groups: {', '.join(map(repr, sorted(unused)))} is for no parameter that an "
            "earlier group leaves; expected patterns of paths such as 'heads_*/classifier/kernel' "
            "(a run lists all in parameters.txt)"
        )
    return factors


def describe_groups(params: PyTree, *, groups: Groups, learning_rate: float) -> Iterator[str]:
    """A line for each group: its pattern, its rate, and how many numbers it trains."""
    if not groups:
        return
    sizes = dict.fromkeys((pattern for pattern, _ in groups), 0)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        sizes[_group_of(path, groups)[0]] += leaf.size
    width = max(map(len, sizes))
    for pattern, factor in groups:
        yield f"{pattern:<{width}}  rate {factor * learning_rate:<10.4g} {sizes[pattern]:>12,}"


def group_factors(
    params: PyTree, *, groups: Groups = (), bias_rate: float = 1.0
) -> dict[str, float]:
    """Group -> factor of the learning rate; biases are groups of their own if theirs is another.

    Empty where all parameters have the same rate.
    """
    factors = {}
    for keys, _ in jax.tree_util.tree_leaves_with_path(params):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        pattern, factor = _group_of(path, groups)
        if bias_rate != 1.0 and path.split("/")[-1] == "bias":
            factors[f"{pattern} biases".lstrip()] = factor * bias_rate
        else:
            factors[pattern or "weights"] = factor
    return factors if groups or bias_rate != 1.0 else {}


def _group_of(path: str, groups: Groups) -> tuple[str, float]:
    if not groups:
        return "", 1.0
    for pattern, factor in groups:
        if fnmatch.fnmatchcase(path, pattern):
            return pattern, factor
    raise InputError(
        f"optimizer.groups: {path!r} is in none of them; expected a pattern for every parameter, "
        "such as a last one '*'"
    )


def _scale_by_group(groups: Groups, bias_rate: float) -> optax.GradientTransformation:
    """Multiplies each update by its parameter's factor."""

    def init(params: PyTree) -> optax.EmptyState:
        rate_factors(params, groups=groups, bias_rate=bias_rate)  # wrong groups come to light
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: PyTree = None
    ) -> tuple[PyTree, optax.EmptyState]:
        del params
        factors = rate_factors(updates, groups=groups, bias_rate=bias_rate)
        return jax.tree.map(lambda factor, leaf: factor * leaf, factors, updates), state

    return optax.GradientTransformation(init, update)


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"optimizer.{key} {value!r}: expected one of {', '.join(allowed)}")
