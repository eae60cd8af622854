"""Videos are found as files or folders, nested or flat, once each."""

import pytest

from step_jax.annotations import Annotations, Video
from step_jax.annotations.locations import locate_videos
from step_jax.errors import InputError

BASKETBALL, DIVING = "Basketball/v_Basketball_g01_c01", "Diving/v_Diving_g20_c01"


@pytest.fixture
def data():
    facts = {"split": "test", "fps": 25.0, "num_frames": 9, "width": 32, "height": 24, "tubes": ()}
    videos = [Video(id=name, path=name, **facts) for name in (BASKETBALL, DIVING)]
    return Annotations("set", ("a",), videos, "root")


def test_finds_files_and_frame_folders_nested_or_not(data, tmp_path):
    (tmp_path / "Diving" / "v_Diving_g20_c01").mkdir(parents=True)
    (tmp_path / "v_Basketball_g01_c01.avi").touch()
    found = locate_videos(data, tmp_path)
    assert found.root == tmp_path
    assert [video.path for video in found.videos] == ["v_Basketball_g01_c01.avi", DIVING]


def test_missing_videos_are_an_error_unless_only_those_present_are_wanted(data, tmp_path):
    with pytest.raises(InputError, match=f"has none of the 2 videos, such as '{BASKETBALL}'"):
        locate_videos(data, tmp_path, present_only=True)
    (tmp_path / "v_Diving_g20_c01.mp4").touch()
    with pytest.raises(InputError, match=f"1 of 2 videos are missing, such as '{BASKETBALL}'"):
        locate_videos(data, tmp_path)
    found = locate_videos(data, tmp_path, present_only=True)
    assert [video.id for video in found.videos] == [DIVING]
    (tmp_path / "v_Diving_g20_c01.avi").touch()
    with pytest.raises(InputError, match="there more than once"):
        locate_videos(data, tmp_path, present_only=True)
    with pytest.raises(InputError, match="no such folder of videos"):
        locate_videos(data, tmp_path / "none")


def test_one_file_is_not_two_videos(tmp_path):
    facts = {"split": "test", "fps": 25.0, "num_frames": 9, "width": 32, "height": 24, "tubes": ()}
    videos = [Video(id=name, path=name, **facts) for name in ("a/x", "b/x")]
    (tmp_path / "x.avi").touch()
    with pytest.raises(InputError, match=r"x\.avi could be video 'a/x' or 'b/x'"):
        locate_videos(Annotations("set", ("a",), videos, "root"), tmp_path)
