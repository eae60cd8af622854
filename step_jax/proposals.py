"""The initial proposals: a coarse grid of boxes, the same at every frame (paper, Figure 2)."""

from __future__ import annotations

import numpy as np

from step_jax.boxes import scale_boxes
from step_jax.errors import InputError

# Every grid of the released model's family extends the one before.
_PAIRS = ((4 / 3, 5 / 6), (2, 3 / 4), (3, 1 / 2), (4, 1 / 4), (5, 0))
_GRIDS = {34: _PAIRS[:2], 59: _PAIRS[:3], 84: _PAIRS[:4], 109: _PAIRS[:5]}


def grid_boxes(pairs):
    """Normalised boxes `[M, 4]`, float32, of every (scale, overlap) of `pairs` in turn.

    A pair gives boxes of side 1/scale at stride side * (1 - overlap), as many as fit, x in the
    outer loop and y in the inner.

    Raises:
        InputError: a scale below 1 or an overlap outside [0, 1).
    """
    return np.concatenate([_grid(scale, overlap) for scale, overlap in pairs])


def _grid(scale, overlap):
    """The boxes of one (scale, overlap)."""
    if scale < 1 or not 0 <= overlap < 1:
        raise InputError(f"proposal grid ({scale}, {overlap}): scale >= 1 and 0 <= overlap < 1")
    side = 1 / scale
    stride = side * (1 - overlap)
    count = int((1 - side) / stride + 1e-6) + 1  # 1e-6: a box that ends on the border fits
    starts = np.arange(count) * stride
    x, y = (axis.ravel() for axis in np.meshgrid(starts, starts, indexing="ij"))
    return np.stack([x, y, x + side, y + side], axis=-1).astype(np.float32)


def initial_boxes(spec):
    """The initial boxes `[M, 4]`, normalised, float32.

    Args:
        spec: M, one of 11 (Figure 2), 34, 59, 84, 109; or a sequence of (scale, overlap) pairs as
            `grid_boxes` takes, for any other M.

    Raises:
        InputError: a number that names no grid.
    """
    if not isinstance(spec, int):
        return grid_boxes(spec)
    if spec == 11:
        return _eleven_boxes()
    if spec not in _GRIDS:
        known = ", ".join(map(str, (11, *_GRIDS)))
        raise InputError(
            f"no initial grid has {spec} proposals: the known ones have {known}; "
            "for others give (scale, overlap) pairs, such as ((4/3, 5/6), (2, 3/4)) for 34"
        )
    return grid_boxes(_GRIDS[spec])


def _eleven_boxes():
    """The whole frame, the central box of side 3/4, and side 1/2 on a 3x3 grid.

    Our choice: the paper draws its 11 boxes (Figure 2) but does not list them.
    """
    large = np.array([[0, 0, 1, 1], [1 / 8, 1 / 8, 7 / 8, 7 / 8]], np.float32)
    return np.concatenate([large, grid_boxes([(2, 1 / 2)])])


def initial_tubes(spec, *, num_frames, height, width):
    """The initial boxes of `spec` as cuboids: float32 `[M, num_frames, 4]` in pixels."""
    boxes = scale_boxes(initial_boxes(spec), width=width, height=height)
    return np.repeat(boxes[:, None], num_frames, axis=1)
