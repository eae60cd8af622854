"""Keyframes drawn with annotated and detected people."""

import numpy as np

from step_jax.visualize.keyframes import KeyframePicture, draw_keyframes


def picture(**changes):
    told = {
        "title": "v 902",
        "frame": np.full((300, 400, 3), 90, np.uint8),
        "true_boxes": np.array([[0.1, 0.2, 0.4, 0.9]]),
        "true_texts": ["stand\nthrow"],
        "found_boxes": np.array([[0.6, 0.2, 0.9, 0.9], [0.61, 0.21, 0.9, 0.9]]),
        "found_texts": ["stand 0.90", "throw 0.50"],
    }
    return KeyframePicture(**{**told, **changes})


def touched(drawn, plain):
    """The columns in which two pictures differ, as shares of the width."""
    return np.flatnonzero((drawn != plain).any(axis=(0, 2))) / drawn.shape[1]


def test_both_kinds_of_boxes_are_where_they_should_be():
    nothing = {"found_boxes": np.zeros((0, 4)), "found_texts": []}
    nobody = {"true_boxes": np.zeros((0, 4)), "true_texts": []}
    plain = draw_keyframes([picture(**nothing, **nobody)])
    columns = touched(draw_keyframes([picture(**nothing)]), plain)
    assert abs(columns.min() - 0.1) < 0.02
    assert abs(columns.max() - 0.4) < 0.1  # the label may be wider
    found = draw_keyframes([picture(**nobody)])
    half = found.shape[1] // 2
    bar = found.shape[0] - 300  # the title is over both
    columns = touched(found[bar:, half : 2 * half], found[bar:, :half])
    assert abs(columns.min() - 0.6) < 0.02
    assert abs(columns.max() - 0.9) < 0.1


def test_a_grid_of_equal_pictures():
    one = draw_keyframes([picture()])
    grid = draw_keyframes([picture()] * 3, columns=2)
    assert grid.shape[0] > 2 * one.shape[0] - 10
    assert grid.shape[1] > 2 * one.shape[1] - 10
