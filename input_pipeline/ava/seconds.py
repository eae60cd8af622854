"""Which frames of a movie are AVA's: twelve of each second, chosen by presentation time.

Of the n frames whose time lies in second t these are the ones at floor(i n / 12), i = 0 .. 11, so
that frame 0 of a second is the first at or after it, whatever the movie's rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from step_jax.annotations.ava_csv import FIRST_KEYFRAME, LAST_KEYFRAME

FIRST_SECOND, STOP_SECOND = 900, 1800
FRAMES_PER_SECOND = 12
NUM_FRAMES = FRAMES_PER_SECOND * (STOP_SECOND - FIRST_SECOND)

_TOLERANCE_FRAMES = 1.5
# The clip of keyframe t is the end of second t - 2, t - 1, t, and the beginning of t + 1; with
# three of them empty it shows nothing.
_CLIP_SECONDS = (-2, -1, 0, 1)
_MOST_EMPTY = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Second(Generic[T]):
    """A second's twelve frames.

    num_frames: how many the movie has there. delay: time of its first frame after the second's
    beginning, seconds; 0 without one.
    """

    second: int
    frames: tuple[T, ...]
    num_frames: int
    delay: Fraction = Fraction(0)

    def is_regular(self, fps: float) -> bool:
        """Whether it has as many frames as the movie's rate says, and begins with one of them."""
        if not self.num_frames or fps <= 0:
            return False
        as_many = abs(self.num_frames - fps) < _TOLERANCE_FRAMES
        return as_many and self.delay < _TOLERANCE_FRAMES / fps


def choose_frames(
    frames: Iterable[tuple[Fraction, T]], *, first: int = FIRST_SECOND, stop: int = STOP_SECOND
) -> Iterator[Second[T]]:
    """Twelve frames of each of the seconds [first, stop), in one pass that holds one second.

    A second with fewer than twelve repeats some. One with none repeats the last earlier frame of
    the movie or, at its beginning, the first later one. A frame that is earlier than the one before
    it counts as being in that one's second.

    Args:
      frames: (seconds, frame) of the movie, from before `first` if it has any there.

    Yields nothing if the movie has no frame before `stop`.
    """
    last, expected = None, first
    for number, group, begin in _by_second(frames, stop):
        if number >= first:
            stand_in = group[0] if last is None else last
            yield from (_empty(second, stand_in) for second in range(expected, number))
            yield Second(number, _twelve(group), len(group), begin - number)
            expected = number + 1
        last = group[-1]
    if last is not None:
        yield from (_empty(second, last) for second in range(expected, stop))


def missing_keyframes(empty: Iterable[int]) -> tuple[int, ...]:
    """The keyframes, in seconds, of whose clip's four seconds three or more are empty."""
    empty = set(empty)
    return tuple(
        keyframe
        for keyframe in range(FIRST_KEYFRAME, LAST_KEYFRAME + 1)
        if sum(keyframe + offset in empty for offset in _CLIP_SECONDS) > _MOST_EMPTY
    )


def _by_second(
    frames: Iterable[tuple[Fraction, T]], stop: int
) -> Iterator[tuple[int, list[T], Fraction]]:
    """(second, its frames, the first one's time) of the seconds before `stop` that have any.

    Of what lies before the first second of interest nobody needs more than each second's frames,
    so that one second is all that is ever held.
    """
    current, group, begin = None, [], Fraction(0)
    for time, frame in frames:
        second = math.floor(time)
        if current is None or second > current:
            if group:
                yield current, group, begin
            if second >= stop:
                return
            current, group, begin = second, [], time
        group.append(frame)
    if group:
        yield current, group, begin


def _twelve(group: list[T]) -> tuple[T, ...]:
    count = len(group)
    return tuple(group[i * count // FRAMES_PER_SECOND] for i in range(FRAMES_PER_SECOND))


def _empty(second: int, frame: T) -> Second[T]:
    return Second(second, (frame,) * FRAMES_PER_SECOND, 0)
