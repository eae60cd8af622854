import numpy as np
import pytest

from step_jax.visualize.panels import GAP, captioned, display_size, grid_columns, tile


@pytest.mark.parametrize(
    ("count", "width", "height", "columns"),
    [
        (1, 16, 9, 1),
        (2, 16, 9, 2),
        (3, 16, 9, 2),
        (4, 16, 9, 2),
        (2, 96, 96, 2),
        (3, 96, 96, 3),
        (4, 96, 96, 2),
        (4, 9, 16, 4),
    ],
)
def test_pictures_are_large_on_a_screen(count, width, height, columns):
    assert grid_columns(count, width=width, height=height) == columns


def test_display_size_enlarges_small_and_shrinks_wide():
    assert display_size(96, 64, columns=1, shortest=360, widest=1920) == (540, 360)
    assert display_size(1280, 720, columns=1, shortest=360, widest=1920) == (1280, 720)
    assert display_size(1280, 720, columns=2, shortest=360, widest=1920) == (960, 540)
    assert display_size(10000, 3, columns=1, shortest=360, widest=1920) == (1920, 1)


def test_tile_puts_pictures_row_by_row():
    pictures = [np.full((5, 7, 3), 10 * number, np.uint8) for number in (1, 2, 3)]
    whole = tile(pictures, columns=2)
    assert whole.shape == (10 + GAP, 14 + GAP, 3)
    assert (whole[:5, :7] == 10).all()
    assert (whole[:5, 7 + GAP :] == 20).all()
    assert (whole[5 + GAP :, :7] == 30).all()
    assert (whole[5 + GAP :, 7 + GAP :] == 0).all()
    assert (whole[:, 7 : 7 + GAP] == 0).all()


def test_caption_lies_above_the_picture():
    picture = np.full((50, 90, 3), 200, np.uint8)
    result = captioned(picture, "step 1")
    np.testing.assert_array_equal(result[-50:], picture)
    bar = result[:-50]
    assert bar.max() == 255
    assert (bar[:, [0, -1]] == 40).all()
