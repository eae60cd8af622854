"""RoI features: a fixed grid of cells from the part of a feature map that a box covers.

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
        boxes: `[..., N, 4]`, input pixels, the same leading dimensions.
        output_size: P.
        stride: input pixels per feature cell.

    Returns:
        `[..., N, P, P, C]` in the dtype of `features`; products accumulate in float32.
    """
    low, high = _corners_in_cells(boxes, stride)
    height, width = features.shape[-3:-1]
    weights = functools.partial(_sample_weights, output_size=output_size)
    columns = weights(low[..., 0], high[..., 0], size=width).astype(features.dtype)
    rows = weights(low[..., 1], high[..., 1], size=height).astype(features.dtype)
    if height * width <= _SMALL_MAP_CELLS:
        return _interpolate_at_once(features, rows, columns)
    return _interpolate_by_axis(features, rows, columns)


_SMALL_MAP_CELLS = 256


def _corners_in_cells(boxes, stride):
    """Upper left and lower right corners, `[..., N, 2]` = (x, y), float32, in feature cells."""
    boxes = jax.lax.stop_gradient(boxes).astype(jnp.float32) / stride
    return boxes[..., :2], boxes[..., 2:]


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


def _interpolate_at_once(features, rows, columns):
    """One matrix product per frame: `[N*P*P, H*W] @ [H*W, C]`."""
    *lead, height, width, channels = features.shape
    weights = rows[..., :, None, :, None] * columns[..., None, :, None, :]
    grid = weights.shape[-5:-2]
    weights = weights.reshape(*lead, -1, height * width)
    cells = features.reshape(*lead, height * width, channels)
    pooled = jnp.matmul(weights, cells, preferred_element_type=jnp.float32)
    return pooled.reshape(*lead, *grid, channels).astype(features.dtype)


def _interpolate_by_axis(features, rows, columns):
    """Rows, then columns: H*W + P*W products per bin row and channel instead of P*H*W."""
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    bands = product("...nph,...hwc->...npwc", rows, features).astype(features.dtype)
    return product("...nqw,...npwc->...npqc", columns, bands).astype(features.dtype)


def roi_pool(features, boxes, *, output_size, stride):
    """The maximum in every bin of every box (RoIPool).

    Corners are rounded to cells, half away from zero, and belong to the box; bins overlap where the
    box does not divide evenly. A bin without cells is 0. The gradient goes to the first maximum in
    reading order.

    Args, returns: as `roi_align`.
    """
    *lead, height, width, channels = features.shape
    low, high = _corners_in_cells(boxes, stride)
    edges = functools.partial(_bin_edges, output_size=output_size)
    bins = (
        *edges(low[..., 1], high[..., 1], size=height),
        *edges(low[..., 0], high[..., 0], size=width),
    )
    maps = features.reshape(-1, height, width, channels)
    bins = tuple(edge.reshape(-1, *edge.shape[-2:]) for edge in bins)
    pooled = _max_of_bins(maps, bins)
    return pooled.reshape(*lead, *pooled.shape[1:])


def _bin_edges(low, high, *, size, output_size):
    """First cell and end cell of every bin of one axis: two int32 `[..., N, P]` in [0, size]."""
    low, high = (_round_half_away_from_zero(corner)[..., None] for corner in (low, high))
    extent = jnp.maximum(high - low + 1, 1)
    index = jnp.arange(output_size)
    start = low + index * extent // output_size
    end = low - (-(index + 1) * extent // output_size)
    return jnp.clip(start, 0, size), jnp.clip(end, 0, size)


def _round_half_away_from_zero(x):
    """As C rounds: 12.5 to 13, -0.5 to -1."""
    return (jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)).astype(jnp.int32)


@jax.custom_vjp
def _max_of_bins(maps, bins):
    """Maxima `[F, N, P, P, C]` of `maps [F, H, W, C]` in the `bins` of `_bin_edges`."""
    return jax.lax.map(lambda x: _frame_maxima(*x), (maps, bins), batch_size=_FRAMES_AT_ONCE)


_FRAMES_AT_ONCE = 8


def _max_of_bins_forward(maps, bins):
    return _max_of_bins(maps, bins), (maps, bins)


