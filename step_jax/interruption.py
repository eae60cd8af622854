"""Ctrl-C with worker processes: a terminal sends it to all of them, and only one has to tell."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Processes that are started in this block put Ctrl-C off until they call `end_silently`.

    Else one that is still importing would end with a traceback. Here it comes when the block ends.
    """
    resource_tracker.ensure_running()  # which would let Ctrl-C in, if it started with the first one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_silently() -> None:
    """The first act of a worker: Ctrl-C ends it at once, without a word, also one that waits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
