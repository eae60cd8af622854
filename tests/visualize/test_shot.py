import types

import containers
import cv2
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.visualize.shot import read_shot


def predictor(**changes):
    values = {"fps": 0.0, "clip_frames": 4, "input_frames": 8, "image_size": 16}
    return types.SimpleNamespace(**values | changes)


@pytest.fixture
def video(tmp_path):
    folder = tmp_path / "numbers"
    folder.mkdir()
    for number in range(20):
        frame = np.full((30, 40, 3), number, np.uint8)
        cv2.imwrite(str(folder / f"{number:02d}.png"), frame)
    return folder


def brightness(frames):
    return [int(frame.mean()) for frame in frames]


def test_a_shot_is_one_window(video):
    shot = read_shot(video, predictor(), start=15)
    assert shot.numbers == (15, 16, 17, 18)
    assert brightness(shot.frames) == [15, 16, 17, 18]
    assert shot.frames[0].shape == (30, 40, 3)
    assert shot.clip.shape == (8, 16, 16, 3)
    assert brightness(shot.clip) == [13, 14, 15, 16, 17, 18, 19, 19]


def test_a_shot_in_the_middle_or_at_another_rate(video):
    assert read_shot(video, predictor()).start == 8
    shot = read_shot(video, predictor(fps=12.5), start=2)
    assert shot.numbers == (4, 6, 8, 10)
    assert read_shot(video, predictor(clip_frames=30, input_frames=30)).start == 0


def test_a_video_that_is_slow_at_first_has_a_shot_too(tmp_path):
    path = tmp_path / "slow_at_first.mp4"
    containers.write_mp4(path, [60] * 20 + [20] * 100, timescale=600)  # 10, then 30 a second
    shot = read_shot(path, predictor(fps=30.0))
    assert 100 < shot.numbers[0] < 120
    with pytest.raises(InputError, match="frame 400; expected 0 to 1"):
        read_shot(path, predictor(fps=30.0), start=400)


def test_a_shot_beyond_the_end(video):
    with pytest.raises(InputError, match="frame 17; expected 0 to 16"):
        read_shot(video, predictor(), start=17)
