"""The frames of one video as JPEG, each encoded once: what record building resumes from.

A store is two files, `<name>.jpegs` (the JPEG bytes one after the other) and `<name>.npy` (their
int64 offsets, n + 1 of them). The offsets are written last, under a temporary name and renamed, so
a store that has them is complete. Imports no TensorFlow: the worker processes start quickly.
"""

from __future__ import annotations

import itertools
import os
import pathlib

import cv2
import numpy as np

from step_jax import video
from step_jax.errors import InputError
from step_jax.replacing import replacing


class FrameStore:
    """Reads slices of a complete store; holds no more than the slice in memory."""

    def __init__(self, path: str | os.PathLike):
        """path: the store's place without suffix."""
        self._jpegs = _jpegs_path(path)
        self._offsets = np.load(_offsets_path(path), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def frames(self, start: int, stop: int) -> list[bytes]:
        """The JPEG bytes of the frames [start, stop)."""
        offsets = self._offsets[start : stop + 1]
        with open(self._jpegs, "rb") as file:
            file.seek(offsets[0])
            data = file.read(offsets[-1] - offsets[0])
        ends = offsets - offsets[0]
        return [data[a:b] for a, b in itertools.pairwise(ends)]


def is_complete(path: str | os.PathLike) -> bool:
    """Whether the store was written to its end."""
    return _offsets_path(path).exists() and _jpegs_path(path).exists()


def write_store(
    path: str | os.PathLike,
    video_path: str | os.PathLike,
    *,
    name: str,
    fps: float,
    num_frames: int,
    short_side: int,
    jpeg_quality: int,
) -> int:
    """Decodes a video in one pass and stores its frames; one frame in memory at a time.

    Args:
      path: the store's place without suffix.
      video_path: a video file or a folder of frames.
      name: the video's name in errors.
      fps: frames a second, for a folder of frames.
      num_frames: how many frames the annotation says that the video has.
      short_side: frames whose shorter side is longer are shrunk to it; 0 keeps their size.
      jpeg_quality: 1 to 100.

    Returns the number of frames. Raises InputError, naming the video, if it cannot be decoded or
    has another number of frames than its annotation; OSError if it cannot be stored.
    """
    offsets = [0]
    try:
        with replacing(_jpegs_path(path)) as temporary, open(temporary, "wb") as file:
            for frame in _decode(video_path, name=name, fps=fps, num_frames=num_frames):
                offsets.append(offsets[-1] + file.write(_encode(frame, short_side, jpeg_quality)))
            _check_count(len(offsets) - 1, num_frames, name=name, path=video_path)
        with replacing(_offsets_path(path)) as temporary:
            np.save(temporary, np.array(offsets, np.int64))
    except OSError as error:  # a full disk does not say which
        where = error.filename or os.fspath(path)
        raise OSError(error.errno, error.strerror, where) from error
    return num_frames


def _decode(path, *, name: str, fps: float, num_frames: int):
    """The RGB frames, and one more than expected if there are more."""
    try:
        video.check_complete(path)
        for _, frame in video.read_frames(path, fps=fps, stop=num_frames + 1):
            yield frame
    except InputError as error:
        raise InputError(f"video {name!r}: {error}") from error


def _encode(frame: np.ndarray, short_side: int, quality: int) -> bytes:
    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    if 0 < scale < 1:
        frame = video.resize(frame, width=round(width * scale), height=round(height * scale))
    ok, jpeg = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok, "OpenCV cannot encode a JPEG"
    return jpeg.tobytes()


def _check_count(found: int, expected: int, *, name: str, path):
    if found == expected:
        return
    found_text = f"{found} frames" if found < expected else f"more than {expected} frames"
    raise InputError(
        f"video {name!r} ({path}): {found_text} can be decoded, its annotation says {expected}; "
        "the file is truncated, or correct num_frames in the annotation"
    )


def _jpegs_path(path) -> pathlib.Path:
    return pathlib.Path(f"{os.fspath(path)}.jpegs")


def _offsets_path(path) -> pathlib.Path:
    return pathlib.Path(f"{os.fspath(path)}.npy")
