import pytest

from step_jax.errors import InputError
from step_jax.streaming.video_sources import check_video, expected_frames, find_videos


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
    assert find_videos(folder) == {
        "a.AVI": folder / "a.AVI",
        "a.webm": folder / "a.webm",
        "b": folder / "b.mp4",
    }


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
    assert expected_frames(frame_folder(12), file_fps=25, fps=12.5) == 6
