"""How fast memory grows: slopes, fitted to the samples of each life of a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Samples = Sequence[tuple[float, float]]  # (seconds, MiB)
_FEWEST = 8  # samples that are fitted
_NEAR = 0.9  # of a life's highest memory


class Growth(NamedTuple):
    """Memory's growth over several lives.

    slope: MiB a minute, one for all lives, each of which has a level of its own.
    error: its standard error, MiB a minute.
    levels: of each life, MiB.
    """

    slope: float
    error: float
    levels: tuple[float, ...]


def settled(samples: Samples) -> Samples:
    """A life from where its memory first comes near its highest: the ramp before is its start."""
    highest = max((mib for _, mib in samples), default=0.0)
    ramp = (index for index, (_, mib) in enumerate(samples) if mib >= _NEAR * highest)
    return samples[next(ramp, 0) :]


def common_growth(lives: Sequence[Samples]) -> Growth | None:
    """One slope for all lives, by least squares; None where no life has samples enough.

    Its error is by how the lives differ, because neighbouring samples are not independent of one
    another; of one life alone it takes them for that.
    """
    lives = [np.array(samples) for samples in lives if len(samples) >= _FEWEST]
    if not lives:
        return None
    minutes = [(life[:, 0] - life[:, 0].mean()) / 60 for life in lives]
    mib = [life[:, 1] - life[:, 1].mean() for life in lives]
    squares = sum(x @ x for x in minutes)
    slope = sum(x @ y for x, y in zip(minutes, mib, strict=True)) / squares
    rest = [y - slope * x for x, y in zip(minutes, mib, strict=True)]
    if len(lives) > 1:
        pulls = [x @ one for x, one in zip(minutes, rest, strict=True)]
        variance = sum(pull**2 for pull in pulls) * len(lives) / (len(lives) - 1) / squares**2
    else:
        variance = (rest[0] @ rest[0]) / (len(rest[0]) - 2) / squares
    levels = tuple(float(np.median(life[:, 1])) for life in lives)
    return Growth(float(slope), float(np.sqrt(variance)), levels)
