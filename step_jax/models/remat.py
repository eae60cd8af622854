"""Rematerialisation: activations that the backward pass computes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

# Of what: of nothing, the backbone with the scene context, RoI features and heads, of both.
REMATS = ("none", "backbone", "heads", "all")


def of_backbone(remat: str) -> bool:
    return remat in ("backbone", "all")


def of_heads(remat: str) -> bool:
    return remat in ("heads", "all")


def run_stages(
    module: nn.Module,
    stages: Sequence[Callable[[nn.Module, jax.Array], jax.Array]],
    x: jax.Array,
    *,
    remat: bool,
) -> jax.Array:
    """`stages`, one after the other, on x; with `remat` what lies between them alone is kept.

    Each stage is `(module, x) -> x` and may make submodules; their paths do not depend on `remat`.
    """
    for stage in stages:
        x = recomputed(stage, remat=remat)(module, x)
    return x


def recomputed(function: Callable[..., Any], *, remat: bool) -> Callable[..., Any]:
    """`function(module, *arrays)`, of which only the arguments are kept if `remat`."""
    return nn.remat(function) if remat else function
