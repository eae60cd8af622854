"""Learning-rate schedules and the optimizer."""

from __future__ import annotations

import jax
import optax

from step_jax.errors import InputError

SCHEDULES = ("constant", "cosine", "step_decay")


def make_schedule(
    *,
    kind: str,
    learning_rate: float,
    total_steps: int,
    warmup_steps: int = 0,
    decay_steps: tuple[int, ...] = (),
    decay_factor: float = 0.1,
) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
      kind: "constant", "cosine" (to 0 at `total_steps`) or "step_decay" (Section 4.1).
      learning_rate: the highest rate.
      total_steps: of training.
      warmup_steps: of linear increase from 0, before any of the three.
      decay_steps: where "step_decay" multiplies by `decay_factor`.
      decay_factor: see there.
    """
    if kind not in SCHEDULES:
        raise InputError(f"optimizer.schedule {kind!r}: expected one of {', '.join(SCHEDULES)}")
    if kind == "step_decay":
        # After the warm-up, join_schedules counts from its end.
        starts = [max(step - warmup_steps, 0) for step in decay_steps]
        boundaries = {start: decay_factor ** starts.count(start) for start in starts}
        after = optax.piecewise_constant_schedule(learning_rate, boundaries)
    elif kind == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, max(total_steps - warmup_steps, 1))
    else:
        after = optax.constant_schedule(learning_rate)
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
    schedule: optax.Schedule, *, weight_decay: float = 0.0, max_gradient_norm: float = 0.0
) -> optax.GradientTransformation:
    """Adam (Section 4.1), with decoupled weight decay and clipping by the global norm if asked.

    Biases and normalisation scales, which have one dimension, are not decayed.
    """
    adam = optax.adamw(
        schedule,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    if max_gradient_norm > 0:
        return optax.chain(optax.clip_by_global_norm(max_gradient_norm), adam)
    return adam
