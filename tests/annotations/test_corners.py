"""Boxes of which some touch each border of the image tell from where their pixels count."""

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.annotations.corners import doubt_corner_base

WIDTH, HEIGHT = 32, 24


def annotations(boxes, shift):
    tube = Tube((0,), np.arange(len(boxes)), np.array(boxes, np.float32) + shift)
    video = Video("v", "v", "test", 25.0, 99, WIDTH, HEIGHT, [tube])
    return Annotations("set", ("a",), [video], "root")


def at_the_borders(times):
    return [(0, 5, 9, 9), (5, 0, 9, 9), (5, 5, WIDTH - 1, 9), (5, 5, 9, HEIGHT - 1)] * times


@pytest.mark.parametrize(
    ("shift", "words"),
    [(0, None), (1, "count from 1 .--corner_base 1"), (-1, "count from 0 .--corner_base 0")],
)
def test_a_shift_by_one_pixel_is_noticed(shift, words):
    doubt = doubt_corner_base(annotations(at_the_borders(2), shift))
    assert (doubt is None) if words is None else words[:12] in doubt
    assert words is None or words[-13:] in doubt


def test_few_boxes_and_those_inside_prove_nothing():
    assert doubt_corner_base(annotations(at_the_borders(1), 1)) is None
    assert doubt_corner_base(annotations([(5, 5, 9, 9)] * 9, 1)) is None
    empty = Annotations("set", ("a",), [Video("v", "v", "test", 25.0, 9, 9, 9, [])], "root")
    assert doubt_corner_base(empty) is None
