"""Detectors that see the bright square of `tiny_run`'s videos, without a model."""

from __future__ import annotations

import numpy as np
import tiny_run

from step_jax.inference import Tubelets
from step_jax.modality import RGB


class KeyframePredictor:
    """Sees the bright square in the frame in the middle of what it is given, and where it goes.

    Its target clips are one feature frame of four frames long, which all get that one's box.
    """

    classes, step, num_steps = tiny_run.CLASSES, 1, 1
    clip_frames, input_frames, image_size = 4, 4, tiny_run.SIDE
    modality, variables = RGB, {}

    def prefetch(self, batches):
        return ((batch, batch["clips"]) for batch in batches)

    def __call__(self, clips):
        boxes = np.stack([[square(frame) for frame in clip[::2]] for clip in clips])
        goes_left = boxes[:, 0, 0] > boxes[:, 1, 0]
        scores = np.where(goes_left[:, None, None], [[[0.9, 0.2]]], [[[0.2, 0.9]]])
        tubes = np.repeat(boxes[:, None, None, 1:], 4, axis=3) / tiny_run.SIDE
        return [Tubelets(scores.astype(np.float32), tubes.astype(np.float32), None)]


def square(frame):
    rows, columns = np.nonzero(frame[..., 0] > 150)
    if not len(rows):
        return [0, 0, 0, 0]  # the padding of a batch
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


class FollowingPredictor(KeyframePredictor):
    """Sees the bright square in each frame; its first step is half as sure and a little off."""

    num_steps = 2

    def __call__(self, clips):
        boxes = np.array([[square(frame) for frame in clip] for clip in clips], np.float32)
        goes_left = boxes[:, 0, 0] > boxes[:, 1, 0]
        scores = np.where(goes_left[:, None, None], [[[0.9, 0.2]]], [[[0.2, 0.9]]])
        tubes = boxes[:, None, None] / tiny_run.SIDE
        first = Tubelets((scores / 2).astype(np.float32), tubes + np.float32(0.1), None)
        return [first, Tubelets(scores.astype(np.float32), tubes, None)]


def tubes_config(squares, **changes):
    """Windows of 4 frames at stride 1 of videos of 9 and 5 frames."""
    values = {"eval__tubes": True, "eval__stride": 1, "eval__link__min_frames": 5, **changes}
    return tiny_run.config(squares, **values)
