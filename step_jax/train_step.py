"""One training step: the gradient of the loss of all steps, and the optimizer's update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from step_jax import parallel
from step_jax.accumulation import accumulated_gradient
from step_jax.detector_loss import total_loss
from step_jax.loss_options import LossOptions, check_options
from step_jax.models.step import StepDetector
from step_jax.source_clips import with_clips
from step_jax.train_state import TrainState

Array = jax.Array
PyTree = Any


def make_train_step(
    detector: StepDetector,
    optimizer: optax.GradientTransformation,
    *,
    proposals: Array,
    options: LossOptions,
    accumulate: int = 1,
) -> Callable[[TrainState, PyTree, Array], tuple[TrainState, PyTree]]:
    """`(state, batch, key) -> (state, metrics)`, to be wrapped by `parallel.data_parallel`.

    Args:
      detector: the model.
      optimizer: of its parameters.
      proposals: `[M, K, 4]`, initial tubes in input pixels.
      options: sampling and losses.
      accumulate: parts of a device's share of the batch that are gone through one by one, for
        memory, with the same result; see `accumulation`.

    `batch` is what `input_pipeline.pipeline.train_batches` makes. Two keys may be absent:
      example_mask: bool [B]; an example with False has no say in losses and counts.
      number: int32 [B], the step that the batch is for, counted from 1, the same for all.

    A step whose loss or gradient is not finite leaves the state as it is, its `step` too. Because
    the host learns of it one step late, so does any step that is not the state's next one by its
    `number`: the state from before the bad step is still there.

    Metrics are (sum, count) pairs over the global batch, except `gradient_norm`. `skipped`, which
    comes with `example_mask`, is told by its sum.
    """
    check_options(options, num_steps=detector.plan.num_steps)

    def train_step(state: TrainState, batch: PyTree, key: Array) -> tuple[TrainState, PyTree]:
        key = jax.random.fold_in(key, state.step)
        gradients, metrics, updated = share_of_gradients(
            state, detector, proposals, batch, key, options=options, parts=accumulate
        )
        gradients = parallel.sum_over_devices(gradients)
        metrics = parallel.sum_over_devices(metrics | skipped_examples(batch))
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        after = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=state.model_state | updated,
            opt_state=opt_state,
        )
        accepted = is_accepted(metrics, after.step, batch.get("number"))
        state = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), after, state)
        return state, metrics

    return train_step


def share_of_gradients(
    state: TrainState,
    detector: StepDetector,
    proposals: Array,
    batch: PyTree,
    key: Array,
    *,
    options: LossOptions,
    parts: int = 1,
) -> tuple[PyTree, dict[str, Any], PyTree]:
    """This device's share of the gradient and of the metrics; collections that training updates."""
    given = (state.params, state.model_state, detector, proposals, with_clips(batch), key)
    if parts > 1:
        gradients, metrics = accumulated_gradient(*given, options=options, parts=parts)
        return gradients, metrics, {}
    gradients, (metrics, updated) = jax.grad(total_loss, has_aux=True)(*given, options=options)
    return gradients, metrics, updated


def skipped_examples(batch: PyTree) -> dict[str, tuple[Array, Array]]:
    """How many of this device's examples have no say, if the batch tells."""
    if "example_mask" not in batch:
        return {}
    left_out = ~batch["example_mask"]
    return {"skipped": (left_out.sum(dtype=jnp.float32), jnp.float32(left_out.size))}


def is_accepted(metrics: dict[str, Any], next_step: Array, number: Array | None) -> Array:
    """Whether an update counts: it is finite, and the one that the batch of that number is for.

    Args:
      metrics: `loss` and `gradient_norm` of the global batch.
      next_step: the state's step after the update.
      number: `[B]`, see `make_train_step`; None where nobody counts.
    """
    finite = jnp.isfinite(metrics["loss"][0]) & jnp.isfinite(metrics["gradient_norm"])
    return finite if number is None else finite & (number[0] == next_step)
