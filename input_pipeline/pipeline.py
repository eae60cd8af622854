"""Batches of windows, for training without end and for evaluation once each.

Training: every epoch goes once through the records that have a window to draw and draws one window
of each; of AVA, where the keyframes are known, every one of them. What is drawn, and how it is
augmented, depends on (seed, epoch, record); the order on (seed, epoch). The stream runs on from
epoch to epoch, so that every batch is full, and starts at any step without decoding what came
before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from input_pipeline import clips, records
from input_pipeline.augment import Augment
from input_pipeline.clips import WindowShape
from input_pipeline.keyframes import (
    KeyframeLabels,
    PeopleOfWindows,
    check_kind,
    keyframe_windows,
)
from input_pipeline.plans import (
    EpochDraw,
    EpochPlan,
    EveryWindowPlan,
    GridPlan,
    process_share,
)
from input_pipeline.reading import FILES_AT_ONCE, find_damaged, read_records
from input_pipeline.records import RecordsIndex, RecordsInfo
from input_pipeline.windows import WindowMaker
from step_jax.annotations.selection import matching
from step_jax.errors import InputError
from step_jax.modality import Modality

SHUFFLE_BYTES = 256 << 20  # the most memory that the shuffle buffer takes
# Of AVA's records, a few MB each with neighbouring keyframes, which are to be strangers in a batch.
KEYFRAME_SHUFFLE_BYTES = 1 << 30
MAX_SPREAD = 60  # frames between the first windows of a record that are decoded together
MOVIES_AT_ONCE = 16  # files read in turn where each is a movie: the shuffle buffer mixes them

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
    modality: str = "rgb",
    flow_frames: int = 5,
    augment: Augment | None = None,
    background: str = "keep",
    min_target_frames: int | None = None,
    keyframes: KeyframeLabels | None = None,
    process_index: int = 0,
    process_count: int = 1,
    shuffle_records: int = 1024,
    num_threads: int = 0,
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
      modality, flow_frames: what a clip's channels are, see `step_jax.modality`.
      augment: None does nothing.
      background: "skip" draws only windows with a tube present in the target clip, "keep" any.
      min_target_frames: a tube is present in the target clip if it has boxes in so many of its
        frames; None means in all of them.
      keyframes: of AVA, whose records hold pixels alone: the windows, all of which are drawn in
        every epoch, and their tubes; `background` and `min_target_frames` have no meaning then.
      process_index, process_count: which part of the records is this process's.
      shuffle_records: held in the shuffle buffer, or fewer if they fill 256 MiB; of AVA windows,
        and 1 GiB.
      num_threads: of decoding; 0 takes one a core.
      prefetch: batches made ahead.

    Yields dicts with
      clips: uint8 [B, T, S, S, channels]: RGB, then (x, y, magnitude) of the flow images.
      boxes: float32 [B, G, T, 4], pixels of the S x S frames, 0 where there is none.
      box_mask: bool [B, G, T]. False in frames that repeat the video's edge.
      labels: float32 [B, G, C] multi-hot, zeros in padding.
      tube_mask: bool [B, G], the tubes that are present in the target clip. Others may have boxes,
        in the frames around it or in too few of its frames; they have labels too.

    Raises InputError, at once where the records or the options are wrong, or while iterating for a
    record that cannot be read.
    """
    window, kind = WindowShape(clip_frames, input_frames), Modality(modality, flow_frames)
    source = _Source.open(records_dir, split, window, kind, keyframes)
    share = process_share(source.index.num_records, process_index, process_count)
    min_target_frames = _check_min_target_frames(min_target_frames, clip_frames)
    if keyframes is None:
        table = clips.window_table(source.index, window, min_target_frames=min_target_frames)
        eligible = {"keep": table.valid, "skip": table.occupied}.get(background)
        if eligible is None:
            raise InputError(f"background is {background!r}; expected 'keep' or 'skip'")
        clips.check_max_tubes(table, source.index, eligible, max_tubes=max_tubes, split=split)
        plan = EpochPlan(index=source.index, eligible=eligible, share=share, seed=seed)
        joined = None
    else:
        grid = source.keyframe_grid(keyframes)
        plan = EveryWindowPlan(grid=grid, share=share, seed=seed)
        joined = source.people(keyframes, grid, max_tubes=max_tubes)
    make = source.maker(
        modality=kind,
        image_size=image_size,
        max_tubes=max_tubes,
        min_target_frames=min_target_frames,
        augment=augment or Augment(),
        joined=joined,
    )
    buffer = min(shuffle_records, _most_windows(plan, source.record_bytes), plan.num_drawn)

    def drawn(step: int) -> tf.data.Dataset:
        position = step * batch_size
        return _drawn_records(plan, source.shards, position=position, shuffle_buffer=max(1, buffer))

    dataset = drawn(start_step).map(make.train_window, num_parallel_calls=_threads(num_threads))
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(prefetch)

    def find_culprit(num_done: int) -> str:
        failed = drawn(start_step + num_done).take(batch_size)
        return _find_culprit(failed, make.train_window, source)

    return _iterate(dataset.with_options(_options(num_threads)), find_culprit)


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
    modality: str = "rgb",
    flow_frames: int = 5,
    videos: str = "",
    min_target_frames: int | None = None,
    keyframes: KeyframeLabels | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 0,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Every window of the split's grid once, in a fixed order.

    The arguments are those of `train_batches`, and `stride`, the step of the grid
    (`clips.window_starts`), and `videos`, a glob over their ids that limits it ("": all).
    With `keyframes` the grid is theirs, and there are no tubes where they name no people.
    All processes yield the same number of batches, the last of them padded; where there are more
    processes than records, some yield nothing else.

    Yields what `train_batches` does, and
      example_mask: bool [B], False for padding.
      video: str [B]; start, num_frames, width, height: int32 [B], the window's first frame and
        its video's length and frame size in the annotation.
    """
    window, kind = WindowShape(clip_frames, input_frames), Modality(modality, flow_frames)
    source = _Source.open(records_dir, split, window, kind, keyframes)
    min_target_frames = _check_min_target_frames(min_target_frames, clip_frames)
    if keyframes is None:
        table = clips.window_table(source.index, window, min_target_frames=min_target_frames)
        grid = _grid(source.index, clip_frames=clip_frames, stride=stride, videos=videos)
        clips.check_max_tubes(table, source.index, grid, max_tubes=max_tubes, split=split)
        plan, joined = GridPlan.of(source.index, grid), None
    else:
        plan = source.keyframe_grid(keyframes, videos=videos)
        joined = source.people(keyframes, plan, max_tubes=max_tubes)
    make = source.maker(
        modality=kind,
        image_size=image_size,
        max_tubes=max_tubes,
        min_target_frames=min_target_frames,
        augment=Augment(),
        joined=joined,
    )
    owned = _owning_records(plan, source.shards, plan.share(process_index, process_count))
    dataset = owned.map(make.decode_record, num_parallel_calls=_threads(num_threads))
    dataset = dataset.flat_map(make.split_windows).batch(batch_size).prefetch(prefetch)

    def find_culprit(num_done: int) -> str:
        del num_done  # windows, not records: look from the beginning
        return _find_culprit(owned, make.decode_record, source)

    batches = _iterate(dataset.with_options(_options(num_threads)), find_culprit)
    num_batches = _num_batches(plan, batch_size, process_count)
    empty = _empty_batch(dataset.element_spec)
    return _pad_batches(batches, empty, source.index, batch_size, num_batches)


def num_eval_batches(
    records_dir: str | os.PathLike,
    *,
    split: str,
    clip_frames: int,
    stride: int,
    batch_size: int,
    videos: str = "",
    keyframes: KeyframeLabels | None = None,
    process_count: int = 1,
) -> int:
    """How many batches `eval_batches` yields, for a progress bar."""
    index = records.load_index(records_dir, split)
    if keyframes is None:
        grid = _grid(index, clip_frames=clip_frames, stride=stride, videos=videos)
        plan = GridPlan.of(index, grid)
    else:
        info = records.load_info(records_dir)
        options = {"clip_frames": clip_frames, "videos": videos, "where": records_dir}
        plan = keyframe_windows(keyframes, index, info, **options).plan
    return _num_batches(plan, batch_size, process_count)


def _grid(index: RecordsIndex, *, clip_frames: int, stride: int, videos: str) -> np.ndarray:
    """bool [F]: the window grid of the videos that are chosen."""
    if stride < 1:
        raise InputError(f"stride is {stride}; expected 1 or more")
    grid = clips.grid_windows(index, clip_frames=clip_frames, stride=stride)
    return grid & np.repeat(matching(index.video_ids, videos), index.num_frames)


def _num_batches(plan: GridPlan, batch_size: int, process_count: int) -> int:
    """Of the process that has most windows; the others are padded to as many."""
    shares = (plan.share(each, process_count) for each in range(process_count))
    return max(-(-plan.num_windows(share) // batch_size) for share in shares)


# --- from records to elements ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
    """One split of a folder of records, checked against the shape of the windows."""

    where: str
    info: RecordsInfo
    index: RecordsIndex
    shards: list[tuple[str, int]]
    window: WindowShape
    record_bytes: int

    @classmethod
    def open(
        cls,
        records_dir: str | os.PathLike,
        split: str,
        window: WindowShape,
        modality: Modality,
        keyframes: KeyframeLabels | None,
    ) -> _Source:
        info = records.load_info(records_dir)
        check_kind(info, records_dir, joins_labels=keyframes is not None)
        info.check_modality(modality, records_dir)
        index = records.load_index(records_dir, split)
        if keyframes is None:
            window.check_halo(info, records_dir)
        record_bytes = max(1, info.splits[split].num_bytes // index.num_records)
        shards = records.shard_paths(records_dir, split)
        return cls(os.fspath(records_dir), info, index, shards, window, record_bytes)

    def keyframe_grid(self, keyframes: KeyframeLabels, *, videos: str = "") -> GridPlan:
        """The windows of AVA's keyframes."""
        options = {"clip_frames": self.window.clip_frames, "videos": videos, "where": self.where}
        return keyframe_windows(keyframes, self.index, self.info, **options).plan

    def people(
        self, keyframes: KeyframeLabels, grid: GridPlan, *, max_tubes: int
    ) -> PeopleOfWindows:
        """The tubes of those windows."""
        window = self.window
        return PeopleOfWindows(keyframes, grid, self.index, window=window, max_tubes=max_tubes)

    def maker(self, *, joined: PeopleOfWindows | None, min_target_frames: int, **options):
        """What makes windows of these records; the options are those of `WindowMaker`."""
        return WindowMaker(
            window=self.window,
            classes=self.info.classes if joined is None else joined.classes,
            joined=joined,
            # Of the target clip AVA annotates the keyframe.
            min_target_frames=min_target_frames if joined is None else 1,
            **options,
        )


