import containers
import pytest

from step_jax.errors import InputError
from step_jax.streaming.video_sources import (
    check_video,
    expected_frames,
    find_videos,
    left_out,
)
from step_jax.video import probe, read_frames, resample


def make(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"\0")
    return folder


def test_a_file_or_a_folder_of_frames_is_one_video(tmp_path):
    assert find_videos(tmp_path / "some.mp4") == {"some": tmp_path / "some.mp4"}
    folder = make(tmp_path / "frames", "1.jpg", "2.jpg", "notes.txt")
    assert find_videos(folder) == {"frames": folder}


def test_a_folder_of_files_is_several_with_names_of_their_own(tmp_path):
    folder = make(tmp_path / "many", "b.mp4", "a.webm", "a.AVI", ".hidden.mp4", "readme.txt")
    names = ["a.AVI", "a.webm", "b.mp4"]
    assert find_videos(folder) == {name: folder / name for name in names}
    (folder / "a.webm").unlink()
    assert find_videos(folder) == {"a": folder / "a.AVI", "b": folder / "b.mp4"}


def test_no_two_videos_share_a_name(tmp_path):
    names = ["a.avi", "a.mp4", "a.mp4.mov"]  # the last without its suffix is the second
    folder = make(tmp_path / "many", *names)
    assert find_videos(folder) == {name: folder / name for name in names}


@pytest.mark.parametrize("suffix", [".3gp", ".flv", ".M2TS", ".mts", ".ogv"])
def test_recordings_of_cameras_and_phones_are_videos(tmp_path, suffix):
    folder = make(tmp_path / "many", f"a{suffix}")
    assert find_videos(folder) == {"a": folder / f"a{suffix}"}


def test_what_is_left_out_is_known(tmp_path):
    folder = make(tmp_path / "many", "b.mp4", "b.srt", "a.xyz", ".hidden")
    assert left_out(folder, find_videos(folder).values()) == ["a.xyz", "b.srt"]
    frames = make(tmp_path / "frames", "1.png", "notes.txt")
    assert left_out(frames, find_videos(frames).values()) == []
    assert left_out(folder / "b.mp4", [folder / "b.mp4"]) == []


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"has videos \(a.mp4\) and images \(1.png\)"):
        find_videos(make(tmp_path / "both", "a.mp4", "1.png"))
    with pytest.raises(InputError, match="neither images nor video files"):
        find_videos(make(tmp_path / "neither", "a.txt"))


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        check_video(tmp_path / "missing.mp4")
    box = tmp_path / "cut.mp4"
    box.write_bytes((1000).to_bytes(4, "big") + b"ftyp" + b"\0" * 100)
    with pytest.raises(InputError, match="truncated"):
        check_video(box)


def test_expected_frames_at_another_rate(frame_folder):
    folder = frame_folder(12)
    assert expected_frames(folder, fps=12.5) == 6
    assert expected_frames(folder, fps=12.5, source_fps=10) == 15
    assert expected_frames(folder, fps=0) == 12


def test_the_first_frames_do_not_tell_how_many_will_come(tmp_path):
    path = tmp_path / "slow_at_first.mp4"
    containers.write_mp4(path, [60] * 20 + [20] * 280, timescale=600)  # 10, then 30 a second
    assert probe(path).fps == pytest.approx(10)
    there = len(list(resample(read_frames(path), fps=30)))
    assert there == pytest.approx(340, abs=2)
    assert 0.85 * there < expected_frames(path, fps=30) <= there
    assert expected_frames(path, fps=30, source_fps=15) == 600
    assert expected_frames(path, fps=0) == 300
