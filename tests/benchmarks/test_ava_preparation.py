import pytest

from benchmarks import ava_preparation
from step_jax.video import TimedVideo


def test_the_made_movie_is_read_as_made(tmp_path):
    path = ava_preparation.make_movie(tmp_path / "a.mp4", seconds=1)
    assert ava_preparation.decode(path, convert=True) == 24
    with TimedVideo(path) as video:
        assert (video.fps, video.first) == (24, 0)
        assert next(video.frames())[1]().shape == (720, 1280, 3)


def test_all_of_ava_from_one_movie():
    result = {"shard_bytes": 250_000_000, "cpu_s": {"write a shard": 10, "a second's frames": 0.1}}
    everything = ava_preparation.extrapolate(result)
    assert everything["stored_frames"] == 299 * 10_800
    assert everything["core_hours"] == pytest.approx(299 * 100 / 3600)
    assert everything["gigabytes"] == pytest.approx(299 / 4)
