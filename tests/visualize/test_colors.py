import itertools

import numpy as np
import pytest

from step_jax.visualize.colors import BLACK, WHITE, class_colors, contrast, text_color

# Linear-RGB simulation of a missing M cone (Viénot, Brettel and Mollon 1999).
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])


def test_contrast_of_known_pairs():
    assert contrast(BLACK, WHITE) == pytest.approx(21)
    assert contrast(WHITE, np.array([119, 119, 119])) == pytest.approx(4.48, abs=0.01)


def test_text_is_readable_on_every_class():
    for color in class_colors(21):
        assert contrast(color, text_color(color)) >= 4.5


def test_colors_differ_and_repeat():
    colors = class_colors(60)
    assert len({tuple(color) for color in colors}) == 21
    np.testing.assert_array_equal(colors[21:42], colors[:21])


def test_first_colors_differ_without_green_cones():
    linear = (class_colors(7) / 255) ** 2.2
    seen = 255 * np.clip(linear @ DEUTERANOPIA.T, 0, 1) ** (1 / 2.2)
    for a, b in itertools.combinations(seen, 2):
        assert np.abs(a - b).max() > 25