def _drawn_records(
    plan: EpochPlan | EveryWindowPlan,
    shards: list[tuple[str, int]],
    *,
    position: int,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """(record, bytes, start, seed [2]) of all epochs one after the other, from a position on.

    A record with several windows comes once for each.
    """
    first_epoch, num_skipped = divmod(position, plan.num_drawn)
    shapes = EpochDraw([plan.num_windows], [plan.num_windows, 2], [], [])
    files_at_once = MOVIES_AT_ONCE if isinstance(plan, EveryWindowPlan) else FILES_AT_ONCE
    first, count = tf.constant(plan.first), tf.constant(plan.count)

    def epoch_windows(epoch):
        types = [tf.int32, tf.int64, tf.int64, tf.int64]
        drawn = tf.numpy_function(plan.draw, [epoch], types, stateful=False)
        draw = EpochDraw(*map(tf.ensure_shape, drawn, shapes))

        def windows(record, data):
            # The bytes are the same tensor in all windows of a record, and held once.
            own = slice(first[record], first[record] + count[record])
            rest = tf.data.Dataset.from_tensor_slices((draw.starts[own], draw.seeds[own]))
            return rest.map(lambda start, seed: (record, data, start, seed))

        files = {"file_seed": draw.file_seed, "files_at_once": files_at_once}
        return (
            read_records(shards, plan.share, **files)
            .filter(lambda record, data: count[record] > 0)
            .flat_map(windows)
            .shuffle(shuffle_buffer, seed=draw.shuffle_seed, reshuffle_each_iteration=False)
        )

    return (
        tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_windows).skip(num_skipped)
    )


