"""RoI features: a fixed grid of bins from the part of a feature map that a box covers.

Both forms keep the released model's coordinates: a box corner in input pixels divided by the
stride, without the half-pixel shift that later RoIAligns introduced. All shapes are static, boxes
may lie anywhere, and no gradient flows through them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# Bilinear samples of one bin that can touch one cell, see `_sample_weights`.
_SAMPLES_PER_CELL = 5


def roi_align(features, boxes, *, output_size, stride):
    """The mean of bilinear samples in every bin of every box (RoIAlign, legacy alignment).

    A bin has ceil(side / P) samples per axis. A sample outside [-1, size] counts as 0 and stays in
    the divisor; nearer ones take the border's value.

    Args:
        features: `[..., H, W, C]`, one map per frame.
        boxes: `[..., N, 4]`, input pixels, finite, the same leading dimensions.
        output_size: P.
        stride: input pixels per feature cell.

    Returns:
        `[..., N, P, P, C]` in the dtype of `features`; products accumulate in float32.
    """
    *lead, height, width, channels = features.shape
    x1, y1, x2, y2 = _corners_in_cells(boxes, stride, lead)
    rows = _sample_weights(y1, y2, size=height, output_size=output_size)
    columns = _sample_weights(x1, x2, size=width, output_size=output_size)
    frames = _frames_first(features, rows.astype(features.dtype), columns.astype(features.dtype))
    return _interpolate(*frames).reshape(*lead, *rows.shape[-3:-1], output_size, channels)


def roi_pool(features, boxes, *, output_size, stride):
    """The maximum in every bin of every box (RoIPool).

    Corners are rounded to cells, half away from zero, and belong to the box; bins share cells where
    the box does not divide evenly. A bin without cells is 0. The gradient goes to the first maximum
    in reading order.

    Args, returns: as `roi_align`. Beside its output it needs no memory to speak of; its gradient
    keeps the output, and needs one int32 array of that shape for a while.
    """
    *lead, height, width, channels = features.shape
    x1, y1, x2, y2 = _corners_in_cells(boxes, stride, lead)
    top, bottom = _bin_edges(y1, y2, size=height, output_size=output_size)
    left, right = _bin_edges(x1, x2, size=width, output_size=output_size)
    features, *bins = _frames_first(features, top, bottom, left, right, trailing=(3, 2, 2, 2, 2))
    pooled = _max_of_bins(features, tuple(bins))
    return pooled.reshape(*lead, *top.shape[-2:], output_size, channels)


def _corners_in_cells(boxes, stride, lead):
    """x1, y1, x2, y2, each `[*lead, N]`, float32 whatever the features, in feature cells."""
    assert list(boxes.shape[:-2]) == lead, f"boxes {boxes.shape} on maps {lead}: leading dimensions"
    boxes = jax.lax.stop_gradient(boxes).astype(jnp.float32) / stride
    return (boxes[..., i] for i in range(4))


def _frames_first(*arrays, trailing=(3, 3, 3)):
    """All leading dimensions of each array in one; the last `trailing` ones stay."""
    return [a.reshape(-1, *a.shape[a.ndim - n :]) for a, n in zip(arrays, trailing, strict=True)]


def _sample_weights(low, high, *, size, output_size):
    """How much each cell of an axis counts in each bin: `[..., N, P, size]`, float32.

    The product of two axes' weights is exactly RoIAlign's, because a sample counts as 0 where
    either coordinate is outside.

    Samples lie more than half a cell apart, or are one per bin; so those within one cell of a given
    cell are at most five in a row, and looking at five finds them all, however large the box.
    """
    extent = jnp.maximum(high - low, 1)
    samples = jnp.ceil(extent / output_size)
    spacing = (extent / output_size / samples)[..., None, None, None]
    starts = low[..., None] + jnp.arange(output_size) * (extent / output_size)[..., None]
    starts = starts[..., None, None]
    cells = jnp.arange(size, dtype=jnp.float32)[:, None]
    first = jnp.maximum(jnp.ceil((cells - 1 - starts) / spacing - 0.5), 0)
    sample = first + jnp.arange(_SAMPLES_PER_CELL)
    position = starts + (sample + 0.5) * spacing
    counts = (sample < samples[..., None, None, None]) & (position >= -1) & (position <= size)
    nearness = jnp.maximum(1 - jnp.abs(jnp.clip(position, 0, size - 1) - cells), 0)
    return jnp.sum(jnp.where(counts, nearness, 0), axis=-1) / samples[..., None, None]


def _interpolate(features, rows, columns):
    """Weighted sums `[F, N, P, P, C]` of `features [F, H, W, C]`, by the faster of two ways.

    One product costs P*H*W multiplications per bin row, box and channel. Two cost H*W + P*W, but
    write an array of P*W cells per box: frame after frame it stays in a CPU's cache, which made
    them 1.5 to 4 times faster on maps of 8x8 to 25x25. Accelerators have products to spare, and
    would wait for one small frame at a time.
    """
    return jax.lax.platform_dependent(
        features, rows, columns, cpu=_interpolate_by_axis, default=_interpolate_at_once
    )


def _interpolate_at_once(features, rows, columns):
    """One matrix product per frame: `[N*P*P, H*W] @ [H*W, C]`."""
    frames, height, width, channels = features.shape
    weights = rows[:, :, :, None, :, None] * columns[:, :, None, :, None, :]
    pooled = jnp.matmul(
        weights.reshape(frames, -1, height * width),
        features.reshape(frames, height * width, channels),
        preferred_element_type=jnp.float32,
    )
    return pooled.reshape(*weights.shape[:4], channels).astype(features.dtype)


def _interpolate_by_axis(features, rows, columns):
    """Rows, then columns: two matrix products, frame after frame."""
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)

    def one_frame(frame):
        cells, rows, columns = frame
        num_boxes, size, height = rows.shape
        bands = product(rows.reshape(-1, height), cells.reshape(height, -1)).astype(cells.dtype)
        bands = bands.reshape(num_boxes, size, *cells.shape[1:])
        columns = jnp.broadcast_to(columns[:, None], (num_boxes, size, *columns.shape[1:]))
        return product(columns, bands).astype(cells.dtype)

    return jax.lax.map(one_frame, (features, rows, columns))


def _bin_edges(low, high, *, size, output_size):
    """First cell and end cell of every bin of one axis: two int32 `[..., N, P]` in [0, size]."""
    low, high = (_round_half_away_from_zero(corner)[..., None] for corner in (low, high))
    extent = jnp.maximum(high - low + 1, 1)
    index = jnp.arange(output_size)
    start = low + index * extent // output_size
    end = low + ((index + 1) * extent + output_size - 1) // output_size
    return jnp.clip(start, 0, size), jnp.clip(end, 0, size)


def _round_half_away_from_zero(x):
    """As C rounds: 12.5 to 13, -0.5 to -1."""
    return (jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)).astype(jnp.int32)


@jax.custom_vjp
def _max_of_bins(features, bins):
    """Maxima `[F, N, P, P, C]` of `features [F, H, W, C]` in `bins` (top, bottom, left, right)."""
    return _over_frames(_frame_maxima, features, bins)


def _max_of_bins_forward(features, bins):
    pooled = _max_of_bins(features, bins)
    return pooled, (features, bins, pooled)


def _max_of_bins_backward(saved, gradient):
    return _over_frames(_frame_gradient, *saved, gradient), None


_max_of_bins.defvjp(_max_of_bins_forward, _max_of_bins_backward)


def _over_frames(function, *arrays):
    """`function` of every frame: in turn on a CPU, for its cache's sake, together elsewhere."""

    def in_turn(*arrays):
        return jax.lax.map(lambda frame: function(*frame), arrays)

    return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=jax.vmap(function))


