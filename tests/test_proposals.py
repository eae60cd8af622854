"""The initial grid against the released model's and the paper's counts."""

import itertools

import numpy as np
import pytest

from step_jax import proposals
from step_jax.errors import InputError


@pytest.mark.parametrize(("number", "spec"), [(1, 34), (2, 59), (3, 84), (4, 109)])
def test_grids_reproduce_the_released_model(data_dir, number, spec):
    with np.load(data_dir / "golden_ops_geometry.npz") as golden:
        np.testing.assert_array_equal(proposals.initial_boxes(spec), golden[f"anchors_{number}"])


def test_eleven_boxes_are_the_frame_its_centre_and_a_grid():
    expected = [(0, 0, 1, 1), (0.125, 0.125, 0.875, 0.875)]
    expected += [(x, y, x + 0.5, y + 0.5) for x, y in itertools.product((0, 0.25, 0.5), repeat=2)]
    np.testing.assert_array_equal(proposals.initial_boxes(11), expected)


@pytest.mark.parametrize(
    ("pairs", "count"),
    [(((1, 0),), 1), (((2, 0),), 4), (((2, 0.5), (3, 0)), 18), (((4 / 3, 5 / 6), (2, 3 / 4)), 34)],
)
def test_pairs_give_any_number(pairs, count):
    boxes = proposals.initial_boxes(pairs)
    assert boxes.shape == (count, 4)
    assert boxes.dtype == np.float32
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6


def test_tubes_repeat_the_boxes_in_pixels():
    tubes = proposals.initial_tubes(11, num_frames=6, height=240, width=320)
    assert tubes.shape == (11, 6, 4)
    assert tubes.dtype == np.float32
    np.testing.assert_array_equal(tubes[0], [[0, 0, 320, 240]] * 6)
    np.testing.assert_array_equal(tubes[1, 5], [40, 30, 280, 210])


def test_unknown_number_lists_the_known_ones():
    with pytest.raises(InputError, match=r"12 proposals: .* 11, 34, 59, 84, 109; .* pairs"):
        proposals.initial_boxes(12)


@pytest.mark.parametrize("pair", [(0.5, 0), (2, 1), (2, -0.1)])
def test_impossible_grids_are_refused(pair):
    with pytest.raises(InputError, match="scale >= 1 and 0 <= overlap < 1"):
        proposals.grid_boxes([pair])
