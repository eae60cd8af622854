"""How PyTorch's arrays lie in memory and how ours do, both ways."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


class Layout(Protocol):
    """A rearrangement of a parameter's numbers that can be undone."""

    def ours(self, theirs: np.ndarray) -> np.ndarray: ...

    def theirs(self, ours: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Axes:
    """The same numbers with the axes in another order: ours[i] is their axis `order[i]`."""

    order: tuple[int, ...]

    def ours(self, theirs: np.ndarray) -> np.ndarray:
        return theirs.transpose(self.order)

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        return ours.transpose(np.argsort(self.order))


@dataclasses.dataclass(frozen=True)
class Flattened:
    """A linear layer over RoI features, which PyTorch flattens as (C, P, P) and we as (P, P, C).

    Theirs is `[O, C * P * P + D, 1, ...]`, ours `[P * P * C + D, O]`; the last D columns are those
    of the scene context.

    Attributes:
      channels: C.
      unit_axes: how many axes of size 1 follow theirs: a layer written as a convolution has three.
      context: D.
    """

    channels: int
    unit_axes: int = 0
    context: int = 0

    def ours(self, theirs: np.ndarray) -> np.ndarray:
        rows = theirs.reshape(theirs.shape[:2]).T
        split = len(rows) - self.context
        pooled = rows[:split].reshape(self.channels, -1, rows.shape[1])
        return np.concatenate([pooled.swapaxes(0, 1).reshape(split, -1), rows[split:]])

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        split = len(ours) - self.context
        pooled = ours[:split].reshape(-1, self.channels, ours.shape[1])
        rows = np.concatenate([pooled.swapaxes(0, 1).reshape(split, -1), ours[split:]])
        return rows.T.reshape(*rows.T.shape, *[1] * self.unit_axes)


SAME = Axes((0,))
CONV3D = Axes((2, 3, 4, 1, 0))  # OIDHW -> DHWIO
CONV2D = Axes((2, 3, 1, 0))  # OIHW -> HWIO
