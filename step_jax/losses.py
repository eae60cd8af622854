"""The losses of Eqs. 2 and 3, each as (sum, count), so that they add up over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def softmax_loss(logits: Array, labels: Array, weight: Array) -> tuple[Array, Array]:
    """Cross-entropy against class indices: `[..., C + 1]`, `[...]`, `[...]` -> (sum, samples)."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (loss * weight).sum(), weight.sum()


def sigmoid_loss(logits: Array, labels: Array, weight: Array) -> tuple[Array, Array]:
    """Binary cross-entropy: `[..., C]`, multi-hot `[..., C]`, `[...]` -> (sum, samples * C)."""
    loss = optax.sigmoid_binary_cross_entropy(logits, labels).sum(axis=-1)
    return (loss * weight).sum(), weight.sum() * logits.shape[-1]


def box_loss(deltas: Array, targets: Array, weight: Array) -> tuple[Array, Array]:
    """Smooth-L1 (beta 1) of deltas: `[..., 4]`, `[..., 4]`, `[...]` -> (sum, 4 * boxes)."""
    # Where the weight is 0 the target may be anything, also not finite; 0 * inf is not 0.
    difference = jnp.where(weight[..., None] > 0, deltas - targets, 0.0)
    loss = optax.huber_loss(difference, delta=1.0).sum(axis=-1)
    return (loss * weight).sum(), 4 * weight.sum()
