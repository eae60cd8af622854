"""Clips that the device resizes: against loops, and against those that the host makes."""

import numpy as np
import pytest

from step_jax import source_clips


def centres(first, extent, size):
    return (first + extent * (np.arange(size) + 0.5) / size).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "first", "extent", "size"),
    [(9, 0, 9, 4), (9, 2, 5, 12), (20, 3, 14, 5), (6, 0, 4, 4)],
)
def test_triangles_against_loops(count, first, extent, size):
    """Only pixels of the region have a say: those beyond may be another picture's."""
    found = np.asarray(source_clips.triangles(centres(first, extent, size), count))
    ratio = extent / size
    for row in range(size):
        centre = first + (row + 0.5) * ratio
        weights = [
            max(0, 1 - abs(i + 0.5 - centre) / max(1, ratio)) * (first <= i < first + extent)
            for i in range(count)
        ]
        np.testing.assert_allclose(found[row], np.array(weights) / sum(weights), atol=1e-5)
    mirrored = source_clips.triangles(centres(first, extent, size)[::-1], count)
    np.testing.assert_allclose(mirrored, found[::-1], atol=1e-5)


def test_colours_against_numpy():
    random = np.random.default_rng(0)
    frames = random.uniform(0, 255, (2, 4, 5, 3)).astype(np.float32)
    colours = random.normal(size=(3, 5)).astype(np.float32)
    mean = np.array([40.0, 90.0, 20.0])
    luma = mean @ np.array(source_clips.LUMA)
    expected = frames @ colours[:, :3].T + colours[:, 3] * luma + colours[:, 4]
    np.testing.assert_allclose(source_clips.recolour(frames, colours, mean), expected, atol=1e-2)


def test_a_batch_with_clips_stays():
    batch = {"clips": 1, "boxes": 2}
    assert source_clips.with_clips(batch) is batch
