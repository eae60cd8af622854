"""3-D maximum pooling, in the formulation that suits the platform."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from step_jax.models import platform

Array = jax.Array
Sizes = tuple[int, int, int]


def max_pool3d(x: Array, *, window: Sizes, strides: Sizes) -> Array:
    """The largest value of every window of `x [N, T, H, W, C]` -> `[N, T', H', W', C]`.

    The released model's windows: along an axis of length n there are ceil(n / stride), the i-th one
    starting at i * stride - max(window - stride, 0) // 2. The released model pads with zeros; here
    what lies outside never wins. For x >= 0, all that this model pools, both give the same values;
    their gradients differ only where x is 0, and the ReLU before lets none through there.

    The gradient goes to the first largest value of a window in reading order, as in PyTorch.
    """
    if not platform.is_cpu():
        return _reduce_window(x, window, strides)
    # One axis after the other, the last one first: of equal values that leaves the gradient to the
    # first in reading order. XLA:CPU runs neither reduce_window nor its backward pass in parallel.
    for axis in (3, 2, 1):
        if (window[axis - 1], strides[axis - 1]) != (1, 1):
            x = _max_along(x, axis, window[axis - 1], strides[axis - 1])
    return x


def _margins(size: int, window: int, stride: int) -> tuple[int, int]:
    """Positions that the windows reach before and after an axis of this size."""
    before = max(window - stride, 0) // 2
    last = (-(-size // stride) - 1) * stride - before
    return before, max(last + window - size, 0)


def _reduce_window(x: Array, window: Sizes, strides: Sizes) -> Array:
    margins = [_margins(*axis) for axis in zip(x.shape[1:4], window, strides, strict=True)]
    padding = ((0, 0), *margins, (0, 0))
    lowest = jnp.array(-jnp.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, *window, 1), (1, *strides, 1), padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_along(x: Array, axis: int, window: int, stride: int) -> Array:
    return functools.reduce(jnp.maximum, _shifts(x, axis, window, stride))


def _shifts(x: Array, axis: int, window: int, stride: int) -> list[Array]:
    """For each place in the window, the values that all windows see there."""
    size = x.shape[axis]
    outputs = -(-size // stride)
    padding = [(0, 0)] * x.ndim
    padding[axis] = _margins(size, window, stride)
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    span = (outputs - 1) * stride + 1
    return [jax.lax.slice_in_dim(x, k, k + span, stride, axis) for k in range(window)]


def _max_along_forward(x: Array, axis: int, window: int, stride: int) -> tuple[Array, Array]:
    return _max_along(x, axis, window, stride), x


def _max_along_backward(axis: int, window: int, stride: int, x: Array, gradient: Array):
    """Adds each window's gradient to the first value that equals its maximum."""
    shifts, pull_back = jax.vjp(lambda x: _shifts(x, axis, window, stride), x)
    largest = functools.reduce(jnp.maximum, shifts)
    is_free = jnp.ones(gradient.shape, bool)
    shares = []
    for shift in shifts:
        is_first = is_free & (shift == largest)
        is_free &= ~is_first
        shares.append(jnp.where(is_first, gradient, 0))
    return pull_back(shares)


_max_along.defvjp(_max_along_forward, _max_along_backward)
