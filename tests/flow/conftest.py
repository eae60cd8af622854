"""Small videos with texture that moves."""

import cv2
import numpy as np
import pytest


def _texture(height=48, width=64, seed=0):
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def moving():
    """`moving(count, step=2)`: RGB frames whose content goes `step` px to the right each time."""

    def make(count, step=2, **size):
        frames = (np.roll(_texture(**size), step * number, axis=1) for number in range(count))
        return [np.repeat(frame[..., None], 3, axis=-1) for frame in frames]

    return make


@pytest.fixture
def frame_folder(moving):
    """`frame_folder(path, count)` writes a folder of PNG frames."""

    def write(path, count, **options):
        path.mkdir(parents=True)
        for number, frame in enumerate(moving(count, **options), start=1):
            assert cv2.imwrite(str(path / f"{number:05d}.png"), frame)
        return path

    return write
