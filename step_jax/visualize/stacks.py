"""Boxes that lie on one another: an actor, found for several classes by slightly other boxes."""

from __future__ import annotations

import numpy as np

from step_jax.boxes import box_iou

SAME_IOU = 0.7  # from here on two boxes cannot be told apart by eye. Our choice


def stacks(boxes: np.ndarray) -> list[np.ndarray]:
    """Groups the boxes `[N, 4]`, the best first: indices `[n]` of each group, ascending.

    The first box left begins a group of all that overlap it by SAME_IOU, and so on.
    """
    groups, left = [], np.arange(len(boxes))
    while len(left):
        belongs = box_iou(boxes[left[:1]], boxes[left]) >= SAME_IOU
        belongs[0] = True  # even a box without area
        groups.append(left[belongs])
        left = left[~belongs]
    return groups
