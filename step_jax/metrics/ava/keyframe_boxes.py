"""Boxes with a class on numbered keyframes: what both sides of the metric are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations.ava_csv import Keyframes


@dataclass(frozen=True, eq=False)
class KeyframeBoxes:
    """N boxes as columns.

    keyframe: int32 [N], numbered as the caller likes.
    label: int16 [N], class from 0.
    boxes: float [N, 4], x1 y1 x2 y2.
    score: float [N]; None of ground truth.
    """

    keyframe: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    score: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keyframe)

    def take(self, rows: np.ndarray) -> KeyframeBoxes:
        """The rows at an index array or under a mask; `self` if that is all of them."""
        if rows.dtype == bool and rows.all():
            return self
        score = None if self.score is None else self.score[rows]
        return KeyframeBoxes(self.keyframe[rows], self.label[rows], self.boxes[rows], score)


def number_keyframes(lists: Sequence[Keyframes]) -> tuple[int, list[np.ndarray]]:
    """Numbers the keyframes that occur in any list, from 0, by video name and then timestamp.

    Returns how many they are, and of each list the numbers of its rows, int32 [N].
    """
    videos = sorted({name for rows in lists for name in rows.videos})
    index = {name: i for i, name in enumerate(videos)}
    filled = [rows.timestamp for rows in lists if len(rows)]
    first = min((int(seconds.min()) for seconds in filled), default=0)
    seconds = 1 + max((int(seconds.max()) for seconds in filled), default=0) - first

    occurs = np.zeros(len(videos) * seconds, bool)
    keys = []
    for rows in lists:
        ours = np.array([index[name] for name in rows.videos], np.int64)
        keys.append((ours * seconds - first)[rows.video] + rows.timestamp)
        occurs[keys[-1]] = True
    number = np.cumsum(occurs, dtype=np.int32) - 1
    return int(np.count_nonzero(occurs)), [number[key] for key in keys]


def by_keyframe(keyframe: np.ndarray) -> np.ndarray | None:
    """What sorts rows by keyframe and leaves those of one in their order; None if they are so."""
    if (keyframe[1:] >= keyframe[:-1]).all():
        return None
    # NumPy sorts 16 bits by radix, several times as fast; AVA's validation has fewer keyframes.
    narrow = keyframe.max() < 2**16
    return np.argsort(keyframe.astype(np.uint16) if narrow else keyframe, kind="stable")
