"""The grid of windows, against the input pipeline's, and the frames that it leaves out."""

import numpy as np
import pytest

from input_pipeline import clips
from step_jax.errors import InputError
from step_jax.windows import check_frames, evaluated_frames, reported, window_index, window_starts

GRIDS = [(20, 6, 1), (20, 6, 4), (21, 6, 4), (4, 6, 3), (6, 6, 2), (50, 12, 12), (1, 1, 1)]


@pytest.mark.parametrize(("length", "frames", "stride"), GRIDS)
def test_the_grid_is_the_input_pipelines(length, frames, stride):
    starts = window_starts(length, clip_frames=frames, stride=stride)
    expected = clips.window_starts(length, clip_frames=frames, stride=stride)
    assert starts.tolist() == expected.tolist()
    assert window_index(starts, stride=stride).tolist() == list(range(len(starts)))


@pytest.mark.parametrize(("length", "frames", "stride"), GRIDS)
def test_middle_frames_are_what_the_windows_report(length, frames, stride):
    counts = np.zeros(length, bool)
    for start in clips.window_starts(length, clip_frames=frames, stride=stride):
        window = np.arange(start, start + frames)
        (middle,) = window[reported("middle", clip_frames=frames)]
        if middle < length:
            counts[middle] = True
    found = evaluated_frames(length, frames="middle", clip_frames=frames, stride=stride)
    assert found.tolist() == counts.tolist()
    assert evaluated_frames(length, frames="all", clip_frames=frames, stride=stride).all()


def test_the_middle_of_an_ava_clip_is_its_keyframe():
    """12 of 36 frames are the target clip's; in feature frames of 4, 3 of 9."""
    assert np.arange(36)[12:24][reported("middle", clip_frames=12)].tolist() == [18]
    assert np.arange(9)[3:6][reported("middle", clip_frames=3)].tolist() == [18 // 4]


def test_other_frames_are_an_error():
    with pytest.raises(InputError, match=r"eval\.frames 'last': expected one of all, middle"):
        check_frames("last", where="eval.frames")
