"""Windows of a video whose length is not known yet: streamed, with a sliding buffer of frames.

The grid is that of the evaluation: target clips of K frames at 0, stride, 2 * stride, ..., and the
last whole one, n - K, even off the grid. The network reads T_in frames centred on the target clip;
beyond the ends of the video its first or last frame is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Window(NamedTuple):
    """One window of the video.

    start, stop: frames [start, stop) of the target clip; K of them, or fewer where the video is
      shorter than a clip.
    frames: T_in frames around it, whatever the stream is made of.
    """

    start: int
    stop: int
    frames: tuple[Any, ...]


def stream_windows(
    frames: Iterable[Any], *, clip_frames: int, input_frames: int, stride: int
) -> Iterator[Window]:
    """Yields the windows of a stream of frames in order; each as soon as its last frame is read.

    Later windows start later: after a window at s, frames up to s are in no window to come. Holds
    `input_frames + stride` frames, not the video.

    Args:
      frames: any number of frames, which are passed on as they are.
      clip_frames: K.
      input_frames: T_in.
      stride: between the starts of windows, at least 1.
    """
    before = (input_frames - clip_frames) // 2
    needed = input_frames - before  # frames from a window's start on
    held = _Held()

    def window(start: int) -> Window:
        stop = min(start + clip_frames, held.stop)
        places = range(start - before, start - before + input_frames)
        return Window(start, stop, tuple(map(held.nearest, places)))

    start = 0
    for frame in frames:
        held.append(frame)
        if held.stop == start + needed:
            yield window(start)
            held.forget_before(start + 1 - before)  # the next one may be the last, off the grid
            start += stride
    if held.stop:
        last = max(held.stop - clip_frames, 0)
        for remaining in range(start, last + stride, stride):
            yield window(min(remaining, last))


class _Held:
    """The latest frames of a stream; numbers count from the beginning of the stream."""

    def __init__(self):
        self._frames: list[Any] = []
        self._first = 0

    @property
    def stop(self) -> int:
        """The number of frames that have come, held or not."""
        return self._first + len(self._frames)

    def append(self, frame: Any):
        self._frames.append(frame)

    def nearest(self, number: int) -> Any:
        """The frame of that number, or the video's first or last one."""
        return self._frames[min(max(number, self._first), self.stop - 1) - self._first]

    def forget_before(self, number: int):
        gone = max(number - self._first, 0)
        del self._frames[:gone]
        self._first += gone


def batches(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    """Groups of `size` windows in order; the last may be smaller."""
    batch: list[Window] = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def stack(windows: list[Window], size: int) -> np.ndarray:
    """The frames of up to `size` windows as `[size, T_in, H, W, channels]`.

    The last window is repeated: always the same shape, so that the detector is compiled once.
    """
    filled = windows + windows[-1:] * (size - len(windows))
    return np.stack([np.stack(window.frames) for window in filled])
