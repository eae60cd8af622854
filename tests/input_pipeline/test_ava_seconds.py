"""AVA's frame choice, on movies of all rates, against a list of all times."""

import math
from fractions import Fraction

import containers
import numpy as np
import pytest

from input_pipeline.ava.seconds import Second, choose_frames, missing_keyframes
from step_jax.video import TimedVideo, VideoWriter

RATES = {
    "12": 12,
    "23.976": Fraction(24000, 1001),
    "24": 24,
    "25": 25,
    "29.97": Fraction(30000, 1001),
    "30": 30,
    "50": 50,
    "59.94": Fraction(60000, 1001),
}


def expected_frames(times, first, stop):
    """{second: 12 numbers}, by a look at all frames for each second."""
    chosen = {}
    for second in range(first, stop):
        there = [i for i, time in enumerate(times) if second <= time < second + 1]
        if there:
            places = np.linspace(0, len(there), 12, endpoint=False).astype(int)
            chosen[second] = [there[place] for place in places]
            continue
        before = [i for i, time in enumerate(times) if time < second]
        after = [i for i, time in enumerate(times) if time > second]
        chosen[second] = [before[-1] if before else after[0]] * 12
    return chosen


def chosen_frames(path, first, stop, *, start=0):
    with TimedVideo(path) as movie:
        frames = ((time + start, picture()) for time, picture in movie.frames(start=first - start))
        found = list(choose_frames(frames, first=first, stop=stop))
    numbers = {s.second: [containers.read_number(frame) for frame in s.frames] for s in found}
    return numbers, found


@pytest.mark.parametrize("fps", RATES.values(), ids=RATES)
def test_mp4_of_every_rate(tmp_path, fps):
    fps = Fraction(fps)
    path = containers.write_mp4(
        tmp_path / "a.mp4", [fps.denominator] * math.ceil(9 * fps), timescale=fps.numerator
    )
    times = [i / fps for i in range(math.ceil(9 * fps))]
    numbers, found = chosen_frames(path, 2, 8)
    assert numbers == expected_frames(times, 2, 8)
    assert all(second.is_regular(float(fps)) for second in found)


@pytest.mark.parametrize("fps", RATES.values(), ids=RATES)
def test_matroska_rounds_to_milliseconds(tmp_path, fps):
    times_ms = [round(1000 * i / Fraction(fps)) for i in range(math.ceil(9 * fps))]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms, fps=fps)
    times = [Fraction(time, 1000) for time in times_ms]
    assert chosen_frames(path, 2, 8)[0] == expected_frames(times, 2, 8)


@pytest.mark.parametrize("fps", [24, 30000 / 1001])
def test_a_codec_with_differences_between_pictures(tmp_path, fps):
    path = tmp_path / "a.webm"
    with VideoWriter(path, fps=fps, width=64, height=48) as writer:
        for number in range(round(40 * fps)):
            writer.write(containers.coded_picture(number))
    times = [Fraction(round(1000 * i / fps), 1000) for i in range(round(40 * fps))]
    assert chosen_frames(path, 33, 39)[0] == expected_frames(times, 33, 39)


def test_a_variable_rate(tmp_path):
    random = np.random.default_rng(3)
    times_ms = np.cumsum(random.integers(8, 260, 300)).tolist()
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms)
    times = [Fraction(time, 1000) for time in times_ms]
    numbers, found = chosen_frames(path, 1, 20)
    assert numbers == expected_frames(times, 1, 20)
    assert any(second.num_frames < 12 for second in found)


@pytest.mark.parametrize("first_ms", [1, 417, 999, 1000, 2700])
def test_a_stream_that_starts_late(tmp_path, first_ms):
    times_ms = [first_ms + 40 * i for i in range(160)]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms, fps=25, sound_first=True)
    times = [Fraction(time, 1000) for time in times_ms]
    numbers, found = chosen_frames(path, 0, 6)
    assert numbers == expected_frames(times, 0, 6)
    assert found[0].num_frames == sum(time < 1 for time in times)
    assert [second.is_regular(25) for second in found[4:]] == [True, True]


def test_a_gap(tmp_path):
    times_ms = [40 * i for i in range(60)] + [5300 + 40 * i for i in range(60)]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms, fps=25)
    numbers, found = chosen_frames(path, 1, 7)
    assert numbers == expected_frames([Fraction(time, 1000) for time in times_ms], 1, 7)
    assert [second.num_frames for second in found] == [25, 10, 0, 0, 18, 25]
    assert [second.is_regular(25) for second in found] == [True, False, False, False, False, True]
    assert numbers[3] == numbers[4] == [59] * 12


def test_a_movie_that_ends_early(tmp_path):
    path = containers.write_mp4(tmp_path / "a.mp4", [1] * 75, timescale=25)
    numbers, found = chosen_frames(path, 1, 6)
    assert numbers == expected_frames([Fraction(i, 25) for i in range(75)], 1, 6)
    assert numbers[5] == [74] * 12
    assert [second.num_frames for second in found] == [25, 25, 0, 0, 0]


def test_a_piece_of_a_movie(tmp_path):
    path = containers.write_mp4(tmp_path / "a.mp4", [1001] * 100, timescale=24000)
    start = Fraction("899.5")
    times = [start + Fraction(1001 * i, 24000) for i in range(100)]
    assert chosen_frames(path, 900, 903, start=start)[0] == expected_frames(times, 900, 903)


def test_choice_by_hand():
    frames = [(Fraction(i, 4), i) for i in range(4, 12)]  # seconds 1 and 2, four frames in each
    found = list(choose_frames(frames, first=0, stop=4))
    assert found == [
        Second(0, (4,) * 12, 0),
        Second(1, (4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7), 4),
        Second(2, (8, 8, 8, 9, 9, 9, 10, 10, 10, 11, 11, 11), 4),
        Second(3, (11,) * 12, 0),
    ]
    assert list(choose_frames([], first=0, stop=4)) == []
    backwards = [(Fraction(1), 0), (Fraction(1, 2), 1), (Fraction(2), 2)]
    assert [s.num_frames for s in choose_frames(backwards, first=0, stop=3)] == [0, 2, 1]


def test_choice_holds_one_second():
    held = [0, 0]

    class Frame:
        def __init__(self):
            held[0] += 1
            held[1] = max(held)

        def __del__(self):
            held[0] -= 1

    for _ in choose_frames(((Fraction(i, 30), Frame()) for i in range(3000)), first=20, stop=90):
        pass
    assert held[1] < 100


def test_regular_seconds():
    def is_regular(count, delay, fps=24.0):
        return Second(5, (0,) * 12, count, Fraction(delay)).is_regular(fps)

    assert is_regular(24, 0)
    assert is_regular(25, "0.06")
    assert is_regular(23, 0, fps=23.976)
    assert not is_regular(26, 0)
    assert not is_regular(22, 0)
    assert not is_regular(24, Fraction(3, 48))  # 1.5 frames
    assert not is_regular(0, 0)


def test_keyframes_without_a_clip():
    assert missing_keyframes([]) == ()
    assert missing_keyframes([1000, 1001]) == ()
    assert missing_keyframes([1000, 1001, 1002]) == (1001, 1002)
    assert missing_keyframes([1000, 1001, 1003]) == (1002,)
    assert missing_keyframes(range(1500, 1800)) == tuple(range(1501, 1799))
    assert missing_keyframes(range(900, 903)) == (902,)
