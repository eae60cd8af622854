"""From a record's bytes to the window that the network sees, in TensorFlow's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline import augment as augmentation
from input_pipeline import builders, pixels, targets
from input_pipeline.augment import Augment
from input_pipeline.clip_pixels import ClipFinisher
from input_pipeline.clips import WindowShape
from input_pipeline.identity import Identity
from input_pipeline.jpeg_sizes import with_alike
from input_pipeline.source_clips import centres, fit
from step_jax.modality import Modality


class Images(NamedTuple):
    """What windows need of one kind of a record's images, "frames" or "flow".

    jpegs: string [n], each image once.
    places: int32 [windows, T, F], where in them the F images are that an input frame reads.
    """

    jpegs: tf.Tensor
    places: tf.Tensor


class WindowMaker:
    """Makes windows of records' bytes, in the graph."""

    def __init__(
        self,
        *,
        window: WindowShape,
        modality: Modality,
        image_size: int,
        max_tubes: int,
        min_target_frames: int,
        augment: Augment,
        classes: tuple[str, ...],
        identity: Identity,
        joined: Callable[[int, int], tuple[np.ndarray, ...]] | None = None,
        source_size: tuple[int, int] | None = None,
    ):
        """identity: tells a record that is not the one of the index.
        source_size: height and width of the pictures of training clips that the device resizes
        (`step_jax.source_clips`); None: the clips come in the network's size.
        joined: looks up the targets of a window by its record and start, for records that hold
        pixels alone (`keyframes.PeopleOfWindows`); None: the records hold tubes."""
        # Images to read of each input frame, by kind, in the order of the channels.
        self._reads = {"frames": 1} if modality.has_rgb else {}
        self._reads |= {"flow": modality.flow_frames} if modality.has_flow else {}
        flow = modality.has_flow
        held = builders.features(len(classes), flow=flow)
        held = held if joined is None else builders.pixel_features(flow=flow)
        self._spec = held.tf_example_spec
        if not modality.has_rgb:
            del self._spec["frames"]
        self._window = window
        self._channels = modality.channels
        self._image_size = image_size
        self._max_tubes = max_tubes
        self._min_target_frames = min_target_frames
        self._augment = augment
        self._flipped_label = augmentation.flip_permutation(classes, augment.flip_swaps)
        self._finisher = ClipFinisher(self._reads, side=image_size)
        self._source_size = source_size
        self._identity = identity
        self._joined = joined
        self._num_classes = len(classes)

    def train_window(self, record, serialized, start, seed) -> dict[str, tf.Tensor]:
        """The augmented window at `start` (int32 []) of a record; `seed` int64 [2]."""
        example = self._parse(record, serialized)
        images = self._images(example, start[None])
        size = _size_of(images)
        flip_seed, crop_seed, colour_seed, erase_seed = tf.unstack(tf.random.split(seed, 4))
        boxes, mask, labels = self._targets(example, record, start)
        crop = tf.concat([[0, 0], size], axis=0)
        if self._augment.crop:
            crop = self._draw_crop(crop_seed, boxes, mask, size)
            boxes, mask = augmentation.crop_boxes(boxes, mask, crop, size)
        flip = _happens(flip_seed, self._augment.flip)
        boxes = tf.where(flip & mask[..., None], augmentation.flip_boxes(boxes), boxes)
        labels = tf.where(flip, tf.gather(labels, self._flipped_label, axis=1), labels)
        retouch = {
            "colours": self._draw_colours(colour_seed),
            "covered": self._draw_rectangle(erase_seed, boxes, mask),
        }
        make = self._source_clip if self._source_size else self._training_clip
        clip = make(images, crop, flip, **retouch)
        made = clip | self._assemble(example, targets.Targets(boxes, mask, labels))
        return made | {"record": record, "start": start}

    def decode_record(self, record, serialized, starts) -> tuple:
        """All windows of one record: what `split_windows` takes; images are decoded once."""
        example = self._parse(record, serialized)
        images = self._images(example, starts)
        pictures = self._decode(images)
        for kind in images:
            del example[kind]
        places = {kind: need.places for kind, need in images.items()}
        return record, example, pictures, places, starts

    def split_windows(self, record, example, pictures, places, starts) -> tf.data.Dataset:
        """The windows of a record that `decode_record` decoded, one by one."""

        def window(places, start):
            made = self._assemble(example, self._targets(example, record, start))
            named = {"record": record, "start": start}
            return {"clips": self._clip(pictures, places)} | made | named

        return tf.data.Dataset.from_tensor_slices((places, starts)).map(window)

    def _parse(self, record, serialized) -> dict[str, tf.Tensor]:
        # Not the features' own deserialize_example, which decodes all frames, or maps over them.
        example = tf.io.parse_single_example(serialized, self._spec)
        self._identity.check(record, example)
        return example

    def _images(self, example, starts) -> dict[str, Images]:
        """The images that windows need, by kind; those beyond the video's ends are its edges."""
        last = tf.cast(example["num_frames"], tf.int32) - 1
        first_kept = tf.cast(example["first_frame"], tf.int32)
        frame = starts[:, None] - self._window.before + tf.range(self._window.input_frames)
        frame = tf.clip_by_value(frame, 0, last)[..., None]
        images = {}
        for kind, count in self._reads.items():
            number = tf.minimum(frame + tf.range(count), last)
            low, high = tf.reduce_min(number), tf.reduce_max(number)
            jpegs = example[kind][low - first_kept : high - first_kept + 1]
            images[kind] = Images(jpegs, number - low)
        return images

    def _decode(self, images: dict[str, Images]) -> dict[str, tf.Tensor]:
        """Every image, whole, by kind: uint8 [n, S, S, 3]."""
        pictures = {}
        for kind, need in images.items():
            picture = pixels.resize(pixels.decode_whole(need.jpegs), self._image_size)
            pictures[kind] = pixels.to_uint8(picture)
        return pictures

    def _training_clip(self, images: dict[str, Images], crop, flip, colours, covered) -> dict:
        """The clip of the crop, in whole pixels of the first kind of images."""
        size, pictures = _size_of(images), []
        for kind, need in images.items():
            region = crop
            if kind == "flow" and len(images) > 1:  # which may have another size
                region = pixels.scale_crop(crop, size=size, to=pixels.frame_size(need.jpegs))
            pictures.append(pixels.decode_few(need.jpegs, self._most(kind), region))
        places = [need.places[0] for need in images.values()]
        jpegs = [need.jpegs for need in images.values()]
        finish = with_alike(self._finisher, len(jpegs))
        given = [*jpegs, flip, colours, covered, *pictures, *places]
        clip = tf.numpy_function(finish, given, tf.uint8, stateful=False)
        side = self._image_size
        shape = [self._window.input_frames, side, side, self._channels]
        return {"clips": tf.ensure_shape(clip, shape)}

    def _source_clip(self, images: dict[str, Images], crop, flip, colours, covered) -> dict:
        """What `step_jax.source_clips.with_clips` makes the clip of."""
        size, made = _size_of(images), {"covered": covered}
        for kind, need in images.items():
            own, most = pixels.frame_size(need.jpegs), self._most(kind)
            made[kind] = self._hold(pixels.decode_few(need.jpegs, most), most)
            made[f"{kind}_places"] = need.places[0]
            held = tf.minimum(own, self._source_size)
            rows, columns = tf.unstack(centres(crop, size, held, self._image_size))
            made[f"{kind}_rows"] = rows
            made[f"{kind}_columns"] = tf.where(flip, columns[::-1], columns)
        if "frames" in images:
            colours = tf.concat([colours, tf.eye(3, 5)], axis=0)[:3]
            made["colours"] = tf.ensure_shape(colours, [3, 5])
        return made

    def _hold(self, pictures: tf.Tensor, most: int) -> tf.Tensor:
        """uint8 [most, H, W, 3] of the pictures [n, h, w, 3], in the size that the device gets."""
        size = tf.constant(self._source_size)
        missing = most - tf.shape(pictures)[0]

        def fitted():
            return tf.numpy_function(fit, [pictures, size, missing], tf.uint8, stateful=False)

        fits = tf.reduce_all(tf.shape(pictures)[1:3] == size) & (missing == 0)
        pictures = tf.cond(fits, lambda: pictures, fitted)
        return tf.ensure_shape(pictures, [most, *self._source_size, 3])

    def _most(self, kind: str) -> int:
        """Images of a kind that a window reads, if none is beyond the video's ends."""
        return self._window.input_frames + self._reads[kind] - 1

    def _clip(self, pictures: dict[str, tf.Tensor], places: dict[str, tf.Tensor]) -> tf.Tensor:
        """uint8 [T, S, S, channels] of the images at `places` [T, F] of each kind."""
        parts = [
            tf.gather(pictures[kind], places[kind][:, number])
            for kind, count in self._reads.items()
            for number in range(count)
        ]
        return tf.concat(parts, axis=-1) if len(parts) > 1 else parts[0]

    def _targets(self, example, record, start) -> targets.Targets:
        if self._joined is not None:
            types = [tf.float32, tf.bool, tf.float32]
            found = tf.numpy_function(self._joined, [record, start], types, stateful=False)
            shape = [self._max_tubes, self._window.input_frames]
            shapes = [*shape, 4], shape, [self._max_tubes, self._num_classes]
            return targets.Targets(*map(tf.ensure_shape, found, shapes))
        return targets.window_targets(
            example, start, window=self._window, max_tubes=self._max_tubes
        )

    def _draw_crop(self, seed, boxes, mask, size) -> tf.Tensor:
        choose, draw = tf.unstack(tf.random.split(seed, 2))
        target = slice(self._window.before, self._window.before + self._window.clip_frames)
        drawn = augmentation.draw_crop(draw, boxes[:, target], mask[:, target], size, self._augment)
        whole = tf.concat([[0, 0], size], axis=0)
        return tf.where(_happens(choose, self._augment.crop), drawn, whole)

    def _draw_colours(self, seed) -> tf.Tensor:
        """float32 [3, 5], see `augment.draw_colours`, or [0, 5] where the colours stay."""
        if not self._augment.photometric:
            return tf.zeros([0, 5])
        choose, draw = tf.unstack(tf.random.split(seed, 2))
        drawn = augmentation.draw_colours(draw, self._augment)
        return drawn[: 3 * tf.cast(_happens(choose, self._augment.photometric), tf.int32)]

    def _draw_rectangle(self, seed, boxes, mask) -> tf.Tensor:
        """float32 [4], normalised: what is covered; empty where nothing is."""
        if not self._augment.erase:
            return tf.zeros([4])
        choose, draw = tf.unstack(tf.random.split(seed, 2))
        rectangle = augmentation.draw_rectangle(draw, boxes, mask, self._augment)
        return tf.where(_happens(choose, self._augment.erase), rectangle, 0.0)

    def _assemble(self, example, window_targets: targets.Targets) -> dict[str, tf.Tensor]:
        boxes, mask, labels = window_targets
        tube_mask = targets.tubes_in_target(
            mask,
            example["num_frames"],
            window=self._window,
            min_target_frames=self._min_target_frames,
        )
        return {
            "boxes": boxes * self._image_size,
            "box_mask": mask,
            "labels": labels,
            "tube_mask": tube_mask,
        }


def _size_of(images: dict[str, Images]) -> tf.Tensor:
    """int32 [2]: height and width of the first kind of images; crops are drawn in its pixels."""
    return pixels.frame_size(next(iter(images.values())).jpegs)


def _happens(seed: tf.Tensor, probability: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed) < probability
