"""A detector from plain values, as a configuration or a checkpoint's description holds them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from step_jax.errors import InputError
from step_jax.models.heads import SceneContext, TwoBranchHead
from step_jax.models.step import StepDetector, StepPlan
from step_jax.models.tiny import TinyBackbone

BACKBONES = {"tiny": TinyBackbone}
HEADS = {"two_branch": TwoBranchHead}
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_detector(
    *,
    num_classes: int,
    backbone: str,
    backbone_options: Mapping[str, Any],
    head: str,
    head_options: Mapping[str, Any],
    clip_frames: int,
    extension_plan: tuple[bool, ...],
    extension: str,
    classification: str,
    regression: str,
    roi_mode: str,
    pool_size: int,
    scene_context: bool,
    precision: str,
) -> StepDetector:
    """Builds a `StepDetector`; the arguments are the keys of the configuration's `model`.

    Raises:
      InputError: a name is unknown, an option does not exist, or the parts do not fit.
    """
    backbone_class = _choose("model.backbone", backbone, BACKBONES)
    head_class = _choose("model.head", head, HEADS)
    dtype = _choose("model.precision", precision, PRECISIONS)
    stride = backbone_class.temporal_stride
    if clip_frames < 1 or clip_frames % stride:
        raise InputError(
            f"model.clip_frames {clip_frames}: expected a positive multiple of the temporal "
            f"stride {stride} of the backbone {backbone!r}"
        )
    try:
        return StepDetector(
            backbone=backbone_class(dtype=dtype, **_options(backbone_options)),
            make_head=functools.partial(head_class, dtype=dtype, **_options(head_options)),
            plan=StepPlan(clip_frames // stride, tuple(map(bool, extension_plan)), extension),
            num_classes=num_classes,
            classification=classification,
            regression=regression,
            roi_mode=roi_mode,
            pool_size=pool_size,
            scene_context=SceneContext(pool_size) if scene_context else None,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration, model: {error}") from error


def input_frames(detector: StepDetector) -> int:
    """T_in, the frames that the network reads around a target clip."""
    return detector.plan.longest * detector.backbone.temporal_stride


def _choose(key: str, name: str, options: Mapping[str, Any]) -> Any:
    if name not in options:
        raise InputError(f"{key} {name!r}: expected one of {', '.join(options)}")
    return options[name]


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Lists (as JSON gives them) become tuples, so that modules stay hashable."""
    return {key: _frozen(value) for key, value in options.items()}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