def _frame_maxima(cells, bins):
    """The maxima `[N, P, P, C]` of one map `[H, W, C]`."""
    empty = _empty(bins)
    lowest = jnp.full((*empty.shape, cells.shape[-1]), -jnp.inf, cells.dtype)
    maxima = _visit_bins(cells, bins, lowest, lambda best, value, _: jnp.maximum(best, value))
    return jnp.where(empty[..., None], 0, maxima)


def _frame_gradient(cells, bins, maxima, gradient):
    """The gradient `[H, W, C]` of one map: that of every maximum, at the first cell that has it."""
    height, width, channels = cells.shape
    cell = _visit_bins(
        cells,
        bins,
        jnp.zeros(maxima.shape, jnp.int32),
        lambda found, value, cell: jnp.where(value == maxima, cell[..., None], found),
        backwards=True,  # so that the first in reading order is the last to be written
    )
    gradient = jnp.where(_empty(bins)[..., None], 0, gradient).astype(jnp.float32)
    total = jnp.zeros((height * width, channels)).at[cell, jnp.arange(channels)].add(gradient)
    return total.reshape(cells.shape).astype(cells.dtype)


def _empty(bins):
    """Which bins `[N, P, P]` have no cells."""
    top, bottom, left, right = bins
    return (bottom <= top)[:, :, None] | (right <= left)[:, None, :]


def _visit_bins(cells, bins, carry, update, *, backwards=False):
    """Folds `update(carry, values, cells)` over the cells of all bins side by side.

    Every turn visits one cell `[N, P, P]` of each bin, in reading order, and its values
    `[N, P, P, C]`; there are as many turns as the largest bin needs, so that a box of any size is
    exact and ordinary ones are quick. Smaller bins meet their last row and column repeatedly.
    """
    top, bottom, left, right = bins
    height, width, channels = cells.shape
    flat = cells.reshape(height * width, channels)
    bin_width = jnp.max(right - left)
    turns = jnp.max(bottom - top) * bin_width

    def visit(turn, carry):
        turn = turns - 1 - turn if backwards else turn
        y = jnp.minimum(top + turn // bin_width, bottom - 1)[:, :, None]
        x = jnp.minimum(left + turn % bin_width, right - 1)[:, None, :]
        cell = jnp.clip(y * width + x, 0, height * width - 1)  # an empty bin has nowhere to look
        return update(carry, flat[cell], cell)

    return jax.lax.fori_loop(0, turns, visit, carry)
