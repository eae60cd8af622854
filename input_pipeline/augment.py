"""Augmentation of whole sequences: one draw for all frames and tubes of a window.

Geometry first, on the boxes alone, so that only the pixels that are kept get resized; then colours.
Boxes are normalised to the picture, [x1, y1, x2, y2] in [0, 1]. All draws come from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from step_jax.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
ERASE_TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to training windows, how often and how much. The defaults do nothing.

    flip: probability of mirroring left and right.
    flip_swaps: pairs of class names that a mirror exchanges.
    crop: probability of a random crop; otherwise the whole picture.
    crop_min_scale: least area of the crop, as a part of the picture's.
    crop_max_aspect: largest stretch, of the crop's aspect against the picture's, either way.
    crop_keep: the central part of every box of the target clip, along both axes, that stays in the
        crop: 1 keeps whole boxes, 0 their centres.
    photometric: probability of changing the colours by all of the following.
    brightness: largest shift, as a part of the value range.
    contrast, saturation: factors are drawn from [1 - x, 1 + x].
    hue: largest rotation about the grey axis, in turns.
    erase: probability of covering a rectangle with grey.
    erase_min_area, erase_max_area: its area, as a part of the picture's.
    erase_max_cover: the largest part of any box that may be covered; after 8 rectangles that cover
        more, none is used.
    """

    flip: float = 0.0
    flip_swaps: tuple[tuple[str, str], ...] = ()
    crop: float = 0.0
    crop_min_scale: float = 0.5
    crop_max_aspect: float = 4 / 3
    crop_keep: float = 0.8
    photometric: float = 0.0
    brightness: float = 0.125
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03
    erase: float = 0.0
    erase_min_area: float = 0.02
    erase_max_area: float = 0.2
    erase_max_cover: float = 0.3

    def __post_init__(self):
        for name, value in vars(self).items():
            if name not in ("flip_swaps", "crop_max_aspect") and not 0 <= value <= 1:
                raise InputError(f"augment.{name} is {value}; expected a number from 0 to 1")
        if self.crop_min_scale == 0 or self.crop_max_aspect < 1:
            raise InputError(
                f"augment.crop_min_scale is {self.crop_min_scale} and crop_max_aspect "
                f"{self.crop_max_aspect}; expected more than 0 and at least 1"
            )
        if self.erase_min_area > self.erase_max_area:
            raise InputError(
                f"augment.erase_min_area is {self.erase_min_area} and erase_max_area "
                f"{self.erase_max_area}; expected the first not to be larger"
            )


def flip_permutation(classes: Sequence[str], swaps: Sequence[tuple[str, str]]) -> np.ndarray:
    """int32 [C]: the class whose label a mirrored picture's class takes. Checks the names."""
    permutation = np.arange(len(classes), dtype=np.int32)
    for pair in swaps:
        for name in pair:
            if name not in classes:
                known = ", ".join(classes)
                raise InputError(f"augment.flip_swaps: no class {name!r}; the classes are: {known}")
        a, b = (classes.index(name) for name in pair)
        if permutation[a] != a or permutation[b] != b or a == b:
            raise InputError(f"augment.flip_swaps: {pair} exchanges a class a second time")
        permutation[a], permutation[b] = b, a
    return permutation


# --- flip -----------------------------------------------------------------------------------------


def flip_boxes(boxes: tf.Tensor) -> tf.Tensor:
    """Mirrors normalised boxes [..., 4]: left and right edge change places."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.stack([1 - x2, y1, 1 - x1, y2], axis=-1)


# --- crop -----------------------------------------------------------------------------------------


def draw_crop(
    seed: tf.Tensor, boxes: tf.Tensor, mask: tf.Tensor, size: tf.Tensor, augment: Augment
) -> tf.Tensor:
    """int32 [4]: a crop window in whole source pixels: top, left, height, width.

    Args:
      seed: int [2].
      boxes, mask: [..., 4] normalised and [...]: the boxes of the target clip, which constrain it.
      size: int32 [2], the source's height and width.
      augment: the limits.
    """
    u = tf.random.stateless_uniform([4], seed)
    area = augment.crop_min_scale + u[0] * (1 - augment.crop_min_scale)
    stretch = tf.exp((2 * u[1] - 1) * math.log(augment.crop_max_aspect))
    stretch = tf.clip_by_value(stretch, area, 1 / area)  # neither side longer than the picture
    sides = tf.sqrt(area * tf.stack([1 / stretch, stretch]))  # height, width
    low, high = _kept_region(boxes, mask, size, augment.crop_keep)
    sides = tf.cast(tf.round(sides * tf.cast(size, tf.float32)), tf.int32)
    sides = tf.clip_by_value(tf.maximum(sides, high - low), 1, size)
    first = tf.maximum(high - sides, 0)
    choices = tf.minimum(low, size - sides) - first + 1
    corner = first + tf.cast(u[2:] * tf.cast(choices, tf.float32), tf.int32)
    return tf.concat([corner, sides], axis=0)


def _kept_region(boxes, mask, size, keep: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels [y, x] that hold the central parts of all boxes; low > high without boxes."""
    boxes = tf.boolean_mask(boxes, mask)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * keep
    scale = tf.cast(size, tf.float32)
    low = tf.floor((centre - half)[:, ::-1] * scale)
    high = tf.math.ceil((centre + half)[:, ::-1] * scale)
    low = tf.reduce_min(tf.concat([low, scale[None]], 0), axis=0)
    high = tf.reduce_max(tf.concat([high, tf.zeros([1, 2])], 0), axis=0)
    return tf.cast(low, tf.int32), tf.cast(high, tf.int32)


