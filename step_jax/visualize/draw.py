"""Boxes with labels on a frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from step_jax.visualize.colors import text_color
from step_jax.visualize.text import chip_size, draw_chip

_MIN_FONT_SIZE = 12
_HALO = (0, 0, 0)
_LABELS_ABOVE = 3


def font_size(height: int, width: int) -> int:
    """Pixels of a font that can be read in a picture of that size."""
    return max(round(min(height, width) / 26), _MIN_FONT_SIZE)


def line_width(height: int, width: int) -> int:
    return max(round(min(height, width) / 200), 2)


def draw_boxes(
    frame: np.ndarray,
    boxes: np.ndarray,
    colors: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    dashed: bool = False,
    thickness: int | None = None,
    opacity: float = 1.0,
) -> np.ndarray:
    """A copy of the frame with boxes on it; earlier boxes and their labels lie on top.

    Args:
      frame: RGB uint8 `[H, W, 3]`.
      boxes: `[N, 4]` in pixels of the frame; clipped to it.
      colors: uint8 `[N, 3]`.
      labels: one text a box, of one line or several, written beside it on chips of its colour,
        inside the picture and, as far as there is room, not over another label.
      dashed: dashed outlines, for ground truth.
      thickness: of the lines; by default it follows the frame's size.
      opacity: of everything drawn, 0 to 1.
    """
    height, width = frame.shape[:2]
    thickness = thickness or line_width(height, width)
    picture = frame.copy()
    corners = _corners(boxes, height=height, width=width, thickness=thickness)
    for box, color in zip(corners[::-1], colors[::-1], strict=True):
        _outline(picture, box, color, thickness=thickness, dashed=dashed)
    if labels is not None:
        _write_labels(picture, corners, colors, labels)
    return picture if opacity == 1 else cv2.addWeighted(picture, opacity, frame, 1 - opacity, 0)


def _corners(boxes: np.ndarray, *, height: int, width: int, thickness: int) -> np.ndarray:
    """Whole pixels int `[N, 4]`, so that the line of every side lies within the picture."""
    inset = thickness // 2 + 1
    limits = np.array([width, height, width, height]) - 1 - inset
    return np.clip(np.round(boxes), inset, np.maximum(limits, inset)).astype(int).reshape(-1, 4)


def _outline(
    picture: np.ndarray, box: np.ndarray, color: np.ndarray, *, thickness: int, dashed: bool
) -> None:
    """Coloured on a slightly thicker black line, which keeps it visible on its own colour."""
    x1, y1, x2, y2 = (int(value) for value in box)
    for paint, extra in ((_HALO, 2), (tuple(map(int, color)), 0)):
        if not dashed:
            cv2.rectangle(picture, (x1, y1), (x2, y2), paint, thickness + extra, cv2.LINE_AA)
            continue
        ring = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
        for start, stop in pairwise(ring):
            _dashes(picture, start, stop, paint, thickness=thickness + extra, dash=4 * thickness)


def _dashes(picture, start, stop, paint, *, thickness: int, dash: int) -> None:
    """As many dashes as fit, the first and the last in the corners."""
    start, stop = np.array(start), np.array(stop)
    count = max(round(float(np.abs(stop - start).max()) / (2 * dash)), 1)
    pieces = 2 * count + 1
    for piece in range(0, pieces, 2):
        a, b = (start + (stop - start) * share / pieces for share in (piece, piece + 1))
        ends = (tuple(map(round, point.tolist())) for point in (a, b))
        cv2.line(picture, *ends, paint, thickness, cv2.LINE_AA)


def _write_labels(
    picture: np.ndarray, corners: np.ndarray, colors: np.ndarray, labels: Sequence[str]
) -> None:
    height, width = picture.shape[:2]
    size = font_size(height, width)
    step = chip_size("", size)[1]
    placed: list[tuple[int, int, int, int]] = []
    for box, text in zip(corners, labels, strict=True):
        lines = text.split("\n")
        block = max(chip_size(line, size)[0] for line in lines), len(lines) * step
        x, y = _place(block, box, placed, height=height, width=width, step=step)
        placed.append((x, y, x + block[0], y + block[1]))
    for (x, y, *_), color, text in zip(placed[::-1], colors[::-1], labels[::-1], strict=True):
        ink = text_color(color)
        for number, line in enumerate(text.split("\n")):
            top = y + number * step
            draw_chip(picture, line, x=x, y=top, size=size, color=ink, background=color)


def _place(
    size: tuple[int, int],
    box: np.ndarray,
    placed: list[tuple[int, int, int, int]],
    *,
    height: int,
    width: int,
    step: int,
) -> tuple[int, int]:
    """Top left corner of a label: above its box, higher above, else inside, top down, else below.

    The first free place wins, `step` px from one to the next, so that the labels of actors that
    meet stack; where all are taken, the last.
    """
    label_width, label_height = size
    left = max(min(box[0] - 1, width - label_width), 0)
    above = [box[1] - label_height - number * step for number in range(_LABELS_ABOVE)]
    inside = range(box[1], max(box[3] - label_height, box[1] + 1), step)
    rows = [y for y in (*above, *inside, box[3] + 1) if 0 <= y <= height - label_height]
    rows = rows or [max(height - label_height, 0)]
    for y in rows:
        if not any(_overlap((left, y, left + label_width, y + label_height), p) for p in placed):
            return int(left), int(y)
    return int(left), int(rows[-1])


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
