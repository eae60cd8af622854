"""Small videos whose frames can be told apart after lossy compression."""

import numpy as np
import pytest

from step_jax.video import VideoWriter


def _coded_frame(number, width=64, height=48):
    """A frame that carries `number` (0 to 255) in eight black or white columns of blocks."""
    bits = (number >> np.arange(8)) & 1
    row = np.repeat(bits, -(-width // 8))[:width] * 255
    return np.broadcast_to(row[:, None], (height, width, 3)).astype(np.uint8)


def _decode_frame(frame):
    """The number in a frame that `_coded_frame` made."""
    columns = (np.arange(8) + 0.5) * frame.shape[1] / 8
    bits = frame[frame.shape[0] // 2, columns.astype(int), 1] > 127
    return int(bits @ (1 << np.arange(8)))


@pytest.fixture
def coded_frame():
    return _coded_frame


@pytest.fixture
def decode_frame():
    return _decode_frame


@pytest.fixture
def make_video(tmp_path):
    """Writes a video of coded frames 0, 1, 2, ... and returns its path."""

    def make(name="video.webm", *, frames=20, fps=25.0, width=64, height=48):
        with VideoWriter(tmp_path / name, fps=fps, width=width, height=height) as writer:
            for number in range(frames):
                writer.write(_coded_frame(number, width, height))
        return tmp_path / name

    return make
