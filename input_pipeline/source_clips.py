"""Clips in the frames' own size, which the device resizes (`step_jax.source_clips`)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from input_pipeline import clip_pixels


def fit(pictures: np.ndarray, size: np.ndarray, missing: int = 0) -> np.ndarray:
    """Pictures uint8 [n, h, w, 3] in [n + missing, H, W, 3], with zeros where there are none.

    Along an axis that is longer than `size`, int [2], they are shrunk.
    """
    count, *own, _ = pictures.shape
    height, width = map(min, own, size.tolist())
    held = np.zeros((count + missing, *size, 3), np.uint8)
    for picture, out in zip(pictures, held, strict=False):
        clip_pixels.resize(picture, out[:height, :width])
    return held


def centres(crop: tf.Tensor, size: tf.Tensor, held: tf.Tensor, side: int) -> tf.Tensor:
    """float32 [2, S]: where in the held picture the centres of the output's rows and columns are.

    Args:
      crop: int32 [4], top, left, height, width, of pictures of `size`.
      size, held: int32 [2], height and width of the picture that the crop was drawn in, and of the
        picture that is held.
      side: S.
    """
    first, extent, size, held = (
        tf.cast(value, tf.float32)[:, None] for value in (crop[:2], crop[2:], size, held)
    )
    along = (tf.range(side, dtype=tf.float32) + 0.5) / side
    return (first + extent * along) * held / size
