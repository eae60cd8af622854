"""Who is ended when, and how."""

from __future__ import annotations

from typing import NamedTuple

TRAIN, WATCH = "train", "watch"
_GENTLE = 5  # every so many ends is a SIGTERM


class End(NamedTuple):
    """One end: of which program, by which signal."""

    program: str
    signal: str


def end_number(number: int) -> End:
    """The first end is number 1: training and watcher in turn, now and then by SIGTERM."""
    return End(TRAIN if number % 2 else WATCH, "SIGKILL" if number % _GENTLE else "SIGTERM")
