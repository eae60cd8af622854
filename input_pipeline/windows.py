"""From a record's bytes to the window that the network sees, in TensorFlow's graph."""

from __future__ import annotations

import tensorflow as tf

from input_pipeline import augment as augmentation
from input_pipeline import builders, pixels, targets
from input_pipeline.augment import Augment
from input_pipeline.clips import WindowShape


class WindowMaker:
    """Makes windows of records' bytes, in the graph."""

    def __init__(
        self,
        *,
        window: WindowShape,
        image_size: int,
        max_tubes: int,
        min_target_frames: int,
        augment: Augment,
        classes: tuple[str, ...],
    ):
        self._spec = builders.features(len(classes)).tf_example_spec
        self._window = window
        self._image_size = image_size
        self._max_tubes = max_tubes
        self._min_target_frames = min_target_frames
        self._augment = augment
        self._flipped_label = augmentation.flip_permutation(classes, augment.flip_swaps)

    def train_window(self, record, serialized, start, seed) -> dict[str, tf.Tensor]:
        """The augmented window at `start` (int32 []) of a record; `seed` int64 [2]."""
        del record
        example = self._parse(serialized)
        jpegs, positions = self._input_frames(example, start[None])
        size = pixels.frame_size(jpegs)
        flip_seed, crop_seed, colour_seed, erase_seed = tf.unstack(tf.random.split(seed, 4))
        boxes, mask, labels = self._targets(example, start)
        crop = tf.concat([[0, 0], size], axis=0)
        if self._augment.crop:
            crop = self._draw_crop(crop_seed, boxes, mask, size)
            boxes, mask = augmentation.crop_boxes(boxes, mask, crop, size)
        frames = pixels.resize(pixels.decode_crop(jpegs, crop), self._image_size)
        frames = pixels.to_uint8(self._recolour(colour_seed, frames))
        flip = _happens(flip_seed, self._augment.flip)
        frames = tf.cond(flip, lambda: pixels.flip(frames), lambda: frames)
        boxes = tf.where(flip & mask[..., None], augmentation.flip_boxes(boxes), boxes)
        labels = tf.where(flip, tf.gather(labels, self._flipped_label, axis=1), labels)
        frames = self._erase(erase_seed, frames, boxes, mask)
        clip = tf.gather(frames, positions[0])
        return self._assemble(example, clip, targets.Targets(boxes, mask, labels))

    def decode_record(self, record, serialized, starts) -> tuple:
        """All windows of one record: what `split_windows` takes; frames are decoded once."""
        example = self._parse(serialized)
        jpegs, positions = self._input_frames(example, starts)
        crop = tf.concat([[0, 0], pixels.frame_size(jpegs)], axis=0)
        frames = pixels.to_uint8(pixels.resize(pixels.decode_crop(jpegs, crop), self._image_size))
        del example["frames"]
        return record, example, frames, positions, starts

    def split_windows(self, record, example, frames, positions, starts) -> tf.data.Dataset:
        """The windows of a record that `decode_record` decoded, one by one."""

        def window(position, start):
            window_targets = self._targets(example, start)
            made = self._assemble(example, tf.gather(frames, position), window_targets)
            return made | {"record": record, "start": start}

        return tf.data.Dataset.from_tensor_slices((positions, starts)).map(window)

    def _parse(self, serialized) -> dict[str, tf.Tensor]:
        # Not the features' own deserialize_example, which decodes all frames, or maps over them.
        return tf.io.parse_single_example(serialized, self._spec)

    def _input_frames(self, example, starts) -> tuple[tf.Tensor, tf.Tensor]:
        """The JPEGs that windows need, each once, and every input frame's place in them [n, T]."""
        last = tf.cast(example["num_frames"], tf.int32) - 1
        frame = starts[:, None] - self._window.before + tf.range(self._window.input_frames)
        frame = tf.clip_by_value(frame, 0, last)
        first_kept = tf.cast(example["first_frame"], tf.int32)
        low, high = tf.reduce_min(frame), tf.reduce_max(frame)
        return example["frames"][low - first_kept : high - first_kept + 1], frame - low

    def _targets(self, example, start) -> targets.Targets:
        return targets.window_targets(
            example, start, window=self._window, max_tubes=self._max_tubes
        )

    def _draw_crop(self, seed, boxes, mask, size) -> tf.Tensor:
        choose, draw = tf.unstack(tf.random.split(seed, 2))
        target = slice(self._window.before, self._window.before + self._window.clip_frames)
        drawn = augmentation.draw_crop(draw, boxes[:, target], mask[:, target], size, self._augment)
        whole = tf.concat([[0, 0], size], axis=0)
        return tf.where(_happens(choose, self._augment.crop), drawn, whole)

    def _recolour(self, seed, frames) -> tf.Tensor:
        if not self._augment.photometric:
            return frames
        choose, draw = tf.unstack(tf.random.split(seed, 2))

        def recoloured():
            mean = tf.reduce_mean(frames, axis=[0, 1, 2])
            return pixels.recolour(frames, *augmentation.draw_colours(draw, mean, self._augment))

        return tf.cond(_happens(choose, self._augment.photometric), recoloured, lambda: frames)

    def _erase(self, seed, frames, boxes, mask) -> tf.Tensor:
        if not self._augment.erase:
            return frames
        choose, draw = tf.unstack(tf.random.split(seed, 2))
        rectangle = augmentation.draw_rectangle(draw, boxes, mask, self._augment)
        happens = _happens(choose, self._augment.erase)
        return tf.cond(happens, lambda: augmentation.erase(frames, rectangle), lambda: frames)

    def _assemble(self, example, clip, window_targets: targets.Targets) -> dict[str, tf.Tensor]:
        boxes, mask, labels = window_targets
        tube_mask = targets.tubes_in_target(
            mask,
            example["num_frames"],
            window=self._window,
            min_target_frames=self._min_target_frames,
        )
        clip_shape = [self._window.input_frames, self._image_size, self._image_size, 3]
        return {
            "clips": tf.ensure_shape(clip, clip_shape),
            "boxes": boxes * self._image_size,
            "box_mask": mask,
            "labels": labels,
            "tube_mask": tube_mask,
        }


def _happens(seed: tf.Tensor, probability: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed) < probability
