"""Everything that training changes, as one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from step_jax.models.step import StepDetector

PyTree = Any


class TrainState(flax.struct.PyTreeNode):
    """Parameters and what goes with them.

    Attributes:
      step: int32, updates made so far; all randomness is folded from it.
      params: the detector's parameters.
      model_state: its other variables (frozen statistics, say); {} where there are none.
      opt_state: the optimizer's.
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree

    @property
    def variables(self) -> PyTree:
        """What `StepDetector.apply` takes."""
        return {"params": self.params, **self.model_state}


def init_variables(
    detector: StepDetector, *, image_size: int, num_proposals: int, key: jax.Array
) -> PyTree:
    """Initialises the detector's variables, in one compilation."""
    plan = detector.plan
    frames = plan.longest * detector.backbone.temporal_stride
    clips = jnp.zeros((1, frames, image_size, image_size, detector.backbone.channels))
    whole = jnp.array([0.0, 0.0, image_size, image_size])
    tubes = jnp.broadcast_to(whole, (num_proposals, plan.chunk, 4))
    return jax.jit(detector.init)(key, clips, tubes)


def create_train_state(variables: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0 from initialised (or converted) variables."""
    model_state = {name: value for name, value in variables.items() if name != "params"}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        model_state=model_state,
        opt_state=optimizer.init(variables["params"]),
    )
