"""Batches of windows, for training without end and for evaluation once each.

Training: every epoch goes once through the records that have a window to draw and draws one window
of each; of AVA, where the keyframes are known, every one of them. What is drawn, and how it is
augmented, depends on (seed, epoch, record); the order on (seed, epoch). The stream runs on from
epoch to epoch, so that every batch is full, and starts at any step without decoding what came
before.

There may be several streams, each over its own part of the records, which fill every batch in
equal parts. Processes share them out. So the batches of all processes, side by side, are the same
however many processes there are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from input_pipeline import careful, clips, records
from input_pipeline.augment import Augment
from input_pipeline.careful import Batch
from input_pipeline.clips import WindowShape
from input_pipeline.damage import Batches, Damage, say
from input_pipeline.examination import Examination
from input_pipeline.identity import Identity
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
    stream_shares,
)
from input_pipeline.reading import FILES_AT_ONCE, read_records
from input_pipeline.records import RecordsIndex, RecordsInfo
from input_pipeline.salvage import Salvage
from input_pipeline.windows import WindowMaker
from step_jax.annotations.selection import matching
from step_jax.errors import InputError
from step_jax.modality import Modality

SHUFFLE_BYTES = 256 << 20  # the most memory that the shuffle buffer takes
# Of AVA's records, a few MB each with neighbouring keyframes, which are to be strangers in a batch.
KEYFRAME_SHUFFLE_BYTES = 1 << 30
MAX_SPREAD = 60  # frames between the first windows of a record that are decoded together
MOVIES_AT_ONCE = 16  # files read in turn where each is a movie: the shuffle buffer mixes them


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
    streams: int = 1,
    modality: str = "rgb",
    flow_frames: int = 5,
    augment: Augment | None = None,
    source_size: tuple[int, int] | None = None,
    background: str = "keep",
    min_target_frames: int | None = None,
    keyframes: KeyframeLabels | None = None,
    process_index: int = 0,
    process_count: int = 1,
    shuffle_records: int = 1024,
    num_threads: int = 0,
    prefetch: int = 2,
    max_damaged: int = 0,
    tell: Callable[[str], object] = say,
) -> Batches:
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
      streams: of all processes together, a multiple of their number. Each has a part of the
        records, epochs of its own, and an equal part of every batch.
      modality, flow_frames: what a clip's channels are, see `step_jax.modality`.
      augment: None does nothing.
      source_size: height and width of frames that the device resizes, instead of "clips" here: what
        `step_jax.source_clips.with_clips` makes them of. Smaller frames have zeros around them,
        larger ones are shrunk.
      background: "skip" draws only windows with a tube present in the target clip, "keep" any.
      min_target_frames: a tube is present in the target clip if it has boxes in so many of its
        frames; None means in all of them.
      keyframes: of AVA, whose records hold pixels alone: the windows, all of which are drawn in
        every epoch, and their tubes; `background` and `min_target_frames` have no meaning then.
      process_index, process_count: which part of the records is this process's.
      shuffle_records: held in the shuffle buffer of a stream, or fewer if they fill 256 MiB; of AVA
        windows, and 1 GiB.
      num_threads: of decoding; 0 takes one a core.
      prefetch: batches made ahead.
      max_damaged: damaged records, more than which are an error; windows that cannot be made of the
        others are blanks: all zeros. Each process counts those that it meets.
      tell: gets a line for each of them when it is first met.

    Yields dicts with
      clips: uint8 [B, T, S, S, channels]: RGB, then (x, y, magnitude) of the flow images.
      boxes: float32 [B, G, T, 4], pixels of the S x S frames, 0 where there is none.
      box_mask: bool [B, G, T]. False in frames that repeat the video's edge.
      labels: float32 [B, G, C] multi-hot, zeros in padding.
      tube_mask: bool [B, G], the tubes that are present in the target clip. Others may have boxes,
        in the frames around it or in too few of its frames; they have labels too.
      example_mask: bool [B], False for blanks.
      video: str [B]; start: int32 [B], the window's first frame.
    Its attribute `skipped` lists the windows in whose place there were blanks.

    Raises InputError, at once where the records or the options are wrong, or while iterating for a
    record that cannot be read.
    """
    window, kind = WindowShape(clip_frames, input_frames), Modality(modality, flow_frames)
    source = _Source.open(records_dir, split, window, kind, keyframes, max_damaged=max_damaged)
    shares = stream_shares(
        source.index.num_records,
        streams=streams,
        process_index=process_index,
        process_count=process_count,
        batch_size=batch_size,
    )
    min_target_frames = _check_min_target_frames(min_target_frames, clip_frames)
    if keyframes is None:
        table = clips.window_table(source.index, window, min_target_frames=min_target_frames)
        eligible = {"keep": table.valid, "skip": table.occupied}.get(background)
        if eligible is None:
            raise InputError(f"background is {background!r}; expected 'keep' or 'skip'")
        clips.check_max_tubes(table, source.index, eligible, max_tubes=max_tubes, split=split)
        whole = EpochPlan(index=source.index, eligible=eligible, share=shares[0], seed=seed)
        joined = None
    else:
        grid = source.keyframe_grid(keyframes)
        whole = EveryWindowPlan(grid=grid, share=shares[0], seed=seed)
        joined = source.people(keyframes, grid, max_tubes=max_tubes)
    make = source.maker(
        modality=kind,
        image_size=image_size,
        max_tubes=max_tubes,
        min_target_frames=min_target_frames,
        augment=augment or Augment(),
        joined=joined,
        source_size=source_size,
    )
    plans = [dataclasses.replace(whole, share=share) for share in shares]
    at_once = batch_size // len(plans)

    threads, damage = _threads(num_threads), source.damage(max_damaged, tell)

    def drawn(step: int, salvage: Salvage | None = None) -> tf.data.Dataset:
        every = [
            _drawn_records(
                plan,
                source.shards,
                position=step * at_once,
                shuffle_buffer=_shuffle_buffer(plan, shuffle_records, source.record_bytes),
                salvage=salvage,
            )
            for plan in plans
        ]
        return _in_turn(every, at_once)

    def batched(windows: tf.data.Dataset) -> tf.data.Dataset:
        batches = windows.batch(batch_size, drop_remainder=True).prefetch(prefetch)
        return batches.with_options(_options(num_threads))

    windows = drawn(start_step).map(make.train_window, num_parallel_calls=threads)

    def guarded(num_done: int) -> tf.data.Dataset:
        elements = drawn(start_step + num_done, damage.salvage)
        return batched(careful.train_windows(elements, make, windows.element_spec, threads=threads))

    batches = careful.iterate(batched(windows), guarded, damage, where=source.where)
    return Batches(_with_videos(batches, source.index), damage)


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
    max_damaged: int = 0,
    tell: Callable[[str], object] = say,
) -> Batches:
    """Every window of the split's grid once, in a fixed order.

    The arguments are those of `train_batches`, and `stride`, the step of the grid
    (`clips.window_starts`), and `videos`, a glob over their ids that limits it ("": all).
    With `keyframes` the grid is theirs, and there are no tubes where they name no people.
    All processes yield the same number of batches, the last of them padded; where there are more
    processes than records, some yield nothing else.

    Yields what `train_batches` does, and
      example_mask: bool [B], False for padding and for blanks, whose window the others tell.
      video: str [B]; start, num_frames, width, height: int32 [B], the window's first frame and
        its video's length and frame size in the annotation.
    """
    window, kind = WindowShape(clip_frames, input_frames), Modality(modality, flow_frames)
    source = _Source.open(records_dir, split, window, kind, keyframes, max_damaged=max_damaged)
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
    share = plan.share(process_index, process_count)
    threads, damage = _threads(num_threads), source.damage(max_damaged, tell)
    decoded = _owning_records(plan, source.shards, share).map(
        make.decode_record, num_parallel_calls=threads
    )
    windows = decoded.flat_map(make.split_windows)

    def batched(windows: tf.data.Dataset) -> tf.data.Dataset:
        return windows.batch(batch_size).prefetch(prefetch).with_options(_options(num_threads))

    def guarded(num_done: int) -> tf.data.Dataset:
        owned = _owning_records(plan, source.shards, share, salvage=damage.salvage)
        left = careful.without_first(owned, num_done * batch_size)
        specs = windows.element_spec, decoded.element_spec
        return batched(careful.eval_windows(left, make, *specs, threads=threads))

    batches = careful.iterate(batched(windows), guarded, damage, where=source.where)
    num_batches = _num_batches(plan, batch_size, process_count)
    empty = _empty_batch(windows.element_spec)
    return Batches(_pad_batches(batches, empty, source.index, batch_size, num_batches), damage)


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
        *,
        max_damaged: int,
    ) -> _Source:
        info = records.load_info(records_dir)
        check_kind(info, records_dir, joins_labels=keyframes is not None)
        info.check_modality(modality, records_dir)
        index = records.load_index(records_dir, split)
        if keyframes is None:
            window.check_halo(info, records_dir)
        record_bytes = max(1, info.splits[split].num_bytes // index.num_records)
        shards = records.shard_paths(records_dir, split, allow_missing=max_damaged > 0)
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
            identity=self.identity,
            **options,
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.index, self.info)

    def damage(self, max_damaged: int, tell: Callable[[str], object]) -> Damage:
        """An account of their damage."""
        return Damage(
            index=self.index,
            shards=self.shards,
            examination=Examination(self.info, self.identity),
            max_damaged=max_damaged,
            tell=tell,
        )


