"""From JPEG bytes to the frames of the network's input."""

from __future__ import annotations

import tensorflow as tf


def frame_size(jpegs: tf.Tensor) -> tf.Tensor:
    """int32 [2]: height and width of the first of the frames (all have one size)."""
    return tf.io.extract_jpeg_shape(jpegs[0])[:2]


def decode_crop(jpegs: tf.Tensor, crop: tf.Tensor) -> tf.Tensor:
    """Decodes frames [n], cropped to (top, left, height, width): uint8 [n, height, width, 3].

    The exact inverse DCT, the default, so that all machines see the same pixels.
    """
    return tf.map_fn(
        lambda jpeg: tf.image.decode_and_crop_jpeg(jpeg, crop, channels=3),
        jpegs,
        fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
    )


def resize(frames: tf.Tensor, image_size: int) -> tf.Tensor:
    """Frames [n, H, W, 3] uint8 to [n, S, S, 3] float32 in [0, 255]; the aspect is not kept.

    Bilinear, with a wider triangle (antialiasing) along the axes that shrink.
    """
    size = tf.shape(frames)[1:3]

    def grow():  # the same numbers without antialiasing, in a quarter of the time
        return tf.image.resize(frames, [image_size, image_size])

    def shrink():
        return tf.image.resize(frames, [image_size, image_size], antialias=True)

    resized = tf.case(
        [
            (tf.reduce_all(size == image_size), lambda: tf.cast(frames, tf.float32)),
            (tf.reduce_all(size <= image_size), grow),
        ],
        default=shrink,
    )
    return tf.ensure_shape(resized, [None, image_size, image_size, 3])


def flip(frames: tf.Tensor) -> tf.Tensor:
    """Mirrors frames [n, H, W, C] left to right. (A slice with step -1 takes ten times as long.)"""
    return tf.reverse(frames, [2])


def recolour(frames: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Applies an affine map to every colour of float32 [n, H, W, 3]."""
    flat = tf.reshape(frames, [-1, 3]) @ matrix + offset
    return tf.reshape(flat, tf.shape(frames))


def to_uint8(frames: tf.Tensor) -> tf.Tensor:
    """Rounds and clips float32 to uint8."""
    return tf.saturate_cast(tf.round(frames), tf.uint8)
