"""Convolutions with 3x3 or 4x4 taps in space by Winograd's minimal filtering, for the CPU.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016): tiles of 6x6 inputs are
transformed, multiplied by the transformed kernel, place by place, and transformed back to m x m
outputs. That takes 36 products per tile and pair of channels instead of 9 or 16 times m * m, four
times fewer for 3x3 taps. Each of the 36 places is one matrix product over tiles and channels, with
the taps over time side by side in the channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

TAPS = (3, 4)  # over rows and columns
TILE = 6  # inputs of a tile along an axis, whatever the taps

# Where the polynomials are evaluated, beside infinity. With these the largest error in float32 is
# 3e-6 of the output's largest value, with the usual 0, 1, -1, 2, -2 it is 1e-5.
_POINTS = np.array([0, 5 / 8, -5 / 8, 5 / 4, -5 / 4])

# A chunk's transformed inputs and outputs should stay in the cache. One row of tiles over all
# frames is the least; at 18x100x100, 64 -> 192 channels, 2 cores, twice that takes 1.3 as long.
_CHUNK_BYTES = 24 * 2**20

# With fewer channels copying the taps over time costs more after the transformation than before.
_FEWEST_CHANNELS_BEFORE_TAPS = 32


class _Transforms(NamedTuple):
    """Along one axis, of 6 inputs (6x6), of the taps (6 x taps), back to the outputs (m x 6)."""

    inputs: np.ndarray
    taps: np.ndarray
    outputs: np.ndarray


@functools.cache
def _transforms(taps: int) -> _Transforms:
    """Toom-Cook's evaluation and interpolation, transposed into a filter."""
    others = [np.delete(_POINTS, i) for i in range(len(_POINTS))]
    inputs = np.zeros((TILE, TILE))
    for row, roots in enumerate([*others, _POINTS]):
        inputs[row, : len(roots) + 1] = np.poly(roots)[::-1]
    scale = [np.prod(p - roots) for p, roots in zip(_POINTS, others, strict=True)]
    kernel = np.vander(_POINTS, taps, increasing=True) / np.array(scale)[:, None]
    outputs = np.vander(_POINTS, TILE + 1 - taps, increasing=True)
    at_infinity = [np.eye(size)[-1:] for size in (taps, outputs.shape[1])]
    return _Transforms(
        inputs,
        np.concatenate([kernel, at_infinity[0]]),
        np.concatenate([outputs, at_infinity[1]]).T,
    )


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
        return self.chunks[1] * self.chunk_rows * self.step, self.columns * self.step