def crop_boxes(
    boxes: tf.Tensor, mask: tf.Tensor, crop: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Normalised boxes [..., 4] in a crop window, cut off at its edges; gone with their centre.

    Returns the boxes, 0 where masked, and the mask.
    """
    y, x, height, width = tf.unstack(tf.cast(crop, tf.float32))
    full = tf.cast(size, tf.float32)
    boxes = (boxes * tf.stack([full[1], full[0]] * 2) - tf.stack([x, y, x, y])) / tf.stack(
        [width, height, width, height]
    )
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    mask = mask & tf.reduce_all((centre >= 0) & (centre <= 1), axis=-1)
    return tf.where(mask[..., None], tf.clip_by_value(boxes, 0, 1), 0), mask


# --- colours --------------------------------------------------------------------------------------


def draw_colours(seed: tf.Tensor, augment: Augment) -> tf.Tensor:
    """Hue, saturation, contrast and brightness as one map of colours, float32 [3, 5].

    colour' = map @ (r, g, b, grey, 1), where grey is the sequence's mean luma: contrast turns
    about it.
    """
    u = 2 * tf.random.stateless_uniform([4], seed) - 1
    luma = tf.constant(LUMA)
    saturation = 1 + u[1] * augment.saturation
    contrast = 1 + u[2] * augment.contrast
    towards_grey = tf.tile(luma[:, None], [1, 3])
    matrix = _hue_rotation(u[0] * augment.hue * 2 * math.pi) @ (
        saturation * tf.eye(3) + (1 - saturation) * towards_grey
    )
    rest = tf.fill([3, 1], 1 - contrast), tf.fill([3, 1], 255 * u[3] * augment.brightness)
    return tf.concat([contrast * tf.transpose(matrix), *rest], axis=1)


def _hue_rotation(angle: tf.Tensor) -> tf.Tensor:
    """Rotation about the grey axis (1, 1, 1) by Rodrigues' formula, for row vectors."""
    cross = tf.constant([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]) / math.sqrt(3)
    third = tf.fill([3, 3], 1 / 3)
    return tf.cos(angle) * tf.eye(3) + (1 - tf.cos(angle)) * third + tf.sin(angle) * cross


# --- erase ----------------------------------------------------------------------------------------


def draw_rectangle(
    seed: tf.Tensor, boxes: tf.Tensor, mask: tf.Tensor, augment: Augment
) -> tf.Tensor:
    """float32 [4]: a normalised rectangle to cover, empty if all tries cover too much of a box."""
    u = tf.random.stateless_uniform([ERASE_TRIES, 4], seed)
    area = augment.erase_min_area + u[:, 0] * (augment.erase_max_area - augment.erase_min_area)
    stretch = tf.exp((2 * u[:, 1] - 1) * math.log(2.0))
    sides = tf.minimum(tf.sqrt(area[:, None] * tf.stack([stretch, 1 / stretch], 1)), 1.0)
    corner = u[:, 2:] * (1 - sides)
    rectangles = tf.concat([corner, corner + sides], axis=1)
    allowed = _most_covered(rectangles, tf.boolean_mask(boxes, mask)) <= augment.erase_max_cover
    first = tf.argmax(allowed)
    return tf.where(tf.reduce_any(allowed), rectangles[first], tf.zeros([4]))


def _most_covered(rectangles: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """For rectangles [n, 4]: the largest part of a box [m, 4] that each covers; 0 without boxes."""
    low = tf.maximum(rectangles[:, None, :2], boxes[None, :, :2])
    high = tf.minimum(rectangles[:, None, 2:], boxes[None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0), axis=-1)
    covered = shared / tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    return tf.reduce_max(tf.pad(covered, [[0, 0], [0, 1]]), axis=1)
