"""Convolutions with 3x3 or 4x4 taps in space by Winograd's minimal filtering, for the CPU.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016): tiles of 6x6 inputs are
transformed, multiplied by the transformed kernel, place by place, and transformed back to m x m
outputs. That takes 36 products per tile and pair of channels instead of 9 or 16 times m * m, four
times fewer for 3x3 taps. Each of the 36 places is one matrix product over tiles and channels, with
the taps over time side by side in the channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

_TAPS = (3, 4)  # over rows and columns
_TILE = 6  # inputs of a tile along an axis, whatever the taps

# Where the polynomials are evaluated, beside infinity. With these the largest error in float32 is
# 3e-6 of the output's largest value, with the usual 0, 1, -1, 2, -2 it is 1e-5.
_POINTS = np.array([0, 5 / 8, -5 / 8, 5 / 4, -5 / 4])

# Of a chunk's transformed inputs and outputs, or one row of tiles over all frames if that is more.
# At I3D's layers, 2 cores, 6 to 48 MiB take the same time, 96 MiB a tenth longer.
_CHUNK_BYTES = 24 * 2**20

# Of the tiles' outputs, what must be of use. Of maps of 5x5 it is .39, and gathered patches take
# three quarters of the time; of 4x4 it is 1 and of 7x7 .77, and they take twice as long or more.
_LEAST_FILL = 0.5


class _Transforms(NamedTuple):
    """Matrices for flattened tiles: of 6x6 inputs, of k x k taps, and back to m x m outputs."""

    inputs: np.ndarray  # [36, 36]
    taps: np.ndarray  # [36, k * k]
    outputs: np.ndarray  # [m * m, 36]


@functools.cache
def _transforms(size: int) -> _Transforms:
    """Toom-Cook's evaluation and interpolation along both axes, transposed into a filter."""
    others = [np.delete(_POINTS, i) for i in range(len(_POINTS))]
    inputs = np.zeros((_TILE, _TILE))
    for row, roots in enumerate([*others, _POINTS]):
        inputs[row, : len(roots) + 1] = np.poly(roots)[::-1]
    scale = np.array([np.prod(p - roots) for p, roots in zip(_POINTS, others, strict=True)])
    taps = _powers(size)
    taps[:-1] /= scale[:, None]
    outputs = _powers(_TILE + 1 - size).T
    return _Transforms(*(np.kron(m, m).astype(np.float32) for m in (inputs, taps, outputs)))


def _powers(count: int) -> np.ndarray:
    """1, p, p^2, ... of every point and, last, of infinity: `[6, count]`."""
    finite = np.vander(_POINTS, count, increasing=True)
    return np.concatenate([finite, np.eye(count)[-1:]])


class _Plan(NamedTuple):
    """How a convolution is cut: tiles of a map, and samples and rows of tiles of a chunk."""

    step: int  # outputs of a tile along an axis
    rows: int
    columns: int
    samples: int
    chunk_rows: int
    chunks: tuple[int, int]  # over samples and rows

    @property
    def extent(self) -> tuple[int, int]:
        """Outputs over rows and columns of all the tiles."""
        return self.rows * self.step, self.columns * self.step


