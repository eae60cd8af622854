"""A detector from plain values, as a configuration or a checkpoint's description holds them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from step_jax.errors import InputError
from step_jax.modality import Modality
from step_jax.models import step
from step_jax.models.heads import SceneContext, TwoBranchHead
from step_jax.models.i3d import I3DBackbone, I3DContext
from step_jax.models.remat import REMATS, of_backbone, of_heads
from step_jax.models.residual_head import ResidualHead
from step_jax.models.step import StepDetector, StepPlan
from step_jax.models.tiny import TinyBackbone
from step_jax.models.vgg import VGG16Backbone

BACKBONES = {"tiny": TinyBackbone, "i3d": I3DBackbone, "vgg16": VGG16Backbone}
HEADS = {"two_branch": TwoBranchHead, "residual": ResidualHead}
# The dtype of the computation, and how products of float32 may be rounded.
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tensorfloat32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "default"),
}


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
    remat: str = "none",
) -> StepDetector:
    """Builds a `StepDetector`; the arguments are the keys of the configuration's `model`.

    Checkpoints may be older than `remat`.

    Raises:
      InputError: a name is unknown, an option does not exist, or the parts do not fit.
    """
    backbone_class = _choose("model.backbone", backbone, BACKBONES)
    head_class = _choose("model.head", head, HEADS)
    dtype, matmul_precision = _choose("model.precision", precision, PRECISIONS)
    _check("model.extension", extension, step.EXTENSIONS)
    _check("model.classification", classification, step.CLASSIFICATIONS)
    _check("model.regression", regression, step.REGRESSIONS)
    _check("model.roi_mode", roi_mode, step.ROI_MODES)
    _check("model.remat", remat, REMATS)
    stride = backbone_class.temporal_stride
    if clip_frames < 1 or clip_frames % stride:
        raise InputError(
            f"model.clip_frames {clip_frames}: expected a positive multiple of the temporal "
            f"stride {stride} of the backbone {backbone!r}"
        )
    if not extension_plan or extension_plan[0]:
        raise InputError(
            f"model.extension_plan {tuple(extension_plan)}: the first step is fed the initial "
            "proposals; expected one flag per step, the first of them false"
        )
    backbone_options = _options("model.backbone_options", backbone_class, backbone_options)
    head_options = _options("model.head_options", head_class, head_options)
    backbone_module = backbone_class(dtype=dtype, remat=of_backbone(remat), **backbone_options)
    make_head = functools.partial(head_class, dtype=dtype, **head_options)
    return StepDetector(
        backbone=backbone_module,
        make_head=make_head,
        plan=StepPlan(clip_frames // stride, tuple(map(bool, extension_plan)), extension),
        num_classes=num_classes,
        classification=classification,
        regression=regression,
        roi_mode=roi_mode,
        pool_size=pool_size,
        scene_context=(
            _context_for(make_head, backbone_module, pool_size) if scene_context else None
        ),
        matmul_precision=matmul_precision,
        remat_heads=of_heads(remat),
    )


def _context_for(
    make_head: functools.partial, backbone: nn.Module, pool_size: int
) -> I3DContext | SceneContext:
    """What the head understands: I3D's own layers, a vector a frame, or maps of a RoI's size."""
    if make_head.func is ResidualHead and make_head.keywords.get("trunk", "mixed") == "mixed":
        return I3DContext(getattr(backbone, "norm", "frozen"), backbone.dtype, backbone.remat)
    return SceneContext(pool_size)


def input_frames(detector: StepDetector) -> int:
    """T_in, the frames that the network reads around a target clip."""
    return detector.plan.longest * detector.backbone.temporal_stride


def check_modality(detector: StepDetector, modality: Modality) -> None:
    """Raises InputError if the backbone reads other channels than the clips have."""
    backbone = detector.backbone
    rgb = getattr(backbone, "rgb", modality.has_rgb)  # I3D treats all alike
    modality.check_channels(backbone.channels, rgb=rgb)


def _choose(key: str, name: str, options: Mapping[str, Any]) -> Any:
    _check(key, name, options)
    return options[name]


def _check(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InputError(f"{key} {value!r}: expected one of {', '.join(allowed)}")


def _options(key: str, module: type[nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `module`; lists (as JSON gives them) become tuples."""
    for name in options:
        _check(key, name, _option_names(module))
    return {name: _frozen(value) for name, value in options.items()}


def _option_names(module: type[nn.Module]) -> list[str]:
    """Attributes that a configuration may set: those with a default that are not flax's."""
    fixed = {"parent", "name", "dtype", "remat"}
    return [
        field.name
        for field in dataclasses.fields(module)
        if field.name not in fixed and field.default is not dataclasses.MISSING
    ]


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
