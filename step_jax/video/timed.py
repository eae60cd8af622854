"""A movie's frames with their exact presentation times, from any second on."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2
import numpy as np

from step_jax.errors import InputError
from step_jax.video.reading import DEFAULT_FOLDER_FPS, open_capture, retrieve_bgr
from step_jax.video.timeline import Timeline, read_timeline

TimedFrame = tuple[Fraction, Callable[[], np.ndarray]]

# A movie's pictures between two whole ones: how far before its goal a jump has to land.
_JUMP_MARGIN_S = 10
# Other containers' time bases have no larger denominators; two such fractions differ by 1e-10 s,
# and OpenCV's float64 errs by 1e-11 s at most in movies of half a day.
_MAX_DENOMINATOR = 100_000
_MOST_FRAMES = 1e12
_ROUNDING_FRAMES = 0.6  # half of one, and the rate's own


class TimedVideo:
    """A movie file whose frames come with their times; a context manager.

    fps: frames a second, as the container states. first: the first frame's time, seconds.
    is_exact: whether `first` is; otherwise it is right to half a frame.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1):
        """threads: that decode; 0 takes the machine's.

        Raises InputError for what is missing, unreadable or without a frame.
        """
        self._path, self._threads = pathlib.Path(path), threads
        self._open()
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FOLDER_FPS
        self._timeline, self.is_exact = self._checked_timeline()
        self.first = self._time()

    def __enter__(self) -> TimedVideo:
        return self

    def __exit__(self, *error: object):
        self._capture.release()

    def frames(self, *, start: Fraction | int = 0) -> Iterator[TimedFrame]:
        """(seconds, function that gives the frame) in the order of decoding; one pass, once.

        Time is the timestamp times the container's time base, without subtracting where the stream
        starts. The function gives BGR uint8 [H, W, 3] and is to be called before the next frame is
        asked for. What cannot be decoded is not there.

        start: frames before may be left out. Files whose timeline is known are entered there, at
            the whole picture before; others are decoded from their beginning.
        """
        if self._timeline is not None and start - self.first > 2 * _JUMP_MARGIN_S:
            self._jump(start)
        number, found = 0, True
        while found:
            yield self._time(), functools.partial(retrieve_bgr, self._capture, self._path, number)
            found, number = self._capture.grab(), number + 1

    def _open(self):
        """Opens the file and grabs its first frame."""
        self._capture = open_capture(self._path, threads=self._threads)
        if not self._capture.grab():
            raise InputError(f"{self._path}: has no frame that can be decoded")

    def _jump(self, start: Fraction | int):
        """Grabs a frame before `start`, not too early if that is possible."""
        goal_s = start - _JUMP_MARGIN_S - self._origin()
        self._capture.set(cv2.CAP_PROP_POS_MSEC, float(goal_s * 1000))
        if not self._capture.grab() or self._time() > start:
            self._capture.release()
            self._open()

    def _checked_timeline(self) -> tuple[Timeline | None, bool]:
        """The container's timeline if OpenCV's rounded first time agrees with it."""
        since_start_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        shown = self._capture.get(cv2.CAP_PROP_PTS)  # frames since 0, rounded
        is_shown = abs(shown) < _MOST_FRAMES  # of odd rates it is not
        self._approximate = Fraction(0)
        if is_shown:
            self._approximate = round(shown - since_start_s * self.fps) / _rational(self.fps)
        timeline = read_timeline(self._path)
        if timeline is None:
            return None, is_shown and not self._approximate
        stated_s = timeline.first * timeline.time_base + since_start_s
        if is_shown and abs(shown - stated_s * self.fps) > _ROUNDING_FRAMES:
            return None, False
        return timeline, True

    def _origin(self) -> Fraction:
        """The time that OpenCV counts from, seconds."""
        if self._timeline is None:
            return self._approximate
        return self._timeline.first * self._timeline.time_base

    def _time(self) -> Fraction:
        """Of the frame grabbed last."""
        since_start_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._timeline is None:
            return self._approximate + _rational(since_start_s)
        ticks = round(since_start_s / float(self._timeline.time_base))
        return (self._timeline.first + ticks) * self._timeline.time_base


def _rational(value: float) -> Fraction:
    return Fraction(value).limit_denominator(_MAX_DENOMINATOR)
