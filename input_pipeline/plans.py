"""Which windows are made of which records, on which process.

Known before anything is read, from the index alone, and the same on every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from input_pipeline import clips
from input_pipeline.records import RecordsIndex
from step_jax.errors import InputError


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


def stream_shares(
    num_records: int, *, streams: int, process_index: int, process_count: int, batch_size: int
) -> list[range]:
    """The records of each stream that a process reads, one after the other.

    A stream's part of the records and of every batch depends on the number of streams alone, not
    on that of processes. `batch_size` is of this process. Raises InputError where streams do not
    divide over processes, or a batch not over streams.
    """
    if streams > num_records:
        raise InputError(f"data.streams is {streams}; expected at most {num_records}, the records")
    if streams < 1 or streams % process_count:
        raise InputError(
            f"data.streams is {streams} and there are {process_count} processes; expected a "
            f"multiple, e.g. {max(1, streams // process_count) * process_count}. With another "
            "value a run draws other batches: it is chosen once, at the start"
        )
    own = streams // process_count
    if batch_size % own:
        raise InputError(
            f"data.streams is {streams}: a batch of {batch_size * process_count} does not divide "
            "over the streams; expected a multiple of them"
        )
    first = process_index * own
    return [process_share(num_records, each, streams) for each in range(first, first + own)]


class EpochDraw(NamedTuple):
    """What one epoch does with the R records of a split; its plan says which windows are whose.

    starts: int32 [W], the first frames of windows; clips.NO_WINDOW of a record without any.
    seeds: int64 [W, 2], of their augmentation.
    file_seed, shuffle_seed: int64 [], of the order of the files and of the shuffle buffer.
    """

    starts: np.ndarray
    seeds: np.ndarray
    file_seed: np.ndarray
    shuffle_seed: np.ndarray


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """Training: one window of each record that has one, a function of (seed, epoch, record).

    eligible: bool [F], the starts that may be drawn. share: the records of this stream.
    first, count: int64 [R], which windows of a draw are each record's: its own, if it has one.
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
                "no record of a stream has a window to draw; check the split's tubes, "
                "`background` and `min_target_frames`, or use fewer streams"
            )

    @cached_property
    def first(self) -> np.ndarray:
        return np.arange(self.index.num_records)

    @cached_property
    def count(self) -> np.ndarray:
        _, eligible = clips.core_counts(self.index, self.eligible)
        return (eligible > 0).astype(np.int64)

    @property
    def num_windows(self) -> int:
        """W of a draw."""
        return self.index.num_records

    @cached_property
    def num_drawn(self) -> int:
        """Windows an epoch, of this stream."""
        return int(self.count[self.share.start : self.share.stop].sum())

    def draw(self, epoch: int) -> EpochDraw:
        """One epoch's draw, the same on every process."""
        random = _epoch_generator(self.seed, epoch)
        num_records = self.index.num_records
        starts = clips.draw_starts(self.index, self.eligible, random.random(num_records))
        seeds = random.integers(0, 2**62, (num_records, 2))
        return EpochDraw(starts, seeds, *random.integers(0, 2**62, 2))


@dataclass(frozen=True, eq=False)
class EveryWindowPlan:
    """Training: every window of a grid once an epoch; what is done to it depends on (seed, epoch).

    grid: the windows, of all records. share: the records of this stream.
    """

    grid: GridPlan
    share: range
    seed: int

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more")
        if not self.num_drawn:
            raise InputError("no record of a stream has a window; use fewer streams")

    @property
    def first(self) -> np.ndarray:
        return self.grid.first

    @property
    def count(self) -> np.ndarray:
        return self.grid.count

    @property
    def num_windows(self) -> int:
        """W of a draw."""
        return len(self.grid.starts)

    @cached_property
    def num_drawn(self) -> int:
        """Windows an epoch, of this stream."""
        return self.grid.num_windows(self.share)

    def draw(self, epoch: int) -> EpochDraw:
        """One epoch's draw, the same on every process."""
        random = _epoch_generator(self.seed, epoch)
        seeds = random.integers(0, 2**62, (self.num_windows, 2))
        return EpochDraw(self.grid.starts, seeds, *random.integers(0, 2**62, 2))


@dataclass(frozen=True, eq=False)
class GridPlan:
    """Evaluation: every window of the grid, from the record whose core it starts in.

    starts: int32 [W] of all windows, those of a record side by side. first, count: int64 [R], which
    of them are each record's.
    """

    starts: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, index: RecordsIndex, grid: np.ndarray) -> GridPlan:
        """The plan of a grid, bool [F]."""
        flat = np.flatnonzero(grid)
        video = np.searchsorted(index.video_offset, flat, side="right") - 1
        starts = (flat - index.video_offset[video]).astype(np.int32)
        return cls(starts, *clips.core_counts(index, grid))

    def share(self, process_index: int, process_count: int) -> range:
        """The records of one process: consecutive, with as many windows as others', or nearly.

        Without any where there are more processes than records. Raises InputError for an index that
        is not below the count.
        """
        if not 0 <= process_index < process_count:
            raise InputError(
                f"process {process_index} of {process_count}; expected 0 <= index < count"
            )
        before = np.cumsum(self.count) - self.count  # windows of the records before each
        bounds = -(-len(self.starts) * np.arange(1, process_count) // process_count)
        records = [0, *np.searchsorted(before, bounds).tolist(), len(self.count)]
        return range(records[process_index], records[process_index + 1])

    def num_windows(self, share: range) -> int:
        """Windows of some of the records."""
        return int(self.count[share.start : share.stop].sum())


def _epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return np.random.Generator(bits)
