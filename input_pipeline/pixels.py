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


def flip_flow(maps: tf.Tensor) -> tf.Tensor:
    """Mirrors flow images uint8 [n, H, W, 3], whose x-displacement v becomes 255 - v."""
    mirrored = tf.reverse(maps, [2])
    width, channels = maps.shape[2:]
    turned = tf.tile(tf.constant([255, 0, 0], tf.uint8), [width])  # v ^ 255 = 255 - v
    # A row at a time, because broadcasting over a long axis is faster.
    rows = tf.bitwise.bitwise_xor(tf.reshape(mirrored, [-1, width * channels]), turned)
    return tf.reshape(rows, tf.shape(maps))


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


def recolour(frames: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Applies an affine map to every colour of float32 [n, H, W, 3]."""
    flat = tf.reshape(frames, [-1, 3]) @ matrix + offset
    return tf.reshape(flat, tf.shape(frames))


def to_uint8(frames: tf.Tensor) -> tf.Tensor:
    """Rounds and clips float32 to uint8."""
    return tf.saturate_cast(tf.round(frames), tf.uint8)
