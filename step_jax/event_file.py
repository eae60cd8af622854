"""TensorBoard's event file, written by whoever calls.

tensorboardX's SummaryWriter has a thread of its own. On a full disk that one dies with a traceback,
and the training waits for it without end; here the caller learns of it at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter, directory_check
from tensorboardX.proto.event_pb2 import Event, SessionLog

from step_jax.files import not_written
from step_jax.storage import GrowingFolder

FLUSH_SECONDS = 10.0  # which is when a file reaches the disk; see `GrowingFolder` of object stores


class EventFile:
    """One more event file in `folder`; what earlier ones tell of steps from `first_step` is void.

    Raises InputError once, where the disk does not take it; from then on it is closed. What is
    added after the end is left out.
    """

    def __init__(self, folder: epath.PathLike, *, first_step: int):
        self._folder, self._is_open, self._flushed = str(folder), True, time.monotonic()
        with self._written():
            self._files = GrowingFolder(self._folder)
            directory_check(str(self._files.path))
            self._file = EventsWriter(f"{self._files.path}/events")
        self._add(first_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._add(step, summary=summary.scalar(name, value))

    def add_shares(self, name: str, shares: np.ndarray, step: int) -> None:
        """A histogram over [0, 1], of which bins of one width have these shares."""
        edges = np.linspace(0, 1, len(shares) + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        histogram = summary.histogram_raw(
            name, min=0.0, max=1.0, num=shares.sum(), sum=shares @ middles,
            sum_squares=shares @ middles**2, bucket_limits=edges[1:], bucket_counts=shares,
        )  # fmt: skip
        self._add(step, summary=histogram)

    def flush(self) -> None:
        if self._is_open:
            with self._written():
                self._file.flush()
                self._files.grown()
            self._flushed = time.monotonic()

    def put(self) -> None:
        """Uploads what was added to a file in an object store; a disk's is flushed now and then."""
        if self._is_open and self._files.is_uploaded:
            with self._written():
                self._file.flush()
                self._files.put()

    def close(self) -> None:
        self.flush()
        if self._is_open:
            with self._written():
                self._file.close()
                self._files.close()
            self._is_open = False

    def _add(self, step: int, **content: Any) -> None:
        if self._is_open:
            with self._written():
                self._file.write_event(Event(step=int(step), wall_time=time.time(), **content))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self.flush()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._is_open = False
            raise not_written(self._folder, error) from error
