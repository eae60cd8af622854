"""SIGTERM and Ctrl-C as a request to save and end, not as an end in the middle of a step."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable

_STDERR = 2


class StopSignal:
    """SIGTERM (preemption) and SIGINT (Ctrl-C) ask for a checkpoint and a clean end.

    `with StopSignal() as stop:` around the run, which looks at `stop.requested`: the signal's name
    once one came. A second Ctrl-C interrupts at once; so does the first, until `begin`.
    """

    def __init__(self):
        self.requested: str | None = None
        self._begun = False
        self._interruptible = False

    def __enter__(self) -> StopSignal:
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.requested:  # another one must not spoil the end of the program, which takes a while
            atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)

    def begin(self) -> None:
        """From here on there is something to save."""
        self._begun = True

    def run_interruptibly(self, work: Callable[[], None]) -> None:
        """Does work that can be done again another time: a signal ends it where it is."""
        try:
            self._interruptible = True
            try:
                if not self.requested:
                    work()
            finally:
                self._interruptible = False
        except _Interrupted:
            pass

    def _on_signal(self, number: int, frame: object) -> None:
        del frame
        if number == signal.SIGINT and (self.requested or not self._begun):
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
        what = "saving and ending" if self._begun else "ending"
        # Not print, which cannot be entered a second time if the signal came inside of it.
        os.write(_STDERR, f"{self.requested}: {what}\n".encode())
        if self._interruptible:
            self._interruptible = False  # a second one must not interrupt what the first sets off
            raise _Interrupted


class _Interrupted(BaseException):
    """Not an Exception, so that no handler of errors takes it for one."""