def _plan(batch: int, outputs: Sequence[int], kernel_shape: Sequence[int]) -> _Plan:
    taps, size, _, channels, features = kernel_shape
    step = TILE + 1 - size
    rows, columns = -(-outputs[1] // step), -(-outputs[2] // step)
    row_bytes = 4 * TILE**2 * outputs[0] * columns * (taps * channels + features)
    affordable = max(_CHUNK_BYTES // row_bytes, 1)
    samples = min(max(affordable // rows, 1), batch)
    chunk_rows = min(affordable, rows)
    chunks = -(-batch // samples), -(-rows // chunk_rows)
    # Chunks of about equal size: the last one of the samples repeats what it lacks.
    return _Plan(step, rows, columns, -(-batch // chunks[0]), chunk_rows, chunks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3d(x: Array, kernel: Array, padding: Padding) -> Array:
    """`x [N, T, H, W, C]` with `kernel [kt, k, k, C, D]`, k of `TAPS` -> `[N, T', H', W', D]`."""
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
    outputs = [
        have + sum(margins) - k + 1
        for have, margins, k in zip(x.shape[1:4], padding, kernel.shape[:3], strict=True)
    ]
    plan = _plan(len(x), outputs, kernel.shape)
    dtype, x = x.dtype, _pad_to_tiles(x, padding, outputs, plan)
    filters = _transform_kernel(kernel.astype(jnp.float32))

    def add_chunk(out: Array, sample: Array, row: Array, is_new: Array) -> Array:
        del is_new  # what is computed twice is written twice
        tiles = _cut(x, plan, sample, row, margin=size - 1)
        for place, rows in enumerate(_filter_tiles(tiles, filters, taps, size)):
            out = jax.lax.dynamic_update_slice(out, rows, (sample, 0, row, place, 0, 0, 0))
        return out

    tiles = (plan.chunks[1] * plan.chunk_rows, plan.step, plan.columns, plan.step)
    out = jnp.zeros((len(x), outputs[0], *tiles, features), jnp.float32)
    out = _over_chunks(add_chunk, out, plan, len(x))
    out = out.reshape(len(x), outputs[0], *plan.extent, features)
    return out[:, :, : outputs[1], : outputs[2]].astype(dtype)


def _kernel_gradient(x: Array, gradient: Array, kernel: Array, padding: Padding) -> Array:
    taps, size, _, channels, features = kernel.shape
    outputs = gradient.shape[1:4]
    plan = _plan(len(x), outputs, kernel.shape)
    x = _pad_to_tiles(x, padding, outputs, plan)
    gradient = _pad_to_tiles(gradient, ((0, 0),) * 3, outputs, plan)

    def add_chunk(totals: list[Array], sample: Array, row: Array, is_new: Array) -> list[Array]:
        tiles = _cut(x, plan, sample, row, margin=size - 1)
        share = jnp.where(is_new, _cut(gradient, plan, sample, row, margin=0), 0)
        products = _correlate_tiles(tiles, share, taps, size)
        return [total + product for total, product in zip(totals, products, strict=True)]

    totals = [jnp.zeros((taps * channels, features))] * TILE**2
    totals = _over_chunks(add_chunk, totals, plan, len(x))
    places = np.reshape(np.arange(TILE**2), (TILE, TILE))
    back = _transforms(size).taps.T
    columns = [_combine(back, [totals[i] for i in places[:, b]]) for b in range(TILE)]
    rows = [_combine(back, [column[i] for column in columns]) for i in range(size)]
    out = jnp.stack([jnp.stack(row) for row in rows])  # [k, k, kt * C, D]
    out = out.reshape(size, size, taps, channels, features)
    return out.transpose(2, 0, 1, 3, 4).astype(kernel.dtype)


def _pad_to_tiles(x: Array, padding: Padding, outputs: Sequence[int], plan: _Plan) -> Array:
    missing = [0] + [whole - size for whole, size in zip(plan.extent, outputs[1:], strict=True)]
    sides = [(before, after + m, 0) for (before, after), m in zip(padding, missing, strict=True)]
    x = x.astype(jnp.float32)
    return jax.lax.pad(x, jnp.float32(0), ((0, 0, 0), *sides, (0, 0, 0)))


def _over_chunks(body: Callable, start, plan: _Plan, batch: int):
    """Folds `body(carry, first sample, first row of tiles, which samples are new)`."""

    def step(index: Array, carry):
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


def _filter_tiles(x: Array, filters: list[list[Array]], taps: int, size: int) -> list[Array]:
    """`x [n, T, H, W, C]` -> for each of a tile's m output rows `[n, T', th, 1, tw, m, D]`."""
    places = []
    for inputs, row_filters in zip(_transform_inputs(x, taps, size), filters, strict=True):
        places.append(
            [
                (v.reshape(-1, v.shape[-1]) @ u).reshape(*v.shape[:-1], -1)
                for v, u in zip(inputs, row_filters, strict=True)
            ]
        )
    back = _transforms(size).outputs
    halves = [_combine(back, column) for column in zip(*places, strict=True)]
    rows = []
    for half in zip(*halves, strict=True):
        outputs = [y[:, :, :, None, :, None] for y in _combine(back, half)]
        # Unfused XLA copies whole vectors of channels; fused it looks at every number's index.
        outputs = jax.lax.optimization_barrier(outputs)
        rows.append(jax.lax.optimization_barrier(jnp.concatenate(outputs, axis=5)))
    return rows


def _correlate_tiles(x: Array, gradient: Array, taps: int, size: int) -> list[Array]:
    """The 36 products `[kt * C, D]` of transformed inputs and output gradients."""
    back, step = _transforms(size).outputs.T, TILE + 1 - size
    gradients = _transform(gradient, back, [n // step for n in gradient.shape[2:4]], step)
    inputs = _transform_inputs(x, taps, size)
    pairs = [
        pair for rows in zip(inputs, gradients, strict=True) for pair in zip(*rows, strict=True)
    ]
    return [v.reshape(-1, v.shape[-1]).T @ g.reshape(-1, g.shape[-1]) for v, g in pairs]


def _transform_inputs(x: Array, taps: int, size: int) -> list[list[Array]]:
    """6 x 6 arrays `[n, T', th, tw, kt * C]`: every tile's input at that place."""
    step = TILE + 1 - size
    count = [(extent - size + 1) // step for extent in x.shape[2:4]]
    taps_first = x.shape[-1] < _FEWEST_CHANNELS_BEFORE_TAPS
    if taps_first:
        x = jax.lax.optimization_barrier(_side_by_side(x, taps))
    places = _transform(x, _transforms(size).inputs, count, step)
    return places if taps_first else [[_side_by_side(v, taps) for v in row] for row in places]


def _side_by_side(x: Array, taps: int) -> Array:
    """`[n, T, ..., C]` -> `[n, T - taps + 1, ..., taps * C]`."""
    frames = x.shape[1] - taps + 1
    return jnp.concatenate([x[:, tap : tap + frames] for tap in range(taps)], axis=-1)


def _transform(x: Array, matrix: np.ndarray, count: Sequence[int], step: int) -> list[list[Array]]:
    """Applies the matrix along rows and columns of `count` tiles that start `step` apart."""
    spans = [(n - 1) * step + 1 for n in count]
    width = range(matrix.shape[1])
    slices = jax.lax.slice_in_dim
    rows = _combine(matrix, [slices(x, i, i + spans[0], step, axis=2) for i in width])
    return [
        _combine(matrix, [slices(row, j, j + spans[1], step, axis=3) for j in width])
        for row in rows
    ]


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """matrix @ parts, leaving out the zeros."""
    out = []
    for row in matrix:
        terms = [
            part if c == 1 else part * c for c, part in zip(row.tolist(), parts, strict=True) if c
        ]
        out.append(functools.reduce(jnp.add, terms))
    return out


def _transform_kernel(kernel: Array) -> list[list[Array]]:
    """6 x 6 arrays `[kt * C, D]`."""
    matrix = _transforms(kernel.shape[1]).taps
    rows = _combine(matrix, [kernel[:, i] for i in range(kernel.shape[1])])
    places = [_combine(matrix, [row[:, j] for j in range(kernel.shape[2])]) for row in rows]
    return [[place.reshape(-1, kernel.shape[-1]) for place in row] for row in places]
