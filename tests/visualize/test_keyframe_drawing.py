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
    annotated, found = draw_keyframes([picture(**nothing)]), draw_keyframes([picture(**nobody)])
    assert plain.shape == annotated.shape
    for drawn, left, right in ((annotated, 0.1, 0.4), (found, 0.6, 0.9)):
        columns = touched(drawn, plain)
        assert abs(columns.min() - left) < 0.02
        assert abs(columns.max() - right) < 0.1  # the label may be wider


def test_a_grid_of_equal_pictures():
    one = draw_keyframes([picture()])
    grid = draw_keyframes([picture()] * 3, columns=2)
    assert grid.shape[0] > 2 * one.shape[0] - 10
    assert grid.shape[1] > 2 * one.shape[1] - 10
