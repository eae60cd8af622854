"""Keyframes with the people on them: as annotated, dashed, and as detected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.video import resize
from step_jax.visualize.colors import WHITE, class_colors
from step_jax.visualize.draw import draw_boxes
from step_jax.visualize.panels import captioned, display_size, grid_columns, tile
from step_jax.visualize.stacks import stacks

SHORTEST_PX, WIDEST_PX = 300, 2400


@dataclass(frozen=True, eq=False)
class KeyframePicture:
    """What is to be drawn of one keyframe. Boxes are shares of the frame, x1 y1 x2 y2.

    frame: RGB uint8 [H, W, 3]. title: of the picture.
    true_boxes: float [N, 4]; true_texts: what each of these people does, one line an action.
    found_boxes: float [D, 4], the best first; found_texts: of each the one action, with its score.
    """

    title: str
    frame: np.ndarray
    true_boxes: np.ndarray
    true_texts: Sequence[str]
    found_boxes: np.ndarray
    found_texts: Sequence[str]


def draw_keyframes(keyframes: Sequence[KeyframePicture], *, columns: int | None = None):
    """All in a grid, uint8 [H, W, 3]. Actions that are found on the same box share it."""
    height, width = keyframes[0].frame.shape[:2]
    columns = columns or grid_columns(len(keyframes), width=width, height=height)
    size = display_size(width, height, columns=columns, shortest=SHORTEST_PX, widest=WIDEST_PX)
    return tile([_draw(one, *size) for one in keyframes], columns=columns)


def _draw(keyframe: KeyframePicture, width: int, height: int) -> np.ndarray:
    side = np.array([width, height, width, height])
    picture = resize(keyframe.frame, width=width, height=height)
    true = np.reshape(keyframe.true_boxes, (-1, 4)) * side
    white = np.tile(WHITE, (len(true), 1))
    picture = draw_boxes(picture, true, white, labels=keyframe.true_texts, dashed=True)
    found = np.reshape(keyframe.found_boxes, (-1, 4)) * side
    groups = stacks(found)
    texts = ["\n".join(keyframe.found_texts[i] for i in group) for group in groups]
    first = np.array([group[0] for group in groups], int)
    picture = draw_boxes(picture, found[first], class_colors(len(groups)), labels=texts)
    return captioned(picture, keyframe.title)
