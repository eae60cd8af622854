"""Pictures side by side, with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from step_jax.visualize.colors import BLACK, WHITE
from step_jax.visualize.draw import font_size
from step_jax.visualize.text import chip_size, draw_chip

GAP = 4
_BAR = np.array([40, 40, 40], np.uint8)
_SCREEN_WIDTH, _SCREEN_HEIGHT = 1920, 1080


def grid_columns(count: int, *, width: int, height: int) -> int:
    """Columns of the grid in which `count` pictures are largest on a screen.

    Where several are equal, the one with the fewest places left over, then the one with the fewest
    rows.
    """

    def merit(columns: int) -> tuple[float, int, int]:
        rows = math.ceil(count / columns)
        scale = min(_SCREEN_WIDTH / (columns * width), _SCREEN_HEIGHT / (rows * height))
        return round(scale, 6), -rows * columns, -rows

    return max(range(1, count + 1), key=merit)


def display_size(
    width: int, height: int, *, columns: int, shortest: int, widest: int
) -> tuple[int, int]:
    """(width, height) to draw a picture in: readable, yet `columns` of them not too wide.

    shortest: a smaller short side is enlarged to this.
    widest: of all columns together; pictures are made smaller to keep it.
    """
    scale = max(1.0, shortest / min(width, height))
    scale = min(scale, widest / (columns * width))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture `[H, W, 3]` with a bar above it that holds the text, `[H + bar, W, 3]`."""
    height, width = picture.shape[:2]
    return np.concatenate([bar(text, width=width, size=font_size(height, width)), picture])


def bar(text: str, *, width: int, size: int) -> np.ndarray:
    """A dark bar `[1.6 * size, width, 3]` with the text in its middle."""
    picture = np.empty((round(1.6 * size), width, 3), np.uint8)
    picture[:] = _BAR
    chip_width, chip_height = chip_size(text, size)
    x, y = max((width - chip_width) // 2, 0), (picture.shape[0] - chip_height) // 2
    draw_chip(picture, text, x=x, y=y, size=size, color=WHITE, background=_BAR)
    return picture


def tile(
    pictures: Sequence[np.ndarray], *, columns: int, background: np.ndarray = BLACK
) -> np.ndarray:
    """Pictures of one size in a grid, row by row, with gaps; places left over are background."""
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    whole = np.empty(shape, np.uint8)
    whole[:] = background
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        y, x = row * (height + GAP), column * (width + GAP)
        whole[y : y + height, x : x + width] = picture
    return whole
