"""From JPEG bytes to pictures, and in evaluation on to the network's size, in the graph."""

from __future__ import annotations

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
    """Decodes at most `most` frames: uint8 [n, h, w, 3]. So many without a loop, which takes time.

    Args:
      jpegs: string [n].
      crop: int32 [4], top, left, height, width, which the caller knows to be in all of them; None:
        the whole pictures. Fails where these are not all of one size.
    """

    def decode(jpeg):
        if crop is None:
            return tf.io.decode_jpeg(jpeg, channels=3)
        return tf.image.decode_and_crop_jpeg(jpeg, crop, channels=3)

    count = tf.shape(jpegs)[0]

    def all_of_them():
        # TensorFlow's optimizer may look at this where it is not chosen: every place has to exist.
        return tf.stack([decode(jpegs[tf.minimum(i, count - 1)]) for i in range(most)])

    def at_the_edge_of_a_video():
        signature = tf.TensorSpec([None, None, 3], tf.uint8)
        return tf.map_fn(decode, jpegs, fn_output_signature=signature)

    return tf.cond(count == most, all_of_them, at_the_edge_of_a_video)


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
