"""Movies' exact times: first timestamps other than 0, fractional rates, entering in the middle."""

import math
from fractions import Fraction

import containers
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.video import TimedVideo, VideoWriter
from step_jax.video.timeline import Timeline, read_timeline

RATES = [12, Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001)]


def times_and_numbers(path, **options):
    with TimedVideo(path) as video:
        return [
            (time, containers.read_number(picture())) for time, picture in video.frames(**options)
        ]


@pytest.mark.parametrize("fps", RATES)
def test_mp4_times_are_exact(tmp_path, fps):
    fps = Fraction(fps)
    path = containers.write_mp4(
        tmp_path / "a.mp4", [fps.denominator] * 130, timescale=fps.numerator
    )
    assert times_and_numbers(path) == [(i / fps, i) for i in range(130)]
    with TimedVideo(path) as video:
        assert video.fps == pytest.approx(float(fps))
        assert (video.first, video.is_exact) == (0, True)


@pytest.mark.parametrize("fps", RATES)
def test_matroska_times_are_those_of_its_clock(tmp_path, fps):
    times_ms = [round(1000 * i / Fraction(fps)) for i in range(130)]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms, fps=fps)
    assert times_and_numbers(path) == [(Fraction(t, 1000), i) for i, t in enumerate(times_ms)]


def test_the_second_of_a_frame_just_before_it_is_the_one_before(tmp_path):
    """At 24000/1001 frame 24 of 1.001 s is in second 1, and rounding puts none in another one."""
    path = containers.write_mp4(tmp_path / "a.mp4", [1001] * 300, timescale=24000)
    found = [math.floor(time) for time, _ in times_and_numbers(path)]
    assert found == [i * 1001 // 24000 for i in range(300)]


@pytest.mark.parametrize("sound_first", [False, True])
def test_the_first_timestamp_is_not_subtracted(tmp_path, sound_first):
    times_ms = [417 + 40 * i for i in range(30)]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms, fps=25, sound_first=sound_first)
    assert times_and_numbers(path) == [(Fraction(t, 1000), i) for i, t in enumerate(times_ms)]
    with TimedVideo(path) as video:
        assert (video.first, video.is_exact) == (Fraction(417, 1000), True)


def test_a_variable_rate_with_a_gap(tmp_path):
    random = np.random.default_rng(0)
    times_ms = np.cumsum(random.integers(5, 120, 200)).tolist()
    times_ms[100:] = [time + 7_000 for time in times_ms[100:]]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms)
    assert times_and_numbers(path) == [(Fraction(t, 1000), i) for i, t in enumerate(times_ms)]


def test_another_clock(tmp_path):
    times = [1 + 3753 * i for i in range(40)]
    path = containers.write_matroska(tmp_path / "a.mkv", times, scale_ns=11_111, fps=24)
    expected = [Fraction(time * 11_111, 10**9) for time in times]
    assert [time for time, _ in times_and_numbers(path)] == expected


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"edits": [(1000, 0)]}, 0),
        ({"edits": [(500, -1), (1000, 0)]}, 300),
        ({"offset": 50, "edits": [(1000, 50)]}, 0),
        ({"offset": 50}, 50),
        ({"offset": 25, "edits": [(250, -1), (1000, 0)]}, 150),
    ],
)
def test_the_edit_list_of_an_mp4_moves_its_times(tmp_path, options, first):
    path = containers.write_mp4(tmp_path / "a.mp4", [25] * 60, timescale=600, **options)
    assert read_timeline(path) == Timeline(Fraction(1, 600), first)
    found = times_and_numbers(path)
    assert found == [(Fraction(first + 25 * i, 600), i) for i in range(len(found))]
    assert len(found) > 20
    with TimedVideo(path) as video:
        assert video.is_exact


@pytest.mark.parametrize("start", [0, 20, 21, Fraction(99, 2), 62])
@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "avi"])
def test_entering_in_the_middle_gives_the_same_frames(tmp_path, kind, start):
    path, count = tmp_path / f"a.{kind}", 12 * 64
    if kind == "mp4":
        containers.write_mp4(path, [100] * count, timescale=1200, edits=[(2500, -1), (64_000, 0)])
    elif kind == "mkv":
        containers.write_matroska(path, [2500 + round(1000 * i / 12) for i in range(count)], fps=12)
    else:
        with VideoWriter(path, fps=12, width=64, height=48) as writer:
            for number in range(count):
                writer.write(containers.coded_picture(number))
    everything = times_and_numbers(path)
    assert [number for _, number in everything] == list(range(count))
    entered = times_and_numbers(path, start=start)
    assert entered == everything[-len(entered) :]
    assert entered[0][0] <= start or entered == everything
    if kind in ("mp4", "webm") and start > 40:  # which have an index
        assert len(entered) < len(everything) / 2


def test_a_gap_at_the_entrance_starts_at_the_beginning(tmp_path):
    times_ms = [40 * i for i in range(100)] + [60_000 + 40 * i for i in range(100)]
    path = containers.write_matroska(tmp_path / "a.mkv", times_ms, fps=25)
    assert any(time < 50 for time, _ in times_and_numbers(path, start=50))


def test_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"\0\xff" * 999)
    with pytest.raises(InputError, match=r"a\.mp4: cannot be opened"):
        TimedVideo(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="no such file"):
        TimedVideo(tmp_path / "b.mp4")


def test_a_damaged_header_has_no_timeline(tmp_path):
    whole = containers.write_mp4(tmp_path / "a.mp4", [1] * 5, timescale=5).read_bytes()
    random = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole[: random.integers(8, len(whole))])
        data[random.integers(4, len(data))] ^= int(random.integers(1, 256))
        (tmp_path / "b.mp4").write_bytes(data)
        assert isinstance(read_timeline(tmp_path / "b.mp4"), Timeline | None)
