"""How many frames there are to do, without decoding all videos first."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from step_jax import video
from step_jax.errors import InputError


class FrameEstimate:
    """Folders are counted, files guessed by their size: so many bytes a frame as those before.

    The number that a container states is often nonsense; the first file is counted by decoding it.
    """

    def __init__(self, paths: Sequence[pathlib.Path]):
        self._frames = {path: _images(path) for path in paths if path.is_dir()}
        self._bytes = {path: _size(path) for path in paths if not path.is_dir()}
        self._counted_bytes = self._counted_frames = 0
        first = next(iter(self._bytes), None)
        if first is not None:
            self._counted_bytes, self._counted_frames = self._bytes[first], _images(first)

    def total(self) -> int | None:
        """None as long as nothing is known about files."""
        if not self._bytes:
            return sum(self._frames.values())
        if not self._counted_frames or not self._counted_bytes:
            return None
        rate = self._counted_frames / self._counted_bytes
        return sum(self._frames.values()) + round(rate * sum(self._bytes.values()))

    def finished(self, path: pathlib.Path, *, frames: int) -> None:
        """A video turned out to have so many frames; 0 if it could not be read."""
        size = self._bytes.pop(path, 0)
        self._frames[path] = frames
        if size and frames:
            self._counted_bytes += size
            self._counted_frames += frames


def _images(path: pathlib.Path) -> int:
    try:
        return video.count_frames(path)
    except (InputError, OSError):
        return 0  # who reads it will say what is wrong


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # likewise, e.g. of a link that leads nowhere
