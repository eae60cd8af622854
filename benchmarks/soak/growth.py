"""How fast memory grows: slopes, fitted to the samples of each life of a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Samples = Sequence[tuple[float, float]]  # (seconds, MiB)
_FEWEST = 8  # samples that are fitted


class Growth(NamedTuple):
    """Memory's growth over several lives.

    slope: MiB a minute, one for all lives, each of which has a level of its own.
    error: its standard error, MiB a minute.
    level: mean of the lives' levels, MiB.
    fitted: how many lives there were enough samples of.
    """

    slope: float
    error: float
    level: float
    fitted: int


def settled(samples: Samples) -> Samples:
    """The second half of a life: the first is imports, compilation and the first batches."""
    if not samples:
        return samples
    middle = (samples[0][0] + samples[-1][0]) / 2
    return [sample for sample in samples if sample[0] >= middle]


def slope(samples: Samples) -> float | None:
    """MiB a minute, by least squares; None of too few samples."""
    if len(samples) < _FEWEST:
        return None
    seconds, mib = np.array(samples).T
    return float(np.polyfit(seconds / 60, mib, 1)[0])


def common_growth(lives: Sequence[Samples]) -> Growth | None:
    """One slope for all lives, by least squares; None where no life has samples enough.

    The standard error takes samples for independent, which neighbouring ones are not quite.
    """
    lives = [np.array(samples) for samples in lives if len(samples) >= _FEWEST]
    if not lives:
        return None
    minutes = [(life[:, 0] - life[:, 0].mean()) / 60 for life in lives]
    mib = [life[:, 1] - life[:, 1].mean() for life in lives]
    x, y = np.concatenate(minutes), np.concatenate(mib)
    slope = float(x @ y / (x @ x))
    freedom = len(x) - len(lives) - 1
    error = float(np.sqrt(((y - slope * x) ** 2).sum() / freedom / (x @ x)))
    return Growth(slope, error, float(np.mean([life[:, 1].mean() for life in lives])), len(lives))
