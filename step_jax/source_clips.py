"""Clips in the network's size from frames in their own, on the device.

A host can hardly do more than decode: to resize 30 frames to 400x400 takes it half as long as
decoding them, and with AVA's antialiasing as long. A device does it by two matrix products a frame,
a few percent of a training step, and gets each flow image once, not once for every frame that reads
it. `input_pipeline.source_clips` makes the batches.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any

# Of a batch, what clips are made of.
KINDS = ("frames", "flow")
PARTS = tuple(f"{kind}_{part}" for kind in KINDS for part in ("places", "rows", "columns"))
KEYS = (*KINDS, *PARTS, "colours", "covered")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
ERASE_VALUE = 128  # grey: 0 in the network's [-1, 1], and a flow image's "no motion"


def with_clips(batch: PyTree) -> PyTree:
    """The batch with "clips", uint8 `[B, T, S, S, channels]`, made of its KEYS if it has none.

    frames, flow: uint8 `[B, n, H, W, 3]`; at least one of them.
    frames_places, flow_places: int32 `[B, T, F]`, which of its pictures each frame reads.
    frames_rows, flow_rows, ..._columns: float32 `[B, S]`, see `resize`. Columns that fall mirror.
    colours: float32 `[B, 3, 5]`: of the frames, colour' = colours @ (r, g, b, mean luma, 1), where
      the mean is the clip's.
    covered: float32 `[B, 4]`, a normalised rectangle that is covered with grey.
    """
    if "clips" in batch:
        return batch
    parts = {name: batch[name] for name in KEYS if name in batch}
    others = {name: value for name, value in batch.items() if name not in parts}
    return others | {"clips": jax.lax.map(_clip, parts)}  # one by one: float32 takes memory


def _clip(parts: dict[str, Array]) -> Array:
    images = []
    for kind in KINDS:
        if kind in parts:
            made = _frames(parts) if kind == "frames" else _flow(parts)
            read = jnp.moveaxis(made[parts[f"{kind}_places"]], 1, 0)
            images += list(read)
    clip = jnp.concatenate(images, axis=-1)
    inside = covered_pixels(parts["covered"], clip.shape[1])
    return jnp.where(inside[..., None], jnp.uint8(ERASE_VALUE), clip)


def _frames(parts: dict[str, Array]) -> Array:
    frames = resize(parts["frames"], parts["frames_rows"], parts["frames_columns"])
    read = jnp.arange(len(frames)) <= parts["frames_places"].max()  # others are none
    mean = jnp.mean(frames, axis=(1, 2)).T @ read / read.sum()
    return _to_uint8(recolour(frames, parts["colours"], mean))


def _flow(parts: dict[str, Array]) -> Array:
    columns = parts["flow_columns"]
    flow = _to_uint8(resize(parts["flow"], parts["flow_rows"], columns))
    turned = jnp.where(columns[-1] < columns[0], jnp.array([255, 0, 0], jnp.uint8), jnp.uint8(0))
    return flow ^ turned  # v ^ 255 = 255 - v: mirrored, it moves the other way


def resize(pictures: Array, rows: Array, columns: Array) -> Array:
    """Pictures `[n, H, W, 3]` resized to `[n, S, S, 3]`, float32.

    Linear interpolation, its triangle as wide as an output pixel where that is wider than one of
    the picture.

    Args:
      pictures: uint8.
      rows, columns: float32 `[S]`, the centres of the output's pixels in the picture's, evenly
        spaced; pixels that lie outside of what they span have no say.
    """
    height, width = pictures.shape[1:3]
    down, across = triangles(rows, height), triangles(columns, width)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    narrowed = jnp.einsum("sw,nhwc->nhsc", across, pictures.astype(jnp.float32), **exact)
    return jnp.einsum("sh,nhwc->nswc", down, narrowed, **exact)


def triangles(centres: Array, count: int) -> Array:
    """`[S, count]`: the weights of the pixels of a line that is resized; each row adds up to 1."""
    size = len(centres)
    step = jnp.abs(centres[-1] - centres[0]) / max(1, size - 1)
    low = jnp.minimum(centres[0], centres[-1]) - step / 2
    pixel = jnp.arange(count) + 0.5
    weights = jnp.maximum(0.0, 1 - jnp.abs(pixel - centres[:, None]) / jnp.maximum(1.0, step))
    weights = jnp.where((pixel > low) & (pixel < low + size * step), weights, 0.0)
    return weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)


def recolour(frames: Array, colours: Array, mean: Array) -> Array:
    """An affine map of every colour of `[n, H, W, 3]`, whose mean is `[3]`: see `with_clips`."""
    offset = colours[:, 3] * (mean @ jnp.array(LUMA)) + colours[:, 4]
    exact = {"precision": jax.lax.Precision.HIGHEST}
    return jnp.einsum("nhwc,dc->nhwd", frames, colours[:, :3], **exact) + offset


def covered_pixels(rectangle: Array, side: int) -> Array:
    """bool `[side, side]`: the pixels whose centre is in a normalised rectangle."""
    centre = (jnp.arange(side) + 0.5) / side
    x1, y1, x2, y2 = rectangle
    rows, columns = (y1 <= centre) & (centre < y2), (x1 <= centre) & (centre < x2)
    return rows[:, None] & columns


def _to_uint8(pictures: Array) -> Array:
    return jnp.clip(jnp.round(pictures), 0, 255).astype(jnp.uint8)
