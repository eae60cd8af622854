import cv2
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.visualize.png import write_png


def test_png_only(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = 255
    write_png(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[0, 0], [0, 0, 255])
    with pytest.raises(InputError, match=r"expected \.png"):
        write_png(tmp_path / "a.jpg", picture)
