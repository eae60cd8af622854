"""The ground truth that a training step compares its tubes with."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import boxes as box_ops
from step_jax.models.step import StepPlan

Array = jax.Array
PyTree = Any

FRAMES = ("all", "middle")


class Targets(NamedTuple):
    """Ground truth of a batch on the feature frames of the longest window.

    Attributes:
      boxes: `[B, G, T, 4]`, input pixels.
      box_mask: bool `[B, G, T]`.
      labels: `[B, G, C]`, multi-hot.
      tube_mask: bool `[B, G]`, tubes present in the target clip.
    """

    boxes: Array
    box_mask: Array
    labels: Array
    tube_mask: Array


def targets_of(batch: PyTree, *, temporal_stride: int) -> Targets:
    """Ground truth at the middle input frame of each feature frame."""
    middle = slice(temporal_stride // 2, None, temporal_stride)
    return Targets(
        boxes=batch["boxes"][:, :, middle],
        box_mask=batch["box_mask"][:, :, middle],
        labels=batch["labels"],
        tube_mask=batch["tube_mask"],
    )


def with_boxes(targets: Targets, *, within: slice = slice(None)) -> Targets:
    """`targets` whose tubes without any box at the frames `within` count as absent."""
    has_box = targets.box_mask[:, :, within].any(axis=-1)
    return targets._replace(tube_mask=targets.tube_mask & has_box)


def overlaps(targets: Targets, tubes: Array, plan: StepPlan, *, frames: str) -> Array:
    """Overlap of the ground truth with fed `tubes [B, M, L, 4]`: `[B, G, M]`.

    It is the mean IoU over "all" frames of the target clip that have a box (Section 3.4), or the
    IoU at its "middle" frame alone (the released model).
    """
    ours = _frames_that_count(plan, tubes.shape[2], frames)
    window = _frames_that_count(plan, targets.boxes.shape[2], frames)
    overlap = box_ops.tube_iou(
        tubes[:, :, ours],
        targets.boxes[:, :, window],
        frame_mask=targets.box_mask[:, :, window],
    )
    return overlap.swapaxes(-1, -2)


def _frames_that_count(plan: StepPlan, length: int, frames: str) -> slice:
    """Of a tube of `length` frames."""
    middle = length // 2
    return plan.target(length) if frames == "all" else slice(middle, middle + 1)


def nearest_boxes(boxes: Array, mask: Array) -> Array:
    """`boxes [..., T, 4]` with those that `mask [..., T]` lacks taken from the nearest frame.

    Of two equally near frames the earlier one counts. Tubes without any box stay as they are.
    """
    frames = np.arange(mask.shape[-1])
    distance = np.abs(frames[:, None] - frames)
    nearest = jnp.where(mask[..., None, :], distance, len(frames)).argmin(axis=-1)
    filled = jnp.take_along_axis(boxes, nearest[..., None], axis=-2)
    return jnp.where(mask.any(axis=-1)[..., None, None], filled, boxes)
