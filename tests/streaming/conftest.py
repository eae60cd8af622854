"""A detector made of arithmetic, and videos whose frames show their numbers."""

import types

import cv2
import numpy as np
import pytest

from step_jax.inference import Tubelets
from step_jax.modality import RGB
from step_jax.proposals import initial_boxes

CLASSES = ("walk", "hop")


class ArithmeticPredictor:
    """Stands in for `Predictor`: what it finds follows from the brightness of the frames it sees.

    Every frame's brightness is its number. The score of tubelet m and class c depends on the first
    target frame and the step; the boxes of the target's frames on each frame and on (m, c).
    """

    classes = CLASSES
    proposals = 11
    image_size = 16
    flow_side = 0
    step = 70
    num_steps = 2

    def __init__(self, *, clip_frames=3, input_frames=7, fps=0.0, modality=RGB):
        self.modality = modality
        self.clip_frames, self.input_frames, self.fps = clip_frames, input_frames, fps
        self.shapes = set()

    def __call__(self, clips):
        self.shapes.add(clips.shape)
        before = (self.input_frames - self.clip_frames) // 2
        target = slice(before, before + self.clip_frames)
        seen = clips[:, target].mean(axis=(2, 3, 4)).round()
        return [self._tubelets(seen, step) for step in range(1, self.num_steps + 1)]

    def _tubelets(self, seen, step):
        m, c = np.meshgrid(np.arange(11), np.arange(2), indexing="ij")
        scores = (seen[:, :1, None] * 7 + m * 13 + c * 29 + step * 31) % 97 / 97
        x = (seen[:, None, None, :] * 3 + (m * 5 + c * 11)[None, :, :, None]) % 61 / 100
        y = (m * 7 % 41 / 100)[None, :, :, None] + 0 * x
        return Tubelets(
            scores=scores.astype(np.float32),
            tubes=np.stack([x, y, x + 0.3, y + 0.4], axis=-1).astype(np.float32),
            fed=np.repeat(initial_boxes(11)[None, :, None], len(seen), axis=0),
        )


def numbered_frame(number, *, width=40, height=30):
    return np.full((height, width, 3), number, np.uint8)


@pytest.fixture
def arithmetic():
    return types.SimpleNamespace(Predictor=ArithmeticPredictor, frame=numbered_frame)


@pytest.fixture
def frame_folder(tmp_path):
    """Makes a folder of n lossless images, each as bright as its number."""

    def make(count, name="numbers", **size):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            cv2.imwrite(str(folder / f"{number:04d}.png"), numbered_frame(number, **size))
        return folder

    return make
