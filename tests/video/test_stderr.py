"""What OpenCV prints is held back, what others print is not lost."""

import os

import pytest

from step_jax.video.stderr import held_stderr


def test_only_dropped_lines_are_lost_and_the_rest_comes_afterwards(capfd):
    with held_stderr() as held:
        os.write(2, b"noise: a tag\nnews: a fault\n")
        assert capfd.readouterr().err == ""
        held.drop = "noise:"
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "news: a fault\nlater\n"


def test_an_error_inside_gives_the_lines_and_the_descriptor_back(capfd):
    def fail():
        with held_stderr():
            os.write(2, b"news\n")
            raise RuntimeError("failed")

    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError, match="failed"):
        fail()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "news\nlater\n"
    assert len(os.listdir("/proc/self/fd")) == descriptors
