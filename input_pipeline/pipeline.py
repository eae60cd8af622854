"""Batches of windows, for training without end and for evaluation once each.

Training: every epoch goes once through the records that have a window to draw and draws one window
of each. What is drawn, and how it is augmented, depends on (seed, epoch, record); the order on
(seed, epoch). The stream runs on from epoch to epoch, so that every batch is full, and starts at
any step without decoding what came before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import augment as augmentation
from input_pipeline import clips, pixels, records, targets
from input_pipeline.augment import Augment
from input_pipeline.clips import WindowShape
from input_pipeline.records import RecordsIndex
from step_jax.errors import InputError

SHUFFLE_BYTES = 256 << 20
FILES_AT_ONCE = 8
BACKGROUNDS = ("keep", "skip")

Batch = dict[str, np.ndarray]


def train_batches(
    records_dir: str | os.PathLike,
    *,
    split: str,
    clip_frames: int,
    input_frames: int,
    image_size: int,
    max_tubes: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment | None = None,
    background: str = "keep",
    min_target_frames: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    shuffle_bytes: int = SHUFFLE_BYTES,
    num_threads: int | None = None,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """An endless stream of training batches.

    Args:
      records_dir: a folder that `input_pipeline.prepare` made.
      split: one of its splits.
      clip_frames, input_frames: K of the target clip and T of the network's input.
      image_size: S; frames are squeezed to S x S.
      max_tubes: G; more tubes in a window are an error here, not a surprise later.
      batch_size: windows a batch, of this process.
      seed: of order, windows and augmentation.
      start_step: the first batch, counted from the stream's beginning.
      augment: None does nothing.
      background: "skip" draws only windows with a tube present in the target clip, "keep" any.
      min_target_frames: a tube is present in the target clip if it has boxes in so many of its
        frames; None means in all of them.
      process_index, process_count: which part of the records is this process's.
      shuffle_bytes: memory for the shuffle buffer.
      num_threads: of decoding; None takes one a core.
      prefetch: batches made ahead.

    Yields dicts with
      clips: uint8 [B, T, S, S, 3] RGB.
      boxes: float32 [B, G, T, 4], pixels of the S x S frames, 0 where there is none.
      box_mask: bool [B, G, T]. False in frames that repeat the video's edge.
      labels: float32 [B, G, C] multi-hot, zeros in padding.
      tube_mask: bool [B, G], the tubes that are present in the target clip. Others may have boxes,
        in the frames around it or in too few of its frames; they have labels too.

    Raises InputError, at once where the records or the options are wrong, or while iterating for a
    record that cannot be read.
    """
    info = records.load_info(records_dir)
    index = records.load_index(records_dir, split)
    window = WindowShape(clip_frames, input_frames)
    window.check_halo(info, records_dir)
    if background not in BACKGROUNDS:
        raise InputError(f"background is {background!r}; expected one of {BACKGROUNDS}")
    min_target_frames = _check_min_target_frames(min_target_frames, window)
    table = clips.window_table(index, window, min_target_frames=min_target_frames)
    eligible = table.valid if background == "keep" else table.occupied
    clips.check_max_tubes(table, index, eligible, max_tubes=max_tubes, split=split)
    plan = EpochPlan(
        index=index,
        eligible=eligible,
        share=process_share(index.num_records, process_index, process_count),
        seed=seed,
    )
    make = WindowMaker(
        features=records.load_features(records_dir),
        window=window,
        image_size=image_size,
        max_tubes=max_tubes,
        min_target_frames=min_target_frames,
        augment=augment or Augment(),
        classes=info.classes,
    )
    buffer = _buffer_size(info.splits[split], plan.num_drawn, shuffle_bytes)

    def drawn(step: int) -> tf.data.Dataset:
        return _drawn_records(plan, position=step * batch_size, shuffle_buffer=buffer)

    dataset = drawn(start_step).map(make, num_parallel_calls=_parallel(num_threads))
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(prefetch)
    dataset = dataset.with_options(_options(num_threads))

    def culprit(num_done: int) -> str:
        return _find_culprit(drawn(start_step + num_done).take(batch_size), make, index)

    return _named_errors(dataset, culprit)


def eval_batches(
    records_dir: str | os.PathLike,
    *,
    split: str,
    clip_frames: int,
    input_frames: int,
    stride: int,
    image_size: int,
    max_tubes: int,
    batch_size: int,
    min_target_frames: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Every window of the split's grid once, in a fixed order.

    The arguments are those of `train_batches`, and `stride`, the step of the grid
    (`clips.window_starts`).
    All processes yield the same number of batches, the last of them padded.

    Yields what `train_batches` does, and
      example_mask: bool [B], False for padding.
      video: str [B]; start, num_frames, width, height: int32 [B], the window's first frame and
        its video's length and frame size in the annotation.
    """
    info = records.load_info(records_dir)
    index = records.load_index(records_dir, split)
    window = WindowShape(clip_frames, input_frames)
    window.check_halo(info, records_dir)
    if stride < 1:
        raise InputError(f"stride is {stride}; expected 1 or more")
    min_target_frames = _check_min_target_frames(min_target_frames, window)
    table = clips.window_table(index, window, min_target_frames=min_target_frames)
    grid = clips.grid_windows(index, clip_frames=clip_frames, stride=stride)
    clips.check_max_tubes(table, index, grid, max_tubes=max_tubes, split=split)
    make = WindowMaker(
        features=records.load_features(records_dir),
        window=window,
        image_size=image_size,
        max_tubes=max_tubes,
        min_target_frames=min_target_frames,
        augment=Augment(),
        classes=info.classes,
    )
    owned = GridPlan(index=index, grid=grid)
    shares = [
        process_share(index.num_records, process, process_count) for process in range(process_count)
    ]
    chosen = _read_records(index, shares[process_index]).filter(owned.has_windows)
    dataset = chosen.map(
        lambda record, serialized: make.windows(record, serialized, owned.starts(record)),
        num_parallel_calls=_parallel(num_threads),
    ).flat_map(make.split_windows)
    dataset = dataset.batch(batch_size).prefetch(prefetch).with_options(_options(num_threads))
    num_batches = max(-(-owned.num_windows(share) // batch_size) for share in shares)

    def culprit(num_done: int) -> str:
        del num_done
        return _find_culprit(
            chosen,
            lambda record, serialized: make.windows(record, serialized, owned.starts(record)),
            index,
        )

    batches = _named_errors(dataset, culprit)
    return _pad_batches(batches, dataset.element_spec, index, batch_size, num_batches)


# --- plans ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """What an epoch draws: a pure function of (seed, epoch), the same on every process.

    eligible: bool [F], the starts that may be drawn. share: the records of this process.
    """

    index: RecordsIndex
    eligible: np.ndarray
    share: range
    seed: int

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more")
        if not self.num_drawn:
            raise InputError(
                "no record of this process has a window to draw; check the split's tubes, "
                "`background` and `min_target_frames`, or use fewer processes"
            )

    @property
    def num_drawn(self) -> int:
        """Windows an epoch, of this process."""
        _, count = clips.core_counts(self.index, self.eligible)
        return int((count[self.share.start : self.share.stop] > 0).sum())

    def draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One epoch's draw.

        Returns starts int32 [R] (clips.NO_WINDOW where there is none), seeds int64 [R, 2] of the
        augmentation, and seeds int64 [] for the order of the files and of the shuffle buffer.
        """
        bits = np.random.Philox(key=np.array([self.seed, epoch], np.uint64))
        random = np.random.Generator(bits)
        num_records = self.index.num_records
        starts = clips.draw_starts(self.index, self.eligible, random.random(num_records))
        seeds = random.integers(0, 2**62, (num_records, 2))
        file_seed, shuffle_seed = random.integers(0, 2**62, 2)
        return starts, seeds, file_seed, shuffle_seed


@dataclass(frozen=True, eq=False)
class GridPlan:
    """Which windows of the grid each record owns: those that start in its core."""

    index: RecordsIndex
    grid: np.ndarray

    def num_windows(self, share: range) -> int:
        """Windows of some records."""
        _, count = clips.core_counts(self.index, self.grid)
        return int(count[share.start : share.stop].sum())

    def has_windows(self, record: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        """Whether a record owns any, in the graph."""
        del serialized
        _, count = clips.core_counts(self.index, self.grid)
        return tf.gather(tf.constant(count), record) > 0

    def starts(self, record: tf.Tensor) -> tf.Tensor:
        """int32 [n]: the starts of a record's windows, in the graph."""
        first, count = clips.core_counts(self.index, self.grid)
        flat = np.flatnonzero(self.grid)
        video = np.searchsorted(self.index.video_offset, flat, side="right") - 1
        starts = tf.constant((flat - self.index.video_offset[video]).astype(np.int32))
        begin = tf.gather(tf.constant(first), record)
        return starts[begin : begin + tf.gather(tf.constant(count), record)]


def process_share(num_records: int, process_index: int, process_count: int) -> range:
    """The records of one process: consecutive, so that it reads no other's files in vain."""
    if not 0 <= process_index < process_count <= num_records:
        raise InputError(
            f"process {process_index} of {process_count} and {num_records} records; "
            "expected 0 <= index < count <= records"
        )
    return range(
        num_records * process_index // process_count,
        num_records * (process_index + 1) // process_count,
    )


# --- reading --------------------------------------------------------------------------------------


def _read_records(
    index: RecordsIndex, share: range, file_seed: tf.Tensor | None = None
) -> tf.data.Dataset:
    """(record, bytes) of a range of records, several files at once in a fixed order."""
    parts = []
    for shard in index.shards:
        first = max(share.start, shard.first_record)
        stop = min(share.stop, shard.first_record + shard.num_records)
        if first < stop:
            parts.append((shard.path, first, stop, first - shard.first_record))
    files = tuple(np.array(column) for column in zip(*parts, strict=True))
    dataset = tf.data.Dataset.from_tensor_slices(files)
    if file_seed is not None:
        dataset = dataset.shuffle(len(parts), seed=file_seed)

    def read(path, first, stop, skip):
        numbers = tf.data.Dataset.range(first, stop)
        return tf.data.Dataset.zip((numbers, tf.data.TFRecordDataset(path).skip(skip)))

    return dataset.interleave(
        read,
        cycle_length=min(len(parts), FILES_AT_ONCE),
        num_parallel_calls=min(len(parts), FILES_AT_ONCE),
        deterministic=True,
    )


def _drawn_records(plan: EpochPlan, *, position: int, shuffle_buffer: int) -> tf.data.Dataset:
    """(record, bytes, start, seed [2]) of all epochs one after the other, from a position on."""
    first_epoch, skipped = divmod(position, plan.num_drawn)

    def epoch_records(epoch):
        starts, seeds, file_seed, shuffle_seed = tf.numpy_function(
            plan.draw, [epoch], [tf.int32, tf.int64, tf.int64, tf.int64], stateful=False
        )
        starts.set_shape([plan.index.num_records])
        seeds.set_shape([plan.index.num_records, 2])
        file_seed.set_shape([])
        shuffle_seed.set_shape([])
        return (
            _read_records(plan.index, plan.share, file_seed)
            .filter(lambda record, serialized: starts[record] != clips.NO_WINDOW)
            .shuffle(shuffle_buffer, seed=shuffle_seed)
            .map(lambda record, serialized: (record, serialized, starts[record], seeds[record]))
        )

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(epoch_records).skip(skipped)


def _buffer_size(split: records.SplitInfo, num_drawn: int, shuffle_bytes: int) -> int:
    record_bytes = max(1, split.num_bytes // split.num_records)
    return int(np.clip(shuffle_bytes // record_bytes, 1, num_drawn))


def _parallel(num_threads: int | None) -> int:
    return num_threads or os.cpu_count() or 1


def _options(num_threads: int | None) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = _parallel(num_threads)
    options.threading.max_intra_op_parallelism = 1
    return options


# --- making windows -------------------------------------------------------------------------------


class WindowMaker:
    """Makes windows of records' bytes, in the graph."""

    def __init__(
        self,
        *,
        features: tfds.features.FeaturesDict,
        window: WindowShape,
        image_size: int,
        max_tubes: int,
        min_target_frames: int,
        augment: Augment,
        classes: tuple[str, ...],
    ):
        self._features = features
        self._window = window
        self._image_size = image_size
        self._max_tubes = max_tubes
        self._min_target_frames = min_target_frames
        self._augment = augment
        self._flipped_label = augmentation.flip_permutation(classes, augment.flip_swaps)

    def __call__(self, record, serialized, start, seed) -> dict[str, tf.Tensor]:
        """The augmented window at `start` (int32 []) of a record; `seed` int64 [2]."""
        del record
        example = self._parse(serialized)
        jpegs, positions = self._input_frames(example, start[None])
        size = pixels.frame_size(jpegs)
        flip_seed, crop_seed, colour_seed, erase_seed = tf.unstack(tf.random.split(seed, 4))
        boxes, mask, labels = self._targets(example, start)
        crop = self._draw_crop(crop_seed, boxes, mask, size)
        boxes, mask = augmentation.crop_boxes(boxes, mask, crop, size)
        frames = pixels.resize(pixels.decode_crop(jpegs, crop), self._image_size)
        flip = _happens(flip_seed, self._augment.flip)
        frames = self._recolour(colour_seed, frames)
        frames = tf.cond(flip, lambda: frames[:, :, ::-1], lambda: frames)
        boxes = tf.where(flip & mask[..., None], augmentation.flip_boxes(boxes), boxes)
        labels = tf.where(flip, tf.gather(labels, self._flipped_label, axis=1), labels)
        frames = self._erase(erase_seed, pixels.to_uint8(frames), boxes, mask)
        return self._assemble(
            example, tf.gather(frames, positions[0]), targets.Targets(boxes, mask, labels)
        )

    def windows(self, record, serialized, starts) -> tuple:
        """All windows of one record: what `split_windows` takes; frames are decoded once."""
        example = self._parse(serialized)
        jpegs, positions = self._input_frames(example, starts)
        crop = tf.concat([[0, 0], pixels.frame_size(jpegs)], axis=0)
        frames = pixels.to_uint8(pixels.resize(pixels.decode_crop(jpegs, crop), self._image_size))
        del example["frames"]
        return record, example, frames, positions, starts

    def split_windows(self, record, example, frames, positions, starts) -> tf.data.Dataset:
        """The windows that `windows` made of a record, one by one."""

        def window(position, start):
            window_targets = self._targets(example, start)
            made = self._assemble(example, tf.gather(frames, position), window_targets)
            return made | {"record": record, "start": start}

        return tf.data.Dataset.from_tensor_slices((positions, starts)).map(window)

    def _parse(self, serialized) -> dict[str, tf.Tensor]:
        skip = {"frames": tfds.decode.SkipDecoding()}
        return self._features.deserialize_example(serialized, decoders=skip)

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
        whole = tf.concat([[0, 0], size], axis=0)
        if not self._augment.crop:
            return whole
        target = slice(self._window.before, self._window.before + self._window.clip_frames)
        choose, draw = tf.unstack(tf.random.split(seed, 2))
        drawn = augmentation.draw_crop(draw, boxes[:, target], mask[:, target], size, self._augment)
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


def _check_min_target_frames(value: int | None, window: WindowShape) -> int:
    if value is None:
        return window.clip_frames
    if not 1 <= value <= window.clip_frames:
        raise InputError(f"min_target_frames is {value}; expected 1 to {window.clip_frames}")
    return value


# --- handing out ----------------------------------------------------------------------------------


def _named_errors(dataset: tf.data.Dataset, culprit: Callable[[int], str]) -> Iterator[Batch]:
    """The batches as numpy; an error of a record becomes an InputError that names it."""
    num_done = 0
    try:
        for batch in dataset.as_numpy_iterator():
            yield batch
            num_done += 1
    except tf.errors.OpError as error:
        raise InputError(f"{culprit(num_done)}: {_first_line(error)}") from error


def _find_culprit(chosen: tf.data.Dataset, make: Callable, index: RecordsIndex) -> str:
    """Which of some records cannot be read: reads them again, one by one."""
    try:
        for record, *rest in chosen:
            try:
                make(record, *rest)
            except tf.errors.OpError:
                return index.record_name(int(record))
    except tf.errors.OpError:
        for shard in index.shards:
            try:
                tf.data.TFRecordDataset(shard.path).reduce(0, lambda count, _: count + 1)
            except tf.errors.OpError:
                return f"{shard.path}: damaged, build the records again"
    return "the records cannot be read"


def _first_line(error: tf.errors.OpError) -> str:
    return (error.message or type(error).__name__).splitlines()[0]


def _pad_batches(
    batches: Iterator[Batch], spec: dict, index: RecordsIndex, batch_size: int, num_batches: int
) -> Iterator[Batch]:
    """Fills the last batch, adds empty ones up to `num_batches`, and looks up the videos."""
    empty = {
        name: np.zeros((0, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype)
        for name, tensor in spec.items()
    }
    for _ in range(num_batches):
        batch = next(batches, empty)
        num_real = len(batch["start"])
        padding = batch_size - num_real
        batch = {
            name: np.concatenate([value, np.zeros((padding, *value.shape[1:]), value.dtype)])
            if padding
            else value
            for name, value in batch.items()
        }
        video = index.record_video[batch.pop("record")]
        yield batch | {
            "example_mask": np.arange(batch_size) < num_real,
            "video": index.video_ids[video],
            "num_frames": index.num_frames[video],
            "width": index.width[video],
            "height": index.height[video],
        }
