"""What a training step's time is spent on: waiting for data, waiting for the device, the rest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

DATA, DEVICE = "data", "device"


class StepTime:
    """Splits the time between two reports, per training step.

    Three parts, which add up to the step's time:

    - data: the loop was blocked in `next(batches)`. More than a few percent means that the input
      pipeline is the limit.
    - device: the loop was blocked until the metrics of the step before were there, after the step
      at hand had been dispatched. It is what is left over of the device's work, not all of it: a
      run whose device is never idle has data and host times that the device's work hides.
    - host: the rest, the loop's own work: splitting and sending the batch, dispatching the step,
      writing the log. Where dispatching blocks, as on CPUs that run a step at once, it is in here.

    Time in `paused()`, on evaluations and checkpoints, is in none of them.
    """

    def __init__(self):
        self.paused_seconds = 0.0  # since the beginning
        self.restart()

    def restart(self) -> None:
        """Forgets what has been measured since the last report."""
        self._seconds = {DATA: 0.0, DEVICE: 0.0}
        self._last = time.monotonic()

    def waited(self, what: str, seconds: float) -> None:
        """Adds time spent waiting for DATA or for the DEVICE."""
        self._seconds[what] += seconds

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Adds the time that the block takes, see `waited`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.waited(what, time.monotonic() - start)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time inside, spent on other work."""
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self._last += seconds
            self.paused_seconds += seconds

    def take(self, steps: int) -> dict[str, float]:
        """Of each of the `steps` since the last report: its milliseconds, and the parts' shares."""
        now = time.monotonic()
        seconds = max(now - self._last, 1e-9)
        data, device = self._seconds[DATA], self._seconds[DEVICE]
        host = max(seconds - data - device, 0.0)
        self._seconds, self._last = {DATA: 0.0, DEVICE: 0.0}, now
        parts = {"step": seconds, "data": data, "device": device, "host": host}
        times = {f"{name}_ms": 1000 * part / steps for name, part in parts.items()}
        return times | {
            "data_wait": data / seconds,
            "device_wait": device / seconds,
            "host_work": host / seconds,
        }
