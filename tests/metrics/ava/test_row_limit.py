"""The rows that the official code's heap would end with."""

import heapq

import numpy as np
import pytest

from step_jax.metrics.ava import row_limit
from step_jax.metrics.ava.keyframe_boxes import KeyframeBoxes
from step_jax.metrics.ava.row_limit import within_limit


def crowd(rng, lengths):
    """Keyframes of these lengths; three scores and coarse boxes, so most tuples tie somewhere."""
    count = sum(lengths)
    return KeyframeBoxes(
        keyframe=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        label=rng.integers(0, 2, count).astype(np.int16),
        boxes=rng.integers(0, 2, (count, 4)) / 4,
        score=rng.integers(1, 4, count) / 4,
    )


def tuples(found, rows):
    x1, y1, x2, y2 = found.boxes[rows].T
    columns = (found.score[rows], found.label[rows], y1, x1, y2, x2)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def heap_of(rows, limit):
    heap = []
    for row in rows:
        if len(heap) < limit:
            heapq.heappush(heap, row)
        elif row[0] > heap[0][0]:
            heapq.heapreplace(heap, row)
    return sorted(heap)


@pytest.mark.parametrize("cells", [1, 2**22])
@pytest.mark.parametrize("seed", range(5))
def test_keeps_what_a_heap_keeps(monkeypatch, seed, cells):
    monkeypatch.setattr(row_limit, "_CELLS", cells)
    rng = np.random.default_rng(seed)
    for limit in (1, 5, 20):
        found = crowd(rng, rng.integers(1, 60, 12))
        kept = within_limit(found, limit)
        for keyframe in range(12):
            rows = np.flatnonzero(found.keyframe == keyframe)
            expected = heap_of(tuples(found, rows), limit)
            assert sorted(tuples(found, rows[kept[rows]])) == expected


def test_few_rows_all_stay():
    assert within_limit(crowd(np.random.default_rng(0), [3, 2]), 3).all()
    assert within_limit(crowd(np.random.default_rng(0), []), 3).shape == (0,)
