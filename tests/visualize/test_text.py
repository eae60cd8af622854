import numpy as np

from step_jax.visualize.colors import BLACK, WHITE
from step_jax.visualize.text import chip_size, draw_chip, text_mask


def test_all_texts_of_a_size_are_equally_high():
    heights = {text_mask(text, 20).shape[0] for text in ("a", "Åg", "hold/carry (x)", "läuft")}
    assert len(heights) == 1


def test_text_has_ink_and_its_width():
    assert text_mask("walk", 20).max() == 255
    assert text_mask("walk walk", 20).shape[1] > 1.8 * text_mask("walk", 20).shape[1]
    assert (text_mask("ä", 20) != text_mask("ö", 20)).any()
    assert text_mask("", 20).max() == 0


def test_chip_fills_its_rectangle_only():
    picture = np.full((60, 120, 3), 7, np.uint8)
    draw_chip(picture, "hop", x=10, y=5, size=16, color=BLACK, background=WHITE)
    width, height = chip_size("hop", 16)
    assert (picture[5 : 5 + height, 10 : 10 + width] != 7).any(axis=2).all()
    picture[5 : 5 + height, 10 : 10 + width] = 7
    assert (picture == 7).all()


def test_chip_is_cut_off_at_the_border():
    whole = np.zeros((60, 120, 3), np.uint8)
    draw_chip(whole, "hop", x=20, y=20, size=16, color=BLACK, background=WHITE)
    for x, y in ((-8, -8), (100, 50), (200, 0), (0, -100)):
        picture = np.zeros((60, 120, 3), np.uint8)
        draw_chip(picture, "hop", x=x, y=y, size=16, color=BLACK, background=WHITE)
        shifted = np.zeros_like(whole)
        for row in range(60):
            for column in range(120):
                if 0 <= row - y + 20 < 60 and 0 <= column - x + 20 < 120:
                    shifted[row, column] = whole[row - y + 20, column - x + 20]
        np.testing.assert_array_equal(picture, shifted)
