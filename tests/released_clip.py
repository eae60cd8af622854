"""The clips and ground truth that the numbers in tests/data/released_*.npz were made from."""

from __future__ import annotations

import numpy as np

_KNOTS = ((0.75, (7, 9, 9)), (0.45, (13, 41, 41)))  # (amplitude, grid of time, rows, columns)


def make_clip(seed: int, *, batch: int, frames: int, side: int) -> np.ndarray:
    """Smooth noise, normalised: float32 `[B, T, S, S, 3]` in [-1, 1], the same bits everywhere."""
    random = np.random.default_rng(seed)
    grids = [random.random((batch, 3, *shape)) * 2 - 1 for _, shape in _KNOTS]
    clips = np.empty((batch, frames, side, side, 3), np.float32)
    for b, channel in np.ndindex(batch, 3):  # one by one, which keeps the memory small
        value = 0.0
        for (amplitude, _), grid in zip(_KNOTS, grids, strict=True):
            noise = grid[b, channel]
            for axis, size in enumerate((frames, side, side)):
                noise = _stretch(noise, size, axis)
            value = value + amplitude * noise
        clips[b, ..., channel] = np.clip(value, -1, 1)
    return clips


def _stretch(grid: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Linear interpolation along an axis to `size` samples, the ends on the ends."""
    knots = grid.shape[axis]
    place = np.arange(size) * ((knots - 1) / (size - 1))
    lower = np.minimum(np.floor(place).astype(int), knots - 2)
    share = (place - lower).reshape([-1 if i == axis else 1 for i in range(grid.ndim)])
    low, high = np.take(grid, lower, axis), np.take(grid, lower + 1, axis)
    return low + share * (high - low)


def make_ground_truth(
    seed: int, *, side: int, chunks: int = 3, num_classes: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Three moving people of one clip at the middle of each chunk.

    The second lacks the first chunk, the third the last one.

    Returns:
      boxes float32 `[3, chunks, 4]` in pixels, zeros where there is none; labels `[3, C]`, 0 or 1.
    """
    random = np.random.default_rng(1000 + seed)
    boxes = np.zeros((3, chunks, 4), np.float32)
    labels = np.zeros((3, num_classes), np.float32)
    for person in range(3):
        centre = random.random(2) * 0.5 + 0.25
        half = (random.random(2) * 0.35 + 0.25) / 2
        velocity = (random.random(2) - 0.5) * 0.1
        labels[person, random.choice(num_classes, 1 + random.integers(3), replace=False)] = 1
        for chunk in range(chunks):
            if (person, chunk) not in ((1, 0), (2, chunks - 1)):
                moved = centre + velocity * (chunk - chunks // 2)
                corners = np.concatenate([moved - half, moved + half])
                boxes[person, chunk] = np.clip(corners, 0, 1) * side
    return boxes, labels
