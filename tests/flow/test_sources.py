import pytest

from step_jax.errors import InputError
from step_jax.flow.sources import find_sources


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(root, output="elsewhere"):
    return [source.name for source in find_sources(root, output=root.parent / output)]


def test_the_layout_of_ucf101_24(tmp_path):
    root = tmp_path / "rgb-images"
    make(root, "Biking/v_a/00001.jpg", "Biking/v_a/00002.jpg", "Fencing/v_b/00001.jpg")
    assert names(root) == ["Biking/v_a", "Fencing/v_b"]


def test_files_in_any_depth_lose_their_suffix(tmp_path):
    root = tmp_path / "videos"
    make(root, "a.avi", "x/y/b.c.MP4", "x/readme.txt", ".hidden/c.avi", "x/._d.avi")
    assert names(root) == ["a", "x/y/b.c"]


def test_a_file_and_a_folder_of_frames_are_named_for_themselves(tmp_path):
    make(tmp_path, "clip.avi", "frames/1.png")
    assert names(tmp_path / "clip.avi") == ["clip"]
    assert names(tmp_path / "frames") == ["frames"]


def test_flow_is_not_input(tmp_path):
    root = tmp_path / "data"
    make(root, "a.avi", "flow/a/00001.jpg", "other/flow.json", "other/a/00001.jpg")
    assert names(root, "data/flow") == ["a"]


def test_a_link_to_a_folder_above_ends(tmp_path):
    root = tmp_path / "data"
    make(root, "x/a.avi")
    (root / "x" / "loop").symlink_to(root)
    assert names(root) == ["x/a"]


@pytest.mark.parametrize(
    "clashing", [("a.avi", "a.mp4"), ("a.avi", "a/1.jpg"), ("a.avi", "a/b.avi"), ("1.jpg", "b.avi")]
)
def test_two_videos_for_one_folder(tmp_path, clashing):
    root = tmp_path / "data"
    make(root, *clashing)
    with pytest.raises(InputError, match="same folder"):
        names(root)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        names(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither folders of images nor video files"):
        names(tmp_path / "empty")


def test_the_output_is_not_the_input(tmp_path):
    with pytest.raises(InputError, match="is the input, too"):
        find_sources(tmp_path, output=tmp_path / ".")
