"""Gradient accumulation: a batch in parts, of which only one is in memory at a time.

The losses are means over what the global batch sampled, so that a part's gradient depends on all
parts. They are gone through twice: first without gradient, for what is sampled of them and how much
that is; then, with these counts, for their gradients, which add up to those of the whole batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from step_jax import parallel
from step_jax.detector_loss import (
    Terms,
    choose_all,
    loss_targets,
    normalise_clips,
    share_of_loss,
    step_terms,
    training_features,
    weighted_loss,
)
from step_jax.errors import InputError
from step_jax.loss_options import LossOptions
from step_jax.models.step import Features, StepDetector
from step_jax.step_samples import Chosen

Array = jax.Array
PyTree = Any


def check_accumulation(parts: int, variables: PyTree) -> None:
    """Raises InputError unless gradients of `parts` parts add up to those of the whole batch."""
    if parts < 1:
        raise InputError(f"train.accumulate is {parts}; expected 1 or more")
    if parts > 1 and "batch_stats" in variables:
        raise InputError(
            f"train.accumulate is {parts}, but the backbone normalises by the statistics of the "
            "whole batch, of which only a part is there at a time; expected 1, or "
            "model.backbone_options.norm 'frozen' or 'affine'"
        )


def accumulated_gradient(
    params: PyTree,
    model_state: PyTree,
    detector: StepDetector,
    proposals: Array,
    batch: PyTree,
    key: Array,
    *,
    options: LossOptions,
    parts: int,
) -> tuple[PyTree, Terms]:
    """The gradient of `detector_loss.total_loss`, and its metrics, by `parts` parts of `batch`.

    To be called inside a function that `parallel.data_parallel` wraps. It takes a forward pass more
    than the gradient of the whole batch, and memory for the activations of a part.
    """
    index = parallel.example_index(len(batch["clips"]))
    batch, index = jax.tree.map(lambda leaf: _in_parts(leaf, parts), (batch, index))
    run = _Parts(detector, model_state, options)

    def look(part: tuple[PyTree, Array]) -> tuple[list[Chosen], Terms, dict[str, Array]]:
        examples, index = part
        variables, features = run.features(params, examples)
        chosen, seen = choose_all(
            detector, variables, features, proposals, examples, key, index, options=options
        )
        # Counts depend on the samples alone: XLA leaves the heads and their losses out.
        terms = run.terms(variables, features, examples, chosen)
        return chosen, seen, {name: count for name, (_, count) in terms.items()}

    chosen, seen, counts = jax.lax.map(look, (batch, index))
    counts = parallel.sum_over_devices(_over_parts(counts))

    def loss(params: PyTree, examples: PyTree, chosen: list[Chosen]) -> tuple[Array, Any]:
        terms = run.terms(*run.features(params, examples), examples, chosen)
        total = weighted_loss(terms, counts, options)
        return total, (terms, total)

    def add(gradient: PyTree, part: tuple[PyTree, list[Chosen]]) -> tuple[PyTree, Any]:
        of_part, told = jax.grad(loss, has_aux=True)(params, *part)
        return jax.tree.map(jnp.add, gradient, of_part), told

    zeros = jax.tree.map(jnp.zeros_like, params)
    gradient, (terms, totals) = jax.lax.scan(add, zeros, (batch, chosen))
    return gradient, _over_parts(seen | terms) | {"loss": share_of_loss(totals.sum())}


class _Parts(NamedTuple):
    """What both passes do with a part."""

    detector: StepDetector
    model_state: PyTree
    options: LossOptions

    def features(self, params: PyTree, examples: PyTree) -> tuple[PyTree, Features]:
        variables = {"params": params, **self.model_state}
        clips = normalise_clips(examples["clips"])
        return variables, training_features(self.detector, variables, clips)[0]

    def terms(
        self, variables: PyTree, features: Features, examples: PyTree, chosen: list[Chosen]
    ) -> Terms:
        targets = loss_targets(self.detector, examples, self.options)
        return step_terms(self.detector, variables, features, chosen, targets, options=self.options)


def _in_parts(leaf: Array, parts: int) -> Array:
    """`[B, ...]` -> `[parts, B / parts, ...]`."""
    return leaf.reshape(parts, -1, *leaf.shape[1:])


def _over_parts(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.sum(axis=0), tree)
