"""Optical flow as an 8-bit image: the layout of the distributed flow of UCF101-24.

Red is the flow along x, green along y, blue its magnitude; 128 is no motion, 16 levels are a pixel,
and what exceeds 8 px is clipped.
"""

from __future__ import annotations

import numpy as np

BOUND_PX = 8.0

_LEVELS_PER_PX = 128 / BOUND_PX
_ZERO = 128


def encode_flow(flow: np.ndarray) -> np.ndarray:
    """Flow [..., H, W, 2] (x, y) in pixels -> uint8 [..., H, W, 3]: x, y, magnitude.

    A value is round(clip(16 f + 128, 0, 255)), of halves the even one (NumPy's and OpenCV's
    rounding; only multiples of 1/32 px that are odd meet it). So 128 is exact zero, +8 px would be
    256 and is clipped, and the blue of an image lies in [128, 255].

    Mirroring a flow image left to right also maps its red, v -> 255 - v. That is one level less
    than the encoded flow of the mirrored frames where neither is clipped (128 -> 127): the
    convention of the published code, kept.

    Raises ValueError for another shape or a flow that is not finite.
    """
    flow = np.asarray(flow, np.float32)
    if flow.ndim < 3 or flow.shape[-1] != 2:
        raise ValueError(f"flow has the shape {flow.shape}; expected [..., H, W, 2]")
    if not np.isfinite(flow).all():
        raise ValueError("flow has values that are not finite")
    magnitude = np.hypot(flow[..., :1], flow[..., 1:])
    levels = _LEVELS_PER_PX * np.concatenate([flow, magnitude], axis=-1) + _ZERO
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def decode_flow(image: np.ndarray) -> np.ndarray:
    """A flow image uint8 [..., H, W, 3] -> float32 [..., H, W, 2] px, within 1/32 px if unclipped.

    Raises ValueError for another type or shape.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim < 3 or image.shape[-1] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 [..., H, W, 3]")
    return (image[..., :2].astype(np.float32) - _ZERO) / np.float32(_LEVELS_PER_PX)