def _drawn_records(
    plan: EpochPlan | EveryWindowPlan,
    shards: list[tuple[str, int]],
    *,
    position: int,
    shuffle_buffer: int,
    salvage: Salvage | None = None,
) -> tf.data.Dataset:
    """(record, bytes, start, seed [2]) of all epochs one after the other, from a position on.

    A record with several windows comes once for each.
    """
    first_epoch, num_skipped = divmod(position, plan.num_drawn)
    shapes = EpochDraw([plan.num_windows], [plan.num_windows, 2], [], [])
    files_at_once = MOVIES_AT_ONCE if isinstance(plan, EveryWindowPlan) else FILES_AT_ONCE
    first, count = tf.constant(plan.first), tf.constant(plan.count)
    has_none, has_several = plan.count.min() < 1, plan.count.max() > 1

    def epoch_windows(epoch):
        types = [tf.int32, tf.int64, tf.int64, tf.int64]
        drawn = tf.numpy_function(plan.draw, [epoch], types, stateful=False)
        draw = EpochDraw(*map(tf.ensure_shape, drawn, shapes))

        def window(record, data):
            return record, data, draw.starts[first[record]], draw.seeds[first[record]]

        def windows(record, data):
            # The bytes are the same tensor in all windows of a record, and held once.
            own = slice(first[record], first[record] + count[record])
            rest = tf.data.Dataset.from_tensor_slices((draw.starts[own], draw.seeds[own]))
            return rest.map(lambda start, seed: (record, data, start, seed))

        files = {"file_seed": draw.file_seed, "files_at_once": files_at_once}
        found = read_records(shards, plan.share, salvage=salvage, **files)
        # Stages that are not needed are left out: a data set for each record takes half a
        # millisecond.
        if has_none:
            found = found.filter(lambda record, data: count[record] > 0)
        found = found.flat_map(windows) if has_several else found.map(window)
        return found.shuffle(shuffle_buffer, seed=draw.shuffle_seed, reshuffle_each_iteration=False)

    return (
        tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_windows).skip(num_skipped)
    )


