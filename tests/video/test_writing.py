"""Writing videos: whole under their own name, or not there."""

import os

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.video import VideoWriter, count_frames, probe, read_frames
from step_jax.video import writing as writing_module


@pytest.mark.parametrize(("name", "worst"), [("video.webm", 6), ("video.avi", 4)])
def test_what_is_written_looks_like_what_was_drawn(tmp_path, name, worst):
    rows, columns = np.mgrid[:96, :128]
    frames = [
        np.stack([(columns + 4 * t) % 128 * 2, rows * 2, 128 + 0 * rows], -1).astype(np.uint8)
        for t in range(10)
    ]
    with VideoWriter(tmp_path / name, fps=25, width=128, height=96) as writer:
        for frame in frames:
            writer.write(frame)
    read = [frame for _, frame in read_frames(tmp_path / name)]
    assert len(read) == 10
    for made, drawn in zip(read, frames, strict=True):
        assert np.abs(made.astype(int) - drawn).mean() < worst
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["video.webm", "video.avi"])
def test_an_odd_size_grows_by_a_repeated_column_and_row(tmp_path, name):
    frame = np.zeros((33, 65, 3), np.uint8)
    frame[:, 32:], frame[16:] = 128, 255
    with VideoWriter(tmp_path / name, fps=25, width=65, height=33) as writer:
        for _ in range(3):
            writer.write(frame)
    info = probe(tmp_path / name)
    assert (info.width, info.height) == (66, 34)
    [(_, read)] = read_frames(tmp_path / name, stop=1)
    expected = np.pad(frame, ((0, 1), (0, 1), (0, 0)), mode="edge")
    assert np.abs(read.astype(int) - expected).mean() < 4


def test_nothing_is_printed(make_video, capfd):
    make_video()
    assert capfd.readouterr() == ("", "")


def test_an_error_while_writing_leaves_what_was_there(make_video, tmp_path, coded_frame):
    path = make_video("video.webm", frames=7)

    def draw():
        with VideoWriter(path, fps=25, width=64, height=48) as writer:
            writer.write(coded_frame(0))
            raise RuntimeError("drawing failed")

    with pytest.raises(RuntimeError, match="drawing failed"):
        draw()
    assert os.listdir(tmp_path) == ["video.webm"]
    assert count_frames(path) == 7


def test_a_full_disk_is_an_error(make_video, tmp_path, monkeypatch):
    check = writing_module.check_complete

    def cut_and_check(path):  # OpenCV returns from every write as if it had succeeded
        os.truncate(path, os.path.getsize(path) // 2)
        check(path)

    monkeypatch.setattr(writing_module, "check_complete", cut_and_check)
    with pytest.raises(InputError, match=r"video\.webm: could not be written to its end"):
        make_video("video.webm")
    assert os.listdir(tmp_path) == []


def test_bad_targets_are_errors(tmp_path, coded_frame):
    def write(name, frames=1, width=64, fps=25):
        with VideoWriter(tmp_path / name, fps=fps, width=width, height=48) as writer:
            for number in range(frames):
                writer.write(coded_frame(number))

    with pytest.raises(InputError, match=r"cannot write this kind .* \.webm or \.avi"):
        write("video.mp4")
    with pytest.raises(InputError, match="is not UTF-8; rename it"):  # OpenCV crashes
        write(os.fsdecode(b"vid\xe9o.webm"))
    with pytest.raises(InputError, match="cannot be written"):
        write("none/video.webm")
    with pytest.raises(InputError, match="there was no frame to write"):
        write("video.webm", frames=0)
    with pytest.raises(ValueError, match=r"frame is uint8 \(48, 64, 3\); expected .*\(48, 32, 3\)"):
        write("video.webm", width=32)
    with pytest.raises(InputError, match=r"OpenCV cannot write a 64x48 video at 0\.0 fps"):
        write("video.webm", fps=0)
    assert os.listdir(tmp_path) == []
