"""The tubes of a window as fixed shapes with masks: G tubes (padded) x T input frames."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from input_pipeline.clips import WindowShape


class Targets(NamedTuple):
    """The tubes of one window.

    boxes: float32 [G, T, 4], normalised to the picture; 0 where there is none.
    box_mask: bool [G, T], whether the tube has a box in that input frame. False in frames that only
        repeat the edge of the video.
    labels: float32 [G, C] multi-hot; zeros in padding.
    """

    boxes: tf.Tensor
    box_mask: tf.Tensor
    labels: tf.Tensor


def window_targets(
    example: dict[str, tf.Tensor], start: tf.Tensor, *, window: WindowShape, max_tubes: int
) -> Targets:
    """The tubes with a box in the input frames of the window at `start`, in the record's order."""
    time = tf.cast(example["tube_frame"], tf.int32) - (start - window.before)
    rows = tf.where((time >= 0) & (time < window.input_frames))[:, 0]
    tube = tf.gather(tf.cast(example["tube_index"], tf.int32), rows)
    time = tf.gather(time, rows)
    num_tubes = tf.shape(example["tube_ids"])[0]
    used = tf.math.unsorted_segment_sum(tf.ones_like(tube), tube, num_tubes) > 0
    place = tf.gather(tf.cumsum(tf.cast(used, tf.int32)) - 1, tube)
    at = tf.stack([place, time], axis=1)
    shape = [max_tubes, window.input_frames]
    mask = tf.scatter_nd(at, tf.ones_like(place), shape) > 0
    boxes = tf.scatter_nd(at, tf.gather(example["tube_box"], rows), [*shape, 4])
    labels = tf.cast(tf.boolean_mask(example["tube_labels"], used), tf.float32)
    labels = tf.pad(labels, [[0, max_tubes - tf.shape(labels)[0]], [0, 0]])
    labels = tf.ensure_shape(labels, [max_tubes, example["tube_labels"].shape[1]])
    return Targets(boxes, mask, labels)


def tubes_in_target(
    box_mask: tf.Tensor, num_frames: tf.Tensor, *, window: WindowShape, min_target_frames: int
) -> tf.Tensor:
    """bool [G]: which tubes count as present in the target clip.

    Those with boxes in at least `min_target_frames` of its frames, or in all of them where the
    video is shorter than that.
    """
    in_target = box_mask[:, window.before : window.before + window.clip_frames]
    needed = tf.minimum(min_target_frames, tf.cast(num_frames, tf.int32))
    return tf.reduce_sum(tf.cast(in_target, tf.int32), axis=1) >= needed
