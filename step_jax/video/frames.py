"""Streams of (timestamp, frame) and single frames: another rate, another size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

# WebM and Matroska round timestamps to the millisecond: frame 2 of 30 a second is at .067, not at
# .0667, and would else be taken for later than its own moment.
_TIMESTAMP_ROUNDING_S = 1e-3


def resample(
    frames: Iterable[tuple[float, np.ndarray]], *, fps: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Another frame rate, chosen by timestamp: at every k / fps the last frame at or before it.

    Frames are repeated or left out, never blended. The last frame lasts as long as the one before
    it. Holds one frame at a time.

    Args:
      frames: (seconds, frame) with increasing seconds, as `read_frames` gives them.
      fps: frames a second of the result.

    Yields (k / fps, frame) for the whole numbers k from the first frame on.
    """
    held, shown_s, duration_s, k = None, 0.0, 0.0, 0
    for time_s, frame in frames:
        if held is None:
            k = int(np.ceil((time_s - _TIMESTAMP_ROUNDING_S) * fps))
        else:
            duration_s = time_s - shown_s
            while k / fps < time_s - _TIMESTAMP_ROUNDING_S:
                yield k / fps, held
                k += 1
        held, shown_s = frame, time_s
    if held is None:
        return
    first, end_s = k, shown_s + duration_s - _TIMESTAMP_ROUNDING_S
    while k / fps < end_s or (k == first and duration_s == 0):
        yield k / fps, held
        k += 1


def resize(frame: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """A frame [H, W, C] at another size: area average when shrinking, linear when growing.

    Linear interpolation when shrinking looks at a few pixels of many and aliases.
    """
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = width * height < frame.shape[1] * frame.shape[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=interpolation)