def _max_of_bins_backward(saved, gradient):
    """The forward pass again, now with ties decided, and its transpose."""

    def transpose(frame):
        cells, bins, gradient = frame
        _, pull_back = jax.vjp(lambda cells: _frame_first_maxima(cells, bins), cells)
        return pull_back(gradient)[0]

    gradient = jax.lax.map(transpose, (*saved, gradient), batch_size=_FRAMES_AT_ONCE)
    return gradient, None


_max_of_bins.defvjp(_max_of_bins_forward, _max_of_bins_backward)


def _frame_maxima(cells, bins):
    """Maxima `[N, P, P, C]` of one map `[H, W, C]`."""
    return _reduce_bins((cells,), bins, lambda a, b: (jnp.maximum(a[0], b[0]),))


def _frame_first_maxima(cells, bins):
    """The same, differentiable: the gradient of a maximum belongs to its first cell alone."""
    height, width, _ = cells.shape
    index = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width, 1)
    return _reduce_bins((cells, jnp.broadcast_to(index, cells.shape)), bins, _first_of_larger)


def _first_of_larger(a, b):
    """Of two (value, cell index) the larger value's, of equal ones the earlier cell's."""
    take_a = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
    return jnp.where(take_a, a[0], b[0]), jnp.where(take_a, a[1], b[1])


def _reduce_bins(cells, bins, combine):
    """`combine` over the cells of every bin, which must not mind meeting a cell twice.

    A range of any length is two windows, perhaps overlapping, whose length is a power of two: so a
    bin is four windows of a table of all of them.
    """
    top, bottom, left, right = bins
    empty = (bottom <= top)[:, :, None] | (right <= left)[:, None, :]
    table, base, row_length = _window_table(cells, combine)
    row_level, column_level = _level(bottom - top)[:, :, None], _level(right - left)[:, None, :]
    upper, lower = top[:, :, None], bottom[:, :, None] - (1 << row_level)
    near, far = left[:, None, :], right[:, None, :] - (1 << column_level)
    base, row_length = base[row_level, column_level], row_length[column_level]

    def window(y, x):
        where = jnp.where(empty, 0, base + y * row_length + x)
        return tuple(entry[where] for entry in table)

    bands = [combine(window(y, near), window(y, far)) for y in (upper, lower)]
    return jnp.where(empty[..., None], 0, combine(*bands)[0])


def _level(extent):
    """floor(log2(extent)) of int32 extents, 0 below 1."""
    powers = 1 << jnp.arange(1, 16)
    return jnp.sum(extent[..., None] >= powers, axis=-1)


def _window_table(cells, combine):
    """`combine` over every window of 2^i x 2^j cells, flat `[rows, C]`, and how to find one.

    The window of levels i, j whose first cell is (y, x) is row base[i, j] + y * row_length[j] + x.
    The table has about 4^2 times the map's rows.
    """
    by_width = _doubled(cells, axis=1, combine=combine)
    windows = [_doubled(level, axis=0, combine=combine) for level in by_width]
    rows = [[level[0].shape[0] * level[0].shape[1] for level in column] for column in windows]
    sizes = jnp.array(rows).T
    base = (jnp.cumsum(sizes.T.ravel()) - sizes.T.ravel()).reshape(sizes.T.shape).T
    row_length = jnp.array([level[0].shape[1] for level in by_width])
    flat = [level for column in windows for level in column]
    channels = cells[0].shape[-1]
    table = tuple(
        jnp.concatenate([level[i].reshape(-1, channels) for level in flat])
        for i in range(len(cells))
    )
    return table, base, row_length


def _doubled(cells, *, axis, combine):
    """`combine` over windows of 1, 2, 4, ... cells along `axis`, as long as they fit."""
    levels, span = [cells], 1
    while 2 * span <= cells[0].shape[axis]:
        ends = levels[-1][0].shape[axis]
        first = tuple(jax.lax.slice_in_dim(x, 0, ends - span, axis=axis) for x in levels[-1])
        second = tuple(jax.lax.slice_in_dim(x, span, ends, axis=axis) for x in levels[-1])
        levels.append(combine(first, second))
        span *= 2
    return levels
