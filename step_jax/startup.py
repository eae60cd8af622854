"""How long a training takes to begin, and how much of that is compilation."""

from __future__ import annotations

import os
import pathlib
import shlex
import time
from collections.abc import Sequence
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"  # taken out of the cache or not
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


class Startup:
    """Splits the time until the first step has ended into phases that follow one another.

    `done("parameters")` ends a phase, which began where the one before ended. Programs compiled
    meanwhile are counted until `end`.

    Args:
      import_seconds: what the process did before, "import": see `process_seconds`.
      command: that started it, for the log.
    """

    def __init__(self, *, import_seconds: float | None = None, command: Sequence[str] = ()):
        self._command = shlex.join(command)
        self.seconds: dict[str, float] = {}
        if import_seconds is not None:
            self.seconds["import"] = import_seconds
        self.programs = self.from_cache = 0
        self._last = time.monotonic()
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)

    def done(self, phase: str) -> None:
        """Ends a phase; a name that comes again goes on."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def skip(self, seconds: float) -> None:
        """Leaves time out that was spent on other work."""
        self._last += seconds

    def end(self) -> None:
        """Counts programs no more."""
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    @property
    def total(self) -> float:
        """Seconds of all phases so far."""
        return sum(self.seconds.values())

    def report(self) -> dict[str, Any]:
        """For the log: the phases' seconds, the programs, and what they run on."""
        return {
            "seconds": self.total,
            "phases": dict(self.seconds),
            "programs": self.programs,
            "programs_from_cache": self.from_cache,
            "devices": jax.device_count(),
            "device": jax.devices()[0].device_kind,
            "processes": jax.process_count(),
            "jax": jax.__version__,
            "command": self._command,
        }

    def text(self) -> str:
        """The same as one line."""
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return (
            f"first step after {self.total:.1f} s: {phases}; {self.programs} programs, "
            f"{self.from_cache} from the compilation cache"
        )

    def _on_duration(self, event: str, seconds: float, **details: Any) -> None:
        del seconds, details
        self.programs += event == _COMPILED

    def _on_event(self, event: str, **details: Any) -> None:
        del details
        self.from_cache += event == _FROM_CACHE


def process_seconds() -> float | None:
    """How long ago this process began; None where the system has no /proc to say so."""
    try:
        fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])  # "starttime", since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None
