"""Do a file's corners count pixels from 0 or from 1? What its numbers say about it."""

from __future__ import annotations

import numpy as np

from step_jax.annotations.model import Annotations
from step_jax.errors import InputError

_MIN_BOXES = 3  # that touch a border; fewer may be chance


def check_corner_base(base: int):
    """Raises InputError for another base than 0 and 1."""
    if base not in (0, 1):
        raise InputError(f"corner_base is {base}; expected 0 or 1")


def doubt_corner_base(annotations: Annotations) -> str | None:
    """One line if the boxes look shifted by a pixel, to the right and down or to the left and up.

    Boxes of actors who leave the image are cut at its border, in a large set always on all four
    sides. Inclusive corners that count from 0 then reach 0 and width - 1, height - 1; those that
    count from 1 and were not corrected never reach 0 but do reach width and height; those that were
    corrected without need reach -1 and never width - 1.
    """
    boxes = [
        np.concatenate([tube.boxes[:, :2], tube.boxes[:, 2:] - (video.width, video.height)], 1)
        for video in annotations.videos
        for tube in video.tubes
    ]
    if not boxes:
        return None
    low, past_high = np.hsplit(np.concatenate(boxes), 2)
    if _touch(low.min(axis=1), 1) and _touch(-past_high.max(axis=1), 0):
        return (
            "no box begins before pixel 1, and some end at the image's width or height: the "
            "corners seem to count from 1 (--corner_base 1)"
        )
    if _touch(low.min(axis=1), -1) and _touch(-past_high.max(axis=1), 2):
        return (
            "boxes reach out of the image by one pixel to the left or above, and none ends in its "
            "last column or row: the corners seem to count from 0 (--corner_base 0)"
        )
    return None


def _touch(distances: np.ndarray, limit: int) -> bool:
    """Whether `limit` is the smallest distance, of several boxes."""
    return distances.min() == limit and np.count_nonzero(distances == limit) >= _MIN_BOXES
