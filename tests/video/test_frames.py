"""Another rate, another size."""

import numpy as np
import pytest

from step_jax.video import read_frames, resample, resize


def stream(times):
    return [(time, np.array(number)) for number, time in enumerate(times)]


def brute_force(times, fps, duration):
    """At every k / fps before the end, the number of the last frame at or before it."""
    expected, k = [], 0
    while k / fps < duration - 1e-6:
        if times[0] <= k / fps + 1e-9:
            at_or_before = [number for number, time in enumerate(times) if time <= k / fps + 1e-9]
            expected.append((k / fps, at_or_before[-1]))
        k += 1
    return expected


@pytest.mark.parametrize("fps", [1, 5, 10, 24, 25, 30, 50, 60, 29.97])
@pytest.mark.parametrize(
    "times",
    [np.arange(50) / 25, np.arange(30) / 30, [0.0, 0.1, 0.11, 0.7, 1.3, 1.4], [0.5, 0.6, 0.7]],
    ids=["25 fps", "30 fps", "variable", "late start"],
)
def test_resample_takes_the_last_frame_at_or_before(fps, times):
    duration = times[-1] + (times[-1] - times[-2])
    made = [(time, int(frame)) for time, frame in resample(stream(times), fps=fps)]
    assert made == brute_force(times, fps, duration)


def test_resample_at_the_same_rate_is_the_identity_although_webm_rounds(make_video, decode_frame):
    path = make_video(fps=30, frames=31)
    assert [t for t, _ in read_frames(path, stop=3)] == [0, 0.033, 0.067]
    made = [decode_frame(frame) for _, frame in resample(read_frames(path), fps=30)]
    assert made == list(range(31))


def test_resample_of_one_frame_and_of_none():
    assert [time for time, _ in resample(stream([0.0]), fps=10)] == [0]
    assert list(resample([], fps=10)) == []


def test_resample_holds_one_frame_at_a_time():
    def endless():
        number = 0
        while True:
            yield number / 25, np.array(number)
            number += 1

    made = resample(endless(), fps=5)
    assert [int(next(made)[1]) for _ in range(4)] == [0, 5, 10, 15]


def test_resize_averages_when_shrinking_and_interpolates_when_growing():
    checker = np.zeros((8, 8, 3), np.uint8)
    checker[::2, ::2] = checker[1::2, 1::2] = 200
    np.testing.assert_array_equal(resize(checker, width=4, height=4), np.full((4, 4, 3), 100))
    ramp = np.tile(np.array([0, 100], np.uint8)[None, :, None], (2, 1, 3))
    grown = resize(ramp, width=4, height=2)
    np.testing.assert_array_equal(grown[0, :, 0], [0, 25, 75, 100])
    assert resize(ramp, width=2, height=2) is ramp