def _most_windows(plan: EpochPlan | EveryWindowPlan, record_bytes: int) -> int:
    """How many windows in the shuffle buffer hold as many bytes of records as are allowed.

    A record's bytes go with the last of its n windows, which of n that are drawn at random stays
    1 + 1/2 + ... + 1/n times as long as any one: so much of a record is held for a window.
    """
    n = max(1, round(plan.count.sum() / max(1, np.count_nonzero(plan.count))))
    records_a_window = sum(1 / i for i in range(1, n + 1)) / n
    most = KEYFRAME_SHUFFLE_BYTES if isinstance(plan, EveryWindowPlan) else SHUFFLE_BYTES
    return int(most / (records_a_window * record_bytes))


def _owning_records(plan: GridPlan, shards: list[tuple[str, int]], share: range) -> tf.data.Dataset:
    """(record, bytes, starts [n]) of the records that own windows, MAX_SPREAD of them at a time."""
    starts, first, count = map(tf.constant, (plan.starts, plan.first, plan.count))

    def pieces(record, data):
        own = starts[first[record] :][: count[record]]
        piece = (own - own[0]) // (MAX_SPREAD + 1)
        numbers = tf.data.Dataset.from_tensor_slices(tf.unique(piece).y)
        return numbers.map(lambda number: (record, data, tf.boolean_mask(own, piece == number)))

    some = share or range(1)  # a share may be without records
    owning = read_records(shards, some).filter(lambda record, _: count[record] > 0)
    return owning.take(len(share)).flat_map(pieces)