def _in_turn(streams: list[tf.data.Dataset], at_once: int) -> tf.data.Dataset:
    """Elements of streams without end: so many of the first, of the second, ..., of the first."""
    if len(streams) == 1:
        return streams[0]
    turns = tf.data.Dataset.from_tensor_slices(np.repeat(np.arange(len(streams)), at_once))
    return tf.data.Dataset.choose_from_datasets(streams, turns.repeat())


def _shuffle_buffer(
    plan: EpochPlan | EveryWindowPlan, shuffle_records: int, record_bytes: int
) -> int:
    return max(1, min(shuffle_records, _most_windows(plan, record_bytes), plan.num_drawn))


def _most_windows(plan: EpochPlan | EveryWindowPlan, record_bytes: int) -> int:
    """How many windows in the shuffle buffer hold as many bytes of records as are allowed.

    A record's bytes go with the last of its n windows, which of n that are drawn at random stays
    1 + 1/2 + ... + 1/n times as long as any one: so much of a record is held for a window.
    """
    n = max(1, round(plan.count.sum() / max(1, np.count_nonzero(plan.count))))
    records_a_window = sum(1 / i for i in range(1, n + 1)) / n
    most = KEYFRAME_SHUFFLE_BYTES if isinstance(plan, EveryWindowPlan) else SHUFFLE_BYTES
    return int(most / (records_a_window * record_bytes))


def _owning_records(
    plan: GridPlan, shards: list[tuple[str, int]], share: range, *, salvage: Salvage | None = None
) -> tf.data.Dataset:
    """(record, bytes, starts [n]) of the records that own windows, MAX_SPREAD of them at a time."""
    starts, first, count = map(tf.constant, (plan.starts, plan.first, plan.count))

    def pieces(record, data):
        own = starts[first[record] :][: count[record]]
        piece = (own - own[0]) // (MAX_SPREAD + 1)
        numbers = tf.data.Dataset.from_tensor_slices(tf.unique(piece).y)
        return numbers.map(lambda number: (record, data, tf.boolean_mask(own, piece == number)))

    held = read_records(shards, share or range(1), salvage=salvage)
    owning = held.filter(lambda record, _: count[record] > 0)
    return (owning if share else owning.take(0)).flat_map(pieces)  # a share may have no records


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


def _with_videos(batches: Iterator[Batch], index: RecordsIndex) -> Iterator[Batch]:
    for batch in batches:
        record = batch.pop("record")
        yield batch | {"video": index.video_ids[index.record_video[record]]}


def _empty_batch(spec: dict[str, tf.TensorSpec]) -> Batch:
    """Of no windows; spec: of one."""
    return {
        name: np.zeros((0, *tensor.shape), tensor.dtype.as_numpy_dtype)
        for name, tensor in spec.items()
    } | {"example_mask": np.zeros(0, bool)}


def _pad_batches(
    batches: Iterator[Batch], empty: Batch, index: RecordsIndex, batch_size: int, num_batches: int
) -> Iterator[Batch]:
    """Fills the last batch, adds empty ones up to `num_batches`, and looks up the videos."""
    for _ in range(num_batches):
        batch = next(batches, empty)
        if len(batch["start"]) < batch_size:
            batch = {name: _pad(value, batch_size) for name, value in batch.items()}
        video = index.record_video[batch.pop("record")]
        yield batch | {
            "video": index.video_ids[video],
            "num_frames": index.num_frames[video],
            "width": index.width[video],
            "height": index.height[video],
        }


def _pad(value: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([value, np.zeros((length - len(value), *value.shape[1:]), value.dtype)])
