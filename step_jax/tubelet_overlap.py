"""The overlap of very many tubelets: mean IoU over frames, with both border pixels in a box.

What `step_jax.boxes.box_iou` with `inclusive` says, for arrays laid out so that the long axis, that
of the windows, comes last. Sums run frame by frame: the same two tubelets have the same overlap to
the last bit however many others are compared in the same call. numpy only.
"""

from __future__ import annotations

import numpy as np

_TINY = np.float32(1e-30)  # area of a box that has none: overlaps nothing, instead of 0 / 0


def overlap_planes(tubes: np.ndarray) -> np.ndarray:
    """Tubelets in pixels `[n, P, K, 4]` as planes `[5, K, P, n]` for `mean_overlap`.

    The planes are x1, y1, x2 + 1, y2 + 1 and the area.
    """
    n, P, K, _ = tubes.shape
    planes = np.empty((5, K, P, n), np.float32)
    planes[:4] = tubes.transpose(3, 2, 1, 0)
    planes[2:4] += 1
    sides = np.maximum(planes[2:4] - planes[:2], 0)
    np.maximum(sides[0] * sides[1], _TINY, out=planes[4])
    return planes


def mean_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean IoU over the frames of planes `[5, k, ...]`, broadcasting, to float32 `[...]`."""
    shared = np.minimum(a[2], b[2])
    shared -= np.maximum(a[0], b[0])
    np.maximum(shared, 0, out=shared)
    height = np.minimum(a[3], b[3])
    height -= np.maximum(a[1], b[1])
    np.maximum(height, 0, out=height)
    shared *= height
    union = np.add(a[4], b[4], out=height)
    union -= shared
    shared /= union
    total = shared[0]
    for frame in shared[1:]:
        total += frame
    total /= np.float32(len(shared))
    return total
