"""From JPEG bytes to pictures, and in evaluation on to the network's size, in the graph."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import tensorflow as tf


def frame_size(jpegs: tf.Tensor) -> tf.Tensor:
    """int32 [2]: height and width of the first of the frames (all have one size)."""
    return tf.io.extract_jpeg_shape(jpegs[0])[:2]


def decode_whole(jpegs: tf.Tensor) -> tf.Tensor:
    """Decodes frames: uint8 [n, H, W, 3]. Fails where they are not all of one size.

    TensorFlow's default inverse DCT, which is the fast one (not OpenCV's, which is the exact one).
    """
    return tf.map_fn(
        lambda jpeg: tf.io.decode_jpeg(jpeg, channels=3),
        jpegs,
        fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
    )


def decode_few(jpegs: tf.Tensor, most: int, crop: tf.Tensor | None = None) -> tf.Tensor:
    """Decodes at most `most` frames, without a loop, whose copies take time: uint8 [n, h, w, 3].

    Args:
      jpegs: string [n], of one size.
      crop: int32 [4], top, left, height, width, which the caller knows to be in all of them; None:
        the whole pictures. Fails where these are not all of one size.
    """
    count = tf.shape(jpegs)[0]
    padding = tf.fill([most - count], _one_pixel())
    padded = tf.ensure_shape(tf.concat([jpegs, padding], axis=0), [most])
    height, width = tf.unstack(frame_size(jpegs) if crop is None else crop[2:])
    pictures, heights = [], []
    for i, jpeg in enumerate(tf.unstack(padded)):
        is_real = i < count
        if crop is None:
            picture = tf.io.decode_jpeg(jpeg, channels=3)
        else:
            own = tf.where(is_real, crop, [0, 0, 1, 1])
            picture = tf.image.decode_and_crop_jpeg(jpeg, own, channels=3)
        rows, columns, _ = tf.unstack(tf.shape(picture))
        heights.append(tf.where(is_real, rows, height))
        # Of padding no row is left.
        picture = picture[: tf.where(is_real, rows, 0)]
        pictures.append(tf.reshape(picture, [-1, tf.where(is_real, columns, width), 3]))
    alike = tf.reduce_all(tf.stack(heights) == height)
    tf.debugging.Assert(alike, ["JPEGs of different sizes"])
    return tf.reshape(tf.concat(pictures, axis=0), [count, height, width, 3])


@functools.cache
def _one_pixel() -> bytes:
    return cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1].tobytes()


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


def scale_crop(crop: tf.Tensor, *, size: tf.Tensor, to: tf.Tensor) -> tf.Tensor:
    """The region of a crop (top, left, height, width) in pictures of another size, int32 [4].

    Its edges are rounded to whole pixels, so that they are off by half of one at most; a picture
    has at least one. Half a pixel rounds up.

    Args:
      crop: int32 [4], of pictures of `size`.
      size, to: int32 [2], height and width.
    """
    edges = tf.stack([crop[:2], crop[:2] + crop[2:]])  # low, high
    edges = (2 * edges * to + size) // (2 * size)
    low = tf.minimum(edges[0], to - 1)
    return tf.concat([low, tf.maximum(edges[1] - low, 1)], axis=0)


def to_uint8(frames: tf.Tensor) -> tf.Tensor:
    """Rounds and clips float32 to uint8."""
    return tf.saturate_cast(tf.round(frames), tf.uint8)
