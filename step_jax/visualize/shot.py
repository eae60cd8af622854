"""One window of a video, for the network and for the eye."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

from step_jax.errors import InputError
from step_jax.inference import Predictor
from step_jax.streaming.clip_windows import Window, stream_windows
from step_jax.video import count_frames, probe, read_frames, resample, resize


class Shot(NamedTuple):
    """One window of a video as it is drawn; K frames or, of a shorter video, fewer.

    start: first frame of the target clip, at the detector's frame rate.
    numbers: of the target clip's frames in the file.
    frames: the target clip's frames in their own size.
    clip: uint8 `[T_in, S, S, 3]`, the network's input.
    """

    start: int
    numbers: tuple[int, ...]
    frames: tuple[np.ndarray, ...]
    clip: np.ndarray


def read_shot(path: pathlib.Path, predictor: Predictor, *, start: int | None = None) -> Shot:
    """Reads the window that starts at `start`, by default one in the middle.

    The middle is by the rate of the first frames; where that is not the video's, it may be another
    window, the last at most.

    Raises InputError if the video ends before it.
    """
    info = probe(path)
    rate = predictor.fps / info.fps if predictor.fps else 1.0
    wanted = start
    if wanted is None:
        wanted = max(int(count_frames(path) * rate) - predictor.clip_frames, 0) // 2
    frames = ((time, (number, frame)) for number, (time, frame) in enumerate(read_frames(path)))
    if predictor.fps:
        frames = resample(frames, fps=predictor.fps)
    windows = stream_windows(
        (item for _, item in frames),
        clip_frames=predictor.clip_frames,
        input_frames=predictor.input_frames,
        stride=1,
    )
    for window in windows:  # of a video that can be probed there is one at least
        if window.start == wanted:
            return _shot(window, predictor)
    if start is None:
        return _shot(window, predictor)
    raise InputError(f"{path}: no window starts at frame {start}; expected 0 to {window.start}")


def _shot(window: Window, predictor: Predictor) -> Shot:
    before = (predictor.input_frames - predictor.clip_frames) // 2
    target = window.frames[before : before + window.stop - window.start]
    side = predictor.image_size
    return Shot(
        start=window.start,
        numbers=tuple(number for number, _ in target),
        frames=tuple(frame for _, frame in target),
        clip=np.stack([resize(frame, width=side, height=side) for _, frame in window.frames]),
    )
