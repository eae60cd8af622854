"""The windows that a video is evaluated in: their grid, and which of their frames count."""

from __future__ import annotations

import numpy as np

from step_jax.errors import InputError

FRAMES = ("all", "middle")


def check_frames(frames: str, *, where: str) -> None:
    """Raises InputError for what is not one of FRAMES; `where` it was said."""
    if frames not in FRAMES:
        raise InputError(f"{where} {frames!r}: expected one of {', '.join(FRAMES)}")


def window_starts(num_frames: int, *, clip_frames: int, stride: int) -> np.ndarray:
    """int64: 0, stride, 2 * stride, ... and the last start of a whole window, even off that grid.

    As the input pipeline's. A video shorter than a window has one, at 0.
    """
    last = max(num_frames - clip_frames, 0)
    return np.union1d(np.arange(0, last + 1, stride), last)


def window_index(starts: np.ndarray, *, stride: int) -> np.ndarray:
    """The number of a window in its video's grid 0, stride, 2 * stride, ..., num_frames - K.

    The last one is off the grid where the stride misses the end, hence the rounding up.
    """
    return -(-np.asarray(starts) // stride)


def reported(frames: str, *, clip_frames: int) -> slice:
    """Which of a window's K frames are reported: "all", or the "middle" one, K // 2.

    AVA's clips are cut so that this one is the annotated keyframe: frame 6 of 12, which is 18 of
    the 36 that the network reads. At a temporal stride of 4 it is frame 1 of 3 feature frames.
    """
    middle = clip_frames // 2
    return slice(None) if frames == "all" else slice(middle, middle + 1)


def evaluated_frames(num_frames: int, *, frames: str, clip_frames: int, stride: int) -> np.ndarray:
    """Which frames of a video count, bool `[num_frames]`: all, or those in a window's middle.

    Of a video that ends before the middle of its only window no frame counts.
    """
    if frames == "all":
        return np.ones(num_frames, bool)
    starts = window_starts(num_frames, clip_frames=clip_frames, stride=stride)
    return np.isin(np.arange(num_frames), starts + clip_frames // 2)
