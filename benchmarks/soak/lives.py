"""A program that is started, sampled, killed and started again."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclasses.dataclass
class Life:
    """From a start to an end.

    Attributes:
      start, stop: seconds since the soak began; stop is None while it lives.
      signal: what ended it, "SIGKILL" or "SIGTERM"; "" where it ended by itself.
      status: as `subprocess.Popen.returncode`.
      samples: (seconds since the soak began, resident MiB).
    """

    start: float
    stop: float | None = None
    signal: str = ""
    status: int | None = None
    samples: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    @property
    def ended_by_itself(self) -> bool:
        return self.stop is not None and not self.signal


class Program:
    """One of the two programs, over all of its lives.

    Args:
      command: what is run, again for every life.
      log: file that gets what all of them print.
      environment: added to this process's.
      began: `time.monotonic()` when the soak began.

    Attributes:
      lives: in order; the last may be going on.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: pathlib.Path,
        environment: Mapping[str, str],
        began: float,
    ):
        self._command, self._log, self._began = list(command), log, began
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen | None = None
        self.lives: list[Life] = []

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment
            )
        self.lives.append(Life(self._now()))

    @property
    def is_alive(self) -> bool:
        """Also takes down the end of a life that has ended by itself."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        self._end("")
        return False

    def sample(self) -> None:
        """Takes down the memory of a program that is alive."""
        mib = resident_mib(self._process.pid) if self.is_alive else None
        if mib is not None:
            self.lives[-1].samples.append((self._now(), mib))

    def end_by(self, name: str, *, within_seconds: float) -> None:
        """Sends a signal by its name, and SIGKILL where that has not ended it in time."""
        process = self._process
        process.send_signal(signal.Signals[name])
        try:
            process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._end(name)

    def kill(self) -> None:
        """However the soak ends, no program outlives it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self._end("SIGKILL")

    def wait(self, seconds: float) -> None:
        """For the time, or until it ends."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def _end(self, name: str) -> None:
        life = self.lives[-1]
        life.stop, life.signal, life.status = self._now(), name, self._process.returncode
        self._process = None

    def _now(self) -> float:
        return time.monotonic() - self._began

    def to_json(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(life) for life in self.lives]


def resident_mib(pid: int) -> float | None:
    """A process's memory that is in use; None where it has just ended. Linux alone."""
    try:
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * _PAGE_MIB or None