def _check_min_target_frames(value: int | None, clip_frames: int) -> int:
    if value is None:
        return clip_frames
    if not 1 <= value <= clip_frames:
        raise InputError(f"min_target_frames is {value}; expected 1 to {clip_frames}")
    return value


def _threads(num_threads: int) -> int:
    return num_threads or os.cpu_count() or 1


def _options(num_threads: int) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = _threads(num_threads)
    options.threading.max_intra_op_parallelism = 1
    return options


# --- handing out ----------------------------------------------------------------------------------


def _iterate(dataset: tf.data.Dataset, find_culprit: Callable[[int], str]) -> Iterator[Batch]:
    """The batches as numpy; an error of a record becomes an InputError that names it."""
    num_done = 0
    try:
        for batch in dataset.as_numpy_iterator():
            yield batch
            num_done += 1
    except tf.errors.OpError as error:
        reason = (error.message or type(error).__name__).splitlines()[0]
        raise InputError(f"{find_culprit(num_done)}: {reason}; build the records again") from error


def _find_culprit(elements: tf.data.Dataset, make: Callable, source: _Source) -> str:
    """Which of some records cannot be read: reads them again, one by one."""
    try:
        for record, *rest in elements:
            try:
                make(record, *rest)
            except tf.errors.OpError:
                return source.index.record_name(int(record))
    except tf.errors.OpError:
        pass  # not a picture but a whole file
    return find_damaged(source.shards) or "the records"


def _empty_batch(spec: dict[str, tf.TensorSpec]) -> Batch:
    return {
        name: np.zeros((0, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype)
        for name, tensor in spec.items()
    }


def _pad_batches(
    batches: Iterator[Batch], empty: Batch, index: RecordsIndex, batch_size: int, num_batches: int
) -> Iterator[Batch]:
    """Fills the last batch, adds empty ones up to `num_batches`, and looks up the videos."""
    for _ in range(num_batches):
        batch = next(batches, empty)
        num_real = len(batch["start"])
        if num_real < batch_size:
            batch = {name: _pad(value, batch_size) for name, value in batch.items()}
        video = index.record_video[batch.pop("record")]
        yield batch | {
            "example_mask": np.arange(batch_size) < num_real,
            "video": index.video_ids[video],
            "num_frames": index.num_frames[video],
            "width": index.width[video],
            "height": index.height[video],
        }


def _pad(value: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([value, np.zeros((length - len(value), *value.shape[1:]), value.dtype)])