def _plan(batch: int, outputs: Sequence[int], kernel_shape: Sequence[int]) -> _Plan:
    taps, size, _, channels, features = kernel_shape
    step = _TILE + 1 - size
    rows, columns = -(-outputs[1] // step), -(-outputs[2] // step)
    row_bytes = 4 * _TILE**2 * outputs[0] * columns * (taps * channels + features)
    affordable = max(_CHUNK_BYTES // row_bytes, 1)
    samples = min(max(affordable // rows, 1), batch)
    sizes = range(1, min(affordable, rows) + 1)
    chunk_rows = max(size for size in sizes if rows % size == 0)
    chunks = -(-batch // samples), rows // chunk_rows
    # Chunks of about equal size: the last one of the samples repeats what it lacks.
    return _Plan(step, rows, columns, -(-batch // chunks[0]), chunk_rows, chunks)


def suits(x: Array, kernel: Array, padding: Padding) -> bool:
    """Whether this is the way to convolve: square taps of 3 or 4, and tiles that the map fills."""
    size = kernel.shape[1]
    if size not in _TAPS or kernel.shape[2] != size:
        return False
    outputs = _output_sizes(x, kernel, padding)
    plan = _plan(len(x), outputs, kernel.shape)
    return outputs[1] * outputs[2] >= _LEAST_FILL * math.prod(plan.extent)


def _output_sizes(x: Array, kernel: Array, padding: Padding) -> list[int]:
    axes = zip(x.shape[1:4], padding, kernel.shape[:3], strict=True)
    return [have + before + after - k + 1 for have, (before, after), k in axes]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3d(x: Array, kernel: Array, padding: Padding) -> Array:
    """`x [N, T, H, W, C]` with `kernel [kt, k, k, C, D]`, k of 3 or 4 -> `[N, T', H', W', D]`."""
    return _convolve(x, kernel, padding)


def _conv3d_forward(x: Array, kernel: Array, padding: Padding):
    return _convolve(x, kernel, padding), (x, kernel)


def _conv3d_backward(padding: Padding, inputs: tuple[Array, Array], gradient: Array):
    x, kernel = inputs
    flipped = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    margins = tuple(
        (k - 1 - before, k - 1 - after)
        for k, (before, after) in zip(kernel.shape[:3], padding, strict=True)
    )
    return _convolve(gradient, flipped, margins), _kernel_gradient(x, gradient, kernel, padding)


conv3d.defvjp(_conv3d_forward, _conv3d_backward)


def _convolve(x: Array, kernel: Array, padding: Padding) -> Array:
    taps, size, features = kernel.shape[0], kernel.shape[1], kernel.shape[-1]
    outputs = _output_sizes(x, kernel, padding)
    plan = _plan(len(x), outputs, kernel.shape)
    dtype, x = x.dtype, _pad_to_tiles(x, padding, outputs, plan, margin=plan.step)
    filters = _transform_kernel(kernel.astype(jnp.float32))

    def add_chunk(out: Array, sample: Array, row: Array, is_new: Array) -> Array:
        del is_new  # what is computed twice is written twice
        inputs = _transform_inputs(_cut(x, plan, sample, row, margin=plan.step), taps, size)
        products = jnp.einsum(
            "pkc,pcd->pkd", inputs.reshape(_TILE**2, -1, len(filters[0])), filters
        )
        products = products.reshape(*inputs.shape[:-1], features)
        rows = _transform_back(products, size)
        return jax.lax.dynamic_update_slice(out, rows, (sample, 0, row, 0, 0, 0, 0))

    tiles = (plan.rows, plan.step, plan.columns, plan.step)
    out = jnp.zeros((len(x), outputs[0], *tiles, features), jnp.float32)
    out = _over_chunks(add_chunk, out, plan, len(x))
    out = out.reshape(len(x), outputs[0], *plan.extent, features)
    return out[:, :, : outputs[1], : outputs[2]].astype(dtype)


def _kernel_gradient(x: Array, gradient: Array, kernel: Array, padding: Padding) -> Array:
    taps, size, _, channels, features = kernel.shape
    outputs = gradient.shape[1:4]
    plan = _plan(len(x), outputs, kernel.shape)
    x = _pad_to_tiles(x, padding, outputs, plan, margin=plan.step)
    gradient = _pad_to_tiles(gradient, ((0, 0),) * 3, outputs, plan, margin=0)

    def add_chunk(total: Array, sample: Array, row: Array, is_new: Array) -> Array:
        inputs = _transform_inputs(_cut(x, plan, sample, row, margin=plan.step), taps, size)
        share = jnp.where(is_new, _cut(gradient, plan, sample, row, margin=0), 0)
        share = _transform_gradient(share, size).reshape(_TILE**2, -1, features)
        inputs = inputs.reshape(_TILE**2, -1, taps * channels)
        return total + jnp.einsum("pkc,pkd->pcd", inputs, share)

    total = jnp.zeros((_TILE**2, taps * channels, features))
    total = _over_chunks(add_chunk, total, plan, len(x))
    back = _matmul(_transforms(size).taps.T, total.reshape(_TILE**2, -1))
    back = back.reshape(size, size, taps, channels, features)
    return back.transpose(2, 0, 1, 3, 4).astype(kernel.dtype)


def _pad_to_tiles(
    x: Array, padding: Padding, outputs: Sequence[int], plan: _Plan, *, margin: int
) -> Array:
    """Zeros around `x`, so that every chunk of tiles with its margin after it lies inside."""
    ends = [x.shape[1] + sum(padding[0]), *(extent + margin for extent in plan.extent)]
    sides = [
        (before, end - size - before, 0)
        for (before, _), end, size in zip(padding, ends, x.shape[1:4], strict=True)
    ]
    x = x.astype(jnp.float32)
    return jax.lax.pad(x, jnp.float32(0), ((0, 0, 0), *sides, (0, 0, 0)))


def _over_chunks(body: Callable, start: Array, plan: _Plan, batch: int) -> Array:
    """Folds `body(carry, first sample, first row of tiles, which samples are new)`."""

    def step(index: Array, carry: Array) -> Array:
        new = (index // plan.chunks[1]) * plan.samples
        sample = jnp.minimum(new, batch - plan.samples)
        is_new = sample + jnp.arange(plan.samples) >= new
        row = (index % plan.chunks[1]) * plan.chunk_rows
        return body(carry, sample, row, is_new.reshape(-1, 1, 1, 1, 1))

    return jax.lax.fori_loop(0, plan.chunks[0] * plan.chunks[1], step, start)


def _cut(x: Array, plan: _Plan, sample: Array, row: Array, *, margin: int) -> Array:
    """The part of the padded `x` that a chunk of tiles sees."""
    sizes = (plan.samples, x.shape[1], plan.chunk_rows * plan.step + margin, *x.shape[3:])
    return jax.lax.dynamic_slice(x, (sample, 0, row * plan.step, 0, 0), sizes)


def _transform_inputs(x: Array, taps: int, size: int) -> Array:
    """`[n, T, th * m + m, tw * m + m, C]` -> `[36, n, T', th, tw, kt * C]`."""
    x = _overlapping(_overlapping(x, 2, size), 4, size)  # [n, T, th, 6, tw, 6, C]
    x = x.transpose(3, 5, 0, 1, 2, 4, 6)
    x = _matmul(_transforms(size).inputs, x.reshape(_TILE**2, -1)).reshape(-1, *x.shape[2:])
    # Every frame is transformed once; then the channels of `taps` frames become one frame's.
    frames = x.shape[2] - taps + 1
    return jnp.concatenate([x[:, :, tap : tap + frames] for tap in range(taps)], axis=-1)


def _overlapping(x: Array, axis: int, size: int) -> Array:
    """Cuts an axis of count * m + m into tiles of 6 that start m apart: two axes for one."""
    step = _TILE + 1 - size
    blocks = x.reshape(*x.shape[:axis], -1, step, *x.shape[axis + 1 :])
    count = blocks.shape[axis] - 1
    starts = jax.lax.slice_in_dim(blocks, 0, count, axis=axis)
    ends = jax.lax.slice_in_dim(blocks, 1, count + 1, axis=axis)
    ends = jax.lax.slice_in_dim(ends, 0, size - 1, axis=axis + 1)
    # XLA copies whole runs of memory if nothing is fused into the concatenation.
    return jax.lax.optimization_barrier(jnp.concatenate([starts, ends], axis + 1))


def _transform_back(x: Array, size: int) -> Array:
    """`[36, n, T, th, tw, D]` -> `[n, T, th, m, tw, m, D]`."""
    step = _TILE + 1 - size
    y = _matmul(_transforms(size).outputs, x.reshape(_TILE**2, -1))
    y = y.reshape(step, step, *x.shape[1:]).transpose(2, 3, 4, 0, 5, 1, 6)
    return jax.lax.optimization_barrier(y)


def _transform_gradient(x: Array, size: int) -> Array:
    """Transposed `_transform_back`: `[n, T, th * m, tw * m, D]` -> `[36, n, T, th, tw, D]`."""
    step = _TILE + 1 - size
    n, frames, height, width, features = x.shape
    x = x.reshape(n, frames, height // step, step, width // step, step, features)
    x = x.transpose(3, 5, 0, 1, 2, 4, 6)
    y = _matmul(_transforms(size).outputs.T, x.reshape(step**2, -1))
    return y.reshape(_TILE**2, *x.shape[2:])


def _transform_kernel(kernel: Array) -> Array:
    """`[kt, k, k, C, D]` -> `[36, kt * C, D]`."""
    taps, size, _, channels, features = kernel.shape
    kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(size**2, -1)
    return _matmul(_transforms(size).taps, kernel).reshape(_TILE**2, taps * channels, features)


def _matmul(transform: np.ndarray, x: Array) -> Array:
    return jnp.asarray(transform) @ x
