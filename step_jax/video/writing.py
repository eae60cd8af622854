"""Writing a video file that browsers play."""

from __future__ import annotations

import contextlib
import os
import pathlib

import cv2
import numpy as np

from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.utf8_paths import check_utf8
from step_jax.video.completeness import check_complete
from step_jax.video.stderr import held_stderr

# OpenCV's wheel has no H.264 encoder. Browsers play VP8 and VP9; VP8 is encoded 4 times as fast, in
# files a tenth larger. MJPG is for exact seeking and editing.
_CODECS = {".webm": "VP80", ".avi": "MJPG"}


class VideoWriter:
    """Writes RGB frames to a .webm (VP8) or .avi (MJPG) file; a context manager.

    The file appears under its name when the block ends without an error, else not at all. An odd
    width or height is made even by repeating the last column or row: both codecs store colour at
    half the resolution, and OpenCV would cut the column off.
    """

    def __init__(self, path: str | os.PathLike, *, fps: float, width: int, height: int):
        self._path = pathlib.Path(path)
        if self._path.suffix.lower() not in _CODECS:
            raise InputError(f"{path}: cannot write this kind of video; expected .webm or .avi")
        check_utf8(self._path)
        self._fps, self._size = float(fps), (width, height)

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(replacing(self._path))
            self._writer = self._open()
            stack.push(self._close)
            self._stack = stack.pop_all()
        self._frames = 0
        return self

    def __exit__(self, kind, error, traceback):
        return self._stack.__exit__(kind, error, traceback)

    def write(self, frame: np.ndarray):
        """Appends one frame, RGB uint8 [height, width, 3]."""
        width, height = self._size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"{self._path}: frame is {frame.dtype} {frame.shape}; "
                f"expected uint8 {(height, width, 3)}"
            )
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        self._writer.write(frame)
        self._frames += 1

    def _close(self, kind, error, traceback):
        """OpenCV does not say when the disk is full: what is on it has to."""
        self._writer.release()
        if error is not None:
            return
        if not self._frames:
            raise InputError(f"{self._path}: not written, since there was no frame to write")
        try:
            check_complete(self._temporary)
        except InputError as incomplete:
            raise InputError(
                f"{self._path}: could not be written to its end; is there room on the disk?"
            ) from incomplete

    def _open(self) -> cv2.VideoWriter:
        width, height = self._size
        codec = cv2.VideoWriter_fourcc(*_CODECS[self._path.suffix.lower()])
        size = (width + width % 2, height + height % 2)
        with held_stderr() as held:
            held.drop = "OpenCV: FFMPEG: tag"
            writer = cv2.VideoWriter(
                os.path.abspath(self._temporary), cv2.CAP_FFMPEG, codec, self._fps, size
            )
        if not writer.isOpened():
            raise InputError(
                f"{self._path}: OpenCV cannot write a {width}x{height} video at {self._fps} fps "
                "here; check the folder, the size and the rate"
            )
        return writer
