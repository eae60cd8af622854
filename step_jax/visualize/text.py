"""Text in pictures: smooth, and in any script that the font has (OpenCV's own is ASCII)."""

from __future__ import annotations

import functools
import math
import pathlib

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Matplotlib carries it, so that text looks the same on every machine.
_FONT = "fonts/ttf/DejaVuSans-Bold.ttf"


@functools.lru_cache(maxsize=4096)
def text_mask(text: str, size: int) -> np.ndarray:
    """How much of each pixel the text covers: uint8 [H, W], H the same for all texts of a size.

    size: of the font, pixels.
    """
    font = _font(size)
    width = max(math.ceil(font.getlength(text)), 1)
    image = Image.new("L", (width, sum(font.getmetrics())))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    mask = np.array(image)
    mask.setflags(write=False)
    return mask


def chip_size(text: str, size: int) -> tuple[int, int]:
    """Width and height in pixels of what `draw_chip` draws."""
    height, width = text_mask(text, size).shape
    return width + 2 * _padding(size), height


def draw_chip(
    picture: np.ndarray,
    text: str,
    *,
    x: int,
    y: int,
    size: int,
    color: np.ndarray,
    background: np.ndarray,
) -> None:
    """Writes a text on a rectangle of its own into `picture` [H, W, 3], in place.

    x, y: the rectangle's top left corner; what is outside the picture is cut off.
    """
    width, height = chip_size(text, size)
    coverage = np.zeros((height, width, 1))
    padding = _padding(size)
    coverage[:, padding : width - padding, 0] = text_mask(text, size) / 255
    chip = np.round(background + coverage * (color.astype(float) - background)).astype(np.uint8)
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + height, picture.shape[0]), min(x + width, picture.shape[1])
    if top < bottom and left < right:
        picture[top:bottom, left:right] = chip[top - y : bottom - y, left - x : right - x]


def _padding(size: int) -> int:
    return max(size // 4, 2)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(pathlib.Path(matplotlib.get_data_path()) / _FONT), size)
