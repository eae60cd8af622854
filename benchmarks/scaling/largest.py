"""The largest batch that fits into an accelerator's memory, and what every batch up to it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from benchmarks.scaling.cases import Case
from benchmarks.scaling.measurements import Measurement

_FINEST = 8  # the largest is known to an eighth


def measure_up_to_largest(
    case: Case, measure: Callable[[Case], Measurement], *, limit: int
) -> list[Measurement]:
    """Doubles the batch of `case` until it does not fit, then halves the gap.

    Args:
      measure: of one case; its `fits` says whether there was memory enough.
      limit: no batch is larger.
    """
    measured: list[Measurement] = []
    while (batch := next_batch([(one.case.batch, one.fits) for one in measured])) <= limit:
        measured.append(measure(dataclasses.replace(case, batch=batch, value=batch)))
        if not measured[0].fits or is_settled([(one.case.batch, one.fits) for one in measured]):
            break
    return sorted(measured, key=lambda one: one.case.batch)


def next_batch(tried: Sequence[tuple[int, bool]]) -> int:
    """What to try after (batch, whether it fits) pairs."""
    if not tried:
        return 1
    fits, too_large = _bounds(tried)
    return 2 * fits if too_large is None else (fits + too_large) // 2


def is_settled(tried: Sequence[tuple[int, bool]]) -> bool:
    """Whether the largest batch that fits is known to an eighth."""
    fits, too_large = _bounds(tried)
    return too_large is not None and too_large - fits <= max(1, fits // _FINEST)


def _bounds(tried: Sequence[tuple[int, bool]]) -> tuple[int, int | None]:
    """The largest that fits, the smallest that does not."""
    largest = max((batch for batch, fits in tried if fits), default=0)
    return largest, min((batch for batch, fits in tried if not fits), default=None)
