"""The account of damaged records: which were met, why they are, and how many are too many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from input_pipeline.examination import Examination
from input_pipeline.records import RecordsIndex
from input_pipeline.salvage import Salvage
from step_jax.errors import InputError

REMEDY = "copy the file again, or build the records again"


@dataclass(frozen=True)
class Skipped:
    """A window that was left out: its video, first frame and record, and what is wrong with it."""

    video: str
    start: int
    record: int
    reason: str


class Damage:
    """What one process meets in the records of a split.

    skipped: the windows that were left out of the batches handed out so far, one each time.
    """

    def __init__(
        self,
        *,
        index: RecordsIndex,
        shards: Sequence[tuple[str, int]],
        examination: Examination,
        max_damaged: int,
        tell: Callable[[str], object],
    ):
        """max_damaged: records, more than which are an error. tell: gets a line for each of them.

        Raises InputError for a negative `max_damaged`."""
        if max_damaged < 0:
            raise InputError(f"max_damaged is {max_damaged}; expected 0 or more")
        self.salvage = Salvage()
        self.skipped: list[Skipped] = []
        self._index = index
        self._shards = shards
        self._examination = examination
        self._max_damaged = max_damaged
        self._tell = tell
        self._reasons: dict[int | str, str] = {}  # by record, or file

    def skip(self, record: int, start: int, serialized: bytes, *, error: str):
        """Takes note of a window that cannot be made of a record's bytes, because of `error`.

        Raises InputError if the record is one too many.
        """
        if record not in self._reasons:
            reason = self.salvage.reasons.get(record)
            reason = reason or self._examination.find(record, serialized) or error
            self._meet(record, name_of(record, self._index, self._shards), reason)
        video = str(self._index.video_ids[self._index.record_video[record]])
        self.skipped.append(Skipped(video, start, record, self._reasons[record]))

    def note_surplus(self):
        """The same of files with more records than they should have, which counts as one."""
        for path, surplus in list(self.salvage.surplus.items()):
            if path not in self._reasons:
                expected = dict(self._shards)[path]
                reason = f"the file holds {expected + surplus} records, expected {expected}"
                self._meet(path, path, reason)

    def _meet(self, key: int | str, name: str, reason: str):
        self._reasons[key] = reason
        count, limit = len(self._reasons), self._max_damaged
        if count <= limit:
            self._tell(f"skipping {name}: {reason}; damaged record {count} of at most {limit}")
        elif limit:
            raise InputError(
                f"{name}: {reason}; this is damaged record {count}, data.max_damaged is {limit}: "
                f"{REMEDY}, or allow more"
            )
        else:
            raise InputError(
                f"{name}: {reason}; {REMEDY}, or set data.max_damaged to go on without so many "
                "damaged records"
            )


class Batches(Iterator):
    """Batches, and the windows that were left out of those handed out so far."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]], damage: Damage):
        self._batches = batches
        self.skipped = damage.skipped

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._batches)


def name_of(record: int, index: RecordsIndex, shards: Sequence[tuple[str, int]]) -> str:
    """How messages name a record: its file, its place there, its video and frames."""
    stops = np.cumsum([count for _, count in shards])
    shard = int(np.searchsorted(stops, record, side="right"))
    path, count = shards[shard]
    place = record - (stops[shard] - count)
    video = str(index.video_ids[index.record_video[record]])
    frames = f"frames {index.first_frame[record]} to {index.stop_frame[record] - 1}"
    return f"{path}: record {place} of {count}, counted from 0 (video {video!r}, {frames})"


def say(text: str):
    """Prints a line at once, also where what is printed goes into a file."""
    print(text, flush=True)
