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


def draw_keyframes(
    keyframes: Sequence[KeyframePicture], *, columns: int | None = None
) -> np.ndarray:
    """All in a grid, uint8 [H, W, 3]. Where something was found anywhere, each is drawn twice:
    as annotated, and as detected over the annotated outlines."""
    twice = any(len(one.found_boxes) for one in keyframes)
    height, width = keyframes[0].frame.shape[:2]
    wide = width * (1 + twice)
    columns = columns or grid_columns(len(keyframes), width=wide, height=height)
    size = display_size(
        width, height, columns=columns * (1 + twice), shortest=SHORTEST_PX, widest=WIDEST_PX
    )
    return tile([_draw(one, *size, twice=twice) for one in keyframes], columns=columns)


def _draw(keyframe: KeyframePicture, width: int, height: int, *, twice: bool) -> np.ndarray:
    plain = resize(keyframe.frame, width=width, height=height)
    annotated = _annotated(plain, keyframe, labels=keyframe.true_texts)
    if not twice:
        return captioned(annotated, keyframe.title)
    outlined = _annotated(plain, keyframe, labels=None)
    both = np.concatenate([annotated, _detected(outlined, keyframe)], axis=1)
    return captioned(both, f"{keyframe.title}: annotated, detected")


def _annotated(
    picture: np.ndarray, keyframe: KeyframePicture, *, labels: Sequence[str] | None
) -> np.ndarray:
    boxes = _in_pixels(keyframe.true_boxes, picture)
    white = np.tile(WHITE, (len(boxes), 1))
    return draw_boxes(picture, boxes, white, labels=labels, dashed=True)


def _detected(picture: np.ndarray, keyframe: KeyframePicture) -> np.ndarray:
    """Actions that are found on the same box share it."""
    boxes = _in_pixels(keyframe.found_boxes, picture)
    groups = stacks(boxes)
    texts = ["\n".join(keyframe.found_texts[i] for i in group) for group in groups]
    first = np.array([group[0] for group in groups], int)
    return draw_boxes(picture, boxes[first], class_colors(len(groups)), labels=texts)


def _in_pixels(boxes: np.ndarray, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.reshape(boxes, (-1, 4)) * np.array([width, height, width, height])
