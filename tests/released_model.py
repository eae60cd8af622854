"""The released model with the pseudo-random weights of released_weights.py."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import released_weights

from step_jax import proposals
from step_jax.convert.mapping import to_ours
from step_jax.convert.released_keys import Architecture
from step_jax.models.factory import build_detector
from step_jax.models.step import StepDetector
from step_jax.train_state import init_variables
from step_jax.transfer import fill

PROPOSALS = 34
STEPS = released_weights.STEPS
CLASSES = 60

MODEL = {
    "backbone": "i3d",
    "backbone_options": {},
    "head": "residual",
    "head_options": {"keep_regressors": True},
    "clip_frames": 12,
    "extension_plan": (False, False, True),
    "extension": "anticipate",
    "classification": "sigmoid",
    "regression": "agnostic",
    "roi_mode": "align",
    "pool_size": 7,
    "precision": "float32",
}


def detector(*, context: bool, **changes: Any) -> StepDetector:
    return build_detector(num_classes=CLASSES, scene_context=context, **MODEL | changes)


def initial_tubes(side: int) -> np.ndarray:
    return proposals.initial_tubes(PROPOSALS, num_frames=3, height=side, width=side)


@functools.lru_cache(maxsize=1)
def variables(*, context: bool) -> Any:
    """The detector's variables, of the released keys' arrays."""
    arrays = {
        f"{net}/{key}": array
        for net, tensors in released_weights.weights(context=context).items()
        for key, array in tensors.items()
    }
    shapes = jax.eval_shape(
        lambda: init_variables(
            detector(context=context), image_size=64, num_proposals=1, key=jax.random.key(0)
        )
    )
    entries = Architecture(steps=STEPS, context=context).entries()
    return fill(shapes, to_ours(entries, arrays))
