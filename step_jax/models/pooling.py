"""3-D maximum pooling, in the formulation that suits the platform."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

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
            x = _max_along(x, axis, x.shape[axis], window[axis - 1], strides[axis - 1])
    return x


def _margins(size: int, window: int, stride: int) -> tuple[int, int]:
    """Positions that the windows reach before and after an axis of this size."""
    before = max(window - stride, 0) // 2
    last = (-(-size // stride) - 1) * stride - before
    return before, max(last + window - size, 0)


def _reduce_window(x: Array, window: Sizes, strides: Sizes) -> Array:
    margins = [_margins(*axis) for axis in zip(x.shape[1:4], window, strides, strict=True)]
    padding = ((0, 0), *margins, (0, 0))
    # Not a jax array: under jit, JAX would not know it for the maximum's identity, and there would
    # be no gradient.
    lowest = np.array(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, *window, 1), (1, *strides, 1), padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_along(x: Array, axis: int, size: int, window: int, stride: int) -> Array:
    return functools.reduce(jnp.maximum, _shifts(x, axis, window, stride))


def _shifts(x: Array, axis: int, window: int, stride: int) -> list[Array]:
    """For each place in the window, the values that all windows see there."""
    size = x.shape[axis]
    outputs = -(-size // stride)
    x = _pad_along(x, axis, _margins(size, window, stride), -jnp.inf)
    span = (outputs - 1) * stride + 1
    return [jax.lax.slice_in_dim(x, k, k + span, stride, axis) for k in range(window)]


def _pad_along(x: Array, axis: int, margins: tuple[int, int], value: float) -> Array:
    padding = [(0, 0)] * x.ndim
    padding[axis] = margins
    return jnp.pad(x, padding, constant_values=value)


def _max_along_forward(x: Array, axis: int, size: int, window: int, stride: int):
    """Also each window's first place of its maximum: a byte, where the input would take four."""
    largest, *others = _shifts(x, axis, window, stride)
    place = jnp.zeros(largest.shape, jnp.int8)
    for k, shift in enumerate(others, 1):
        place = jnp.where(shift > largest, jnp.int8(k), place)
        largest = jnp.maximum(largest, shift)
    return largest, place


def _max_along_backward(
    axis: int, size: int, window: int, stride: int, place: Array, gradient: Array
) -> tuple[Array]:
    """Every input's sum over the windows whose first maximum it is.

    Window i has input i * stride - before + k at place k, so input j * stride + phase is at place k
    of window j + (phase + before - k) / stride, if that is whole.
    """
    before, _ = _margins(size, window, stride)
    outputs = place.shape[axis]
    reach = max((window - 1 - before) // stride, 0), (stride - 1 + before) // stride
    place = _pad_along(place, axis, reach, window)  # a place that is in no window
    gradient = _pad_along(gradient, axis, reach, 0)
    phases = []
    for phase in range(stride):
        total = jnp.zeros((), gradient.dtype)
        for k in range(window):
            shift, rest = divmod(phase + before - k, stride)
            if rest == 0:
                windows = slice(reach[0] + shift, reach[0] + shift + outputs)
                seen = (*[slice(None)] * axis, windows)
                total += jnp.where(place[seen] == k, gradient[seen], 0)
        phases.append(total)
    shape = (*gradient.shape[:axis], outputs, *gradient.shape[axis + 1 :])
    phases = [jnp.broadcast_to(phase, shape) for phase in phases]
    # Unfused XLA copies whole runs of memory; fused it looks at every number's index.
    out = jnp.stack(jax.lax.optimization_barrier(phases), axis + 1)
    out = out.reshape(*shape[:axis], outputs * stride, *shape[axis + 1 :])
    return (jax.lax.slice_in_dim(out, 0, size, axis=axis),)


_max_along.defvjp(_max_along_forward, _max_along_backward)
