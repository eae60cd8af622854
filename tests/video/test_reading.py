"""Reading videos: every frame, in order, at its own time; anything else is an error with a name."""

import os
import re
import struct

import cv2
import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.video import TimedVideo, count_frames, probe, read_frames


@pytest.fixture
def frame_folder(tmp_path, coded_frame):
    """A folder of ten frames, of which number 10 sorts between 1 and 2 as text."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(1, 11):
        cv2.imwrite(str(folder / f"frame{number}.png"), coded_frame(number))
    return folder


@pytest.mark.parametrize("name", ["video.webm", "video.avi"])
@pytest.mark.parametrize("fps", [10.0, 25.0, 30000 / 1001])
def test_every_frame_of_a_file_in_order_at_its_time(make_video, name, fps, decode_frame):
    path = make_video(name, fps=fps)
    times, numbers = zip(*[(t, decode_frame(f)) for t, f in read_frames(path)], strict=True)
    assert list(numbers) == list(range(20))
    np.testing.assert_allclose(times, np.arange(20) / fps, atol=6e-4)  # WebM: whole milliseconds
    assert count_frames(path) == 20
    info = probe(path)
    assert (info.width, info.height) == (64, 48)
    assert info.fps == pytest.approx(fps, rel=1e-3)


def test_frames_are_rgb(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :, 0] = 200  # red
    folder = tmp_path / "frames"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    [(_, frame)] = read_frames(folder)
    np.testing.assert_array_equal(frame, image)
    assert frame.dtype == np.uint8


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 3, [0, 1, 2]), (17, None, [17, 18, 19]), (5, 7, [5, 6]), (18, 99, [18, 19]), (25, 30, [])],
)
def test_start_and_stop_are_frame_numbers(make_video, start, stop, expected, decode_frame):
    frames = list(read_frames(make_video(), start=start, stop=stop))
    assert [decode_frame(frame) for _, frame in frames] == expected
    np.testing.assert_allclose([t for t, _ in frames], np.array(expected) / 25)


def test_given_rate_replaces_the_timestamps(make_video):
    path = make_video(fps=25)
    assert [t for t, _ in read_frames(path, fps=10, stop=3)] == [0, 0.1, 0.2]
    assert probe(path, fps=10).fps == 10


def shift_timestamps(path, times_ms):
    """Rewrites the times of the blocks of a WebM file, of which OpenCV writes only regular ones.

    A block is A3, its length, track 1, the time in ms since the cluster's start, flags.
    """
    old = b"|".join(re.escape(struct.pack(">h", 40 * number)) for number in range(len(times_ms)))
    block = rb"(\xa3(?:[\x81-\xfe]|[\x40-\x7f].)\x81)(" + old + rb")"
    new = iter(times_ms)
    data, count = re.subn(
        block,
        lambda match: match[1] + struct.pack(">h", next(new)),
        path.read_bytes(),
        flags=re.DOTALL,
    )
    assert count == len(times_ms)
    path.write_bytes(data)


def test_a_variable_frame_rate_is_read_by_timestamp(make_video, decode_frame):
    path = make_video(frames=6)
    times_ms = [0, 40, 300, 310, 700, 1500]
    shift_timestamps(path, times_ms)
    frames = list(read_frames(path))
    assert [decode_frame(frame) for _, frame in frames] == list(range(6))
    np.testing.assert_allclose([t for t, _ in frames], np.array(times_ms) / 1000)


def test_a_wrong_rate_in_the_container_is_not_believed(make_video):
    path = make_video("video.webm", frames=6)
    shift_timestamps(path, [0, 100, 200, 300, 400, 500])
    assert probe(path).fps == pytest.approx(10)


def test_repeated_timestamps_go_on_at_the_containers_rate(make_video):
    path = make_video(frames=6)
    shift_timestamps(path, [0, 40, 40, 40, 200, 240])
    times = [t for t, _ in read_frames(path)]
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.12, 0.2, 0.24])


def test_a_folder_is_read_in_natural_order(frame_folder, decode_frame):
    frames = list(read_frames(frame_folder, fps=10, start=1))
    assert [decode_frame(frame) for _, frame in frames] == list(range(2, 11))
    np.testing.assert_allclose([t for t, _ in frames], np.arange(1, 10) / 10)
    assert count_frames(frame_folder) == 10
    assert probe(frame_folder).fps == 25


def test_a_folder_with_an_unreadable_image_is_an_error_that_names_it(frame_folder):
    (frame_folder / "frame3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"frame3\.png: cannot be decoded"):
        list(read_frames(frame_folder))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_cut_image_is_an_error_and_not_grey(tmp_path, suffix):
    file = tmp_path / f"1{suffix}"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    list(read_frames(tmp_path))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be decoded"):
        list(read_frames(tmp_path))


def test_a_folder_of_mixed_sizes_or_kinds_is_an_error(frame_folder, coded_frame):
    cv2.imwrite(str(frame_folder / "frame4.png"), coded_frame(4, width=32))
    with pytest.raises(InputError, match=r"frame4\.png: is 32x48 pixels, .* 64x48"):
        list(read_frames(frame_folder))
    (frame_folder / "frame4.jpg").touch()
    with pytest.raises(InputError, match="both jpg and png"):
        list(read_frames(frame_folder))


def write_nothing(tmp_path):
    path = tmp_path / "zero.avi"
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25, (64, 48)).release()
    return path


def write_bytes(data, name="bad.mp4"):
    def write(tmp_path):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def write_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp_path: tmp_path / "none.mp4", "no such file or folder"),
        (write_bytes(b""), "is empty"),
        (write_bytes(b"hello\n" * 999), "is a text file"),
        (write_bytes("déjà vu\n".encode() * 999, "notes.txt"), "is a text file"),
        (write_bytes(b"\0\xff" * 5000), "cannot be opened as a video"),
        (write_folder, "has no image"),
        (write_nothing, "has no frame|cannot be opened"),
    ],
)
@pytest.mark.parametrize("act", [probe, count_frames, lambda path: list(read_frames(path))])
def test_what_is_no_video_is_an_error_and_nothing_else_is_printed(
    tmp_path, capfd, make, message, act
):
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        act(path)
    assert str(path) in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_colon_in_a_name_is_no_protocol(make_video, tmp_path, monkeypatch):
    make_video("clip.webm", frames=3).rename(tmp_path / "cam:1.webm")
    monkeypatch.chdir(tmp_path)
    assert count_frames("cam:1.webm") == 3


def test_a_name_that_is_no_utf8_is_an_error(make_video, tmp_path):  # OpenCV crashes
    path = make_video(frames=3).rename(tmp_path / os.fsdecode(b"vid\xe9o.webm"))
    for act in (probe, count_frames, TimedVideo):
        with pytest.raises(InputError, match="is not UTF-8; rename it"):
            act(path)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_an_impossible_rate_is_an_error(make_video, fps):
    with pytest.raises(InputError, match="expected a positive number of frames a second"):
        read_frames(make_video(frames=1), fps=fps)


def test_reading_is_lazy_and_closes_the_file(make_video, decode_frame):
    frames = read_frames(make_video())
    assert decode_frame(next(frames)[1]) == 0
    frames.close()
    assert next(frames, None) is None
