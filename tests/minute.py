"""Detectors and batches as small as they can be: compiling is what these tests cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from step_jax import proposals
from step_jax.models.factory import build_detector
from step_jax.models.step import StepDetector
from step_jax.train_state import init_variables

SIDE = 32  # of the network's input
CHUNK = 2  # K
CLASSES = 3
PROPOSALS = ((1.0, 0.0), (2.0, 0.0))  # the whole image and its quarters: M = 5
MODEL = {
    "num_classes": CLASSES,
    "backbone": "tiny",
    "backbone_options": {"stem_features": 4, "features": 4, "num_blocks": 0},
    "head": "two_branch",
    "head_options": {
        "global_features": (4, 5),
        "global_kernels": ((1, 2, 2), (3, 1, 1)),
        "local_features": (6, 5),
    },
    "clip_frames": CHUNK,
    "extension_plan": (False, True),
    "extension": "anticipate",
    "classification": "softmax",
    "regression": "per_class",
    "roi_mode": "align",
    "pool_size": 2,
    "scene_context": True,
    "precision": "float32",
}


def detector(**changes: Any) -> StepDetector:
    """A detector of `MODEL`, changed."""
    return build_detector(**MODEL | changes)


class PatchMeans(nn.Module):
    """A backbone without parameters: means of 8x8 patches of pairs of frames."""

    channels = 3
    spatial_stride = 8
    temporal_stride = 2

    def __call__(self, clips: jax.Array, *, train: bool = False) -> jax.Array:
        b, t, h, w, c = clips.shape
        return clips.reshape(b, t // 2, 2, h // 8, 8, w // 8, 8, c).mean(axis=(2, 4, 6))


def detector_of_patch_means(**changes: Any) -> StepDetector:
    """A detector of `MODEL`, changed, on `PatchMeans`."""
    return detector(**changes).clone(backbone=PatchMeans())


def initial_tubes() -> np.ndarray:
    return proposals.initial_tubes(PROPOSALS, num_frames=CHUNK, height=SIDE, width=SIDE)


def variable_shapes(detector: StepDetector) -> Any:
    return jax.eval_shape(
        lambda: init_variables(
            detector, image_size=SIDE, num_proposals=len(initial_tubes()), key=jax.random.key(0)
        )
    )


def random_variables(detector: StepDetector, *, seed: int = 0) -> Any:
    """Variables with nothing zero in them, without compiling their initialisation."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32),
        variable_shapes(detector),
    )


def initial_variables(detector: StepDetector, *, seed: int = 0) -> Any:
    """Variables to train from, much like the modules' own, without compiling."""
    rng = np.random.default_rng(seed)

    def initial(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key != "kernel":
            return np.full(leaf.shape, path[-1].key == "scale", np.float32)
        scale = 0.01 if path[-2].key.startswith("box") else np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return rng.normal(scale=scale, size=leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(initial, variable_shapes(detector))


def random_clips(detector: StepDetector, *, batch_size: int, seed: int = 0) -> np.ndarray:
    frames = detector.plan.longest * detector.backbone.temporal_stride
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch_size, frames, SIDE, SIDE, 3), np.uint8)


def random_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Boxes `[*shape, 4]` inside the image, with sides of 6 px and more."""
    low = rng.uniform(0, SIDE - 16, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(6, 16, (*shape, 2))], -1).astype(np.float32)


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Compiles in half the time, to programs that are slow on inputs larger than these."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Yields a list that grows by an entry for each program compiled meanwhile."""
    compiled: list[str] = []

    def on_event(name: str, seconds: float, **details: Any) -> None:
        del seconds, details
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(on_event)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(on_event)
