"""When something happens in a video: a bar a tube over its frames, and where it is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from step_jax.visualize.colors import WHITE
from step_jax.visualize.text import chip_size, draw_chip

_BACKGROUND = np.array([24, 24, 24], np.uint8)
_TRACK = np.array([56, 56, 56], np.uint8)
_WIDEST_NAMES = 0.5  # share of the width


@dataclass(frozen=True, eq=False)
class Bar:
    """One row.

    text: its name, to the left of it.
    color: RGB uint8 [3].
    frames: int [n], the frames it covers, increasing; where numbers are missing the bar is broken.
    outlined: drawn as an outline, as ground truth is, and not filled.
    """

    text: str
    color: np.ndarray
    frames: np.ndarray
    outlined: bool = False


class Timeline:
    """Draws bars on a picture of a fixed size, with a line at the frame that is shown.

    Args:
      bars: from top to bottom.
      num_frames: of the video; the picture is that long.
      width: of the picture, pixels.
      size: of the font, pixels.
    """

    def __init__(self, bars: Sequence[Bar], *, num_frames: int, width: int, size: int):
        self._num_frames = num_frames
        self._row = chip_size("", size)[1] + 2
        names = max((chip_size(bar.text, size)[0] for bar in bars), default=0)
        self._left = min(names, round(width * _WIDEST_NAMES))
        self._right = width - self._row // 2
        self._picture = np.empty((len(bars) * self._row + self._row // 2, width, 3), np.uint8)
        self._picture[:] = _BACKGROUND
        for number, bar in enumerate(bars):
            self._draw(bar, top=number * self._row + self._row // 4, size=size)

    @property
    def height(self) -> int:
        """Of the picture, pixels; its width is the one given."""
        return len(self._picture)

    def __call__(self, frames: Sequence[int]) -> np.ndarray:
        """RGB uint8 `[self.height, width, 3]`, with a white line at each of `frames`."""
        picture = self._picture.copy()
        for frame in frames:
            x = (self._x(frame) + self._x(frame + 1)) // 2
            cv2.line(picture, (x, 0), (x, self.height - 1), WHITE.tolist(), 1 + self._row // 24)
        return picture

    def _draw(self, bar: Bar, *, top: int, size: int) -> None:
        draw_chip(
            self._picture[:, : self._left],
            bar.text,
            x=0,
            y=top + 1,
            size=size,
            color=bar.color,
            background=_BACKGROUND,
        )
        inset = max(self._row // 6, 1)
        low, high = top + inset, top + self._row - inset - 1
        line = (self._x(0), (low + high) // 2), (self._x(self._num_frames) - 1, (low + high) // 2)
        cv2.line(self._picture, *line, _TRACK.tolist(), 1)
        for run in runs(bar.frames):
            corner = max(self._x(run[-1] + 1) - 1, self._x(run[0])), high
            thickness = 1 if bar.outlined else cv2.FILLED
            first = self._x(run[0]), low
            cv2.rectangle(self._picture, first, corner, bar.color.tolist(), thickness)

    def _x(self, frame: int) -> int:
        """The column where a frame begins."""
        return self._left + round((self._right - self._left) * int(frame) / self._num_frames)


def runs(frames: np.ndarray) -> list[np.ndarray]:
    """Increasing frame numbers cut where some are missing."""
    frames = np.asarray(frames)
    pieces = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    return [piece for piece in pieces if len(piece)]
