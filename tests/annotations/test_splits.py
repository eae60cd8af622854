"""Lists of videos as they are on disk, and the splits made of them."""

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.annotations.foreign import UNASSIGNED
from step_jax.annotations.splits import (
    assign_splits,
    hold_out_groups,
    keep_split,
    read_video_list,
    unknown_names,
)
from step_jax.errors import InputError

A, B, C = (f"Diving/v_Diving_g{group}_c01" for group in ("01", "08", "22"))


def annotations(*names):
    tubes = [Tube((0,), [0], np.array([[1, 1, 5, 5]]))]
    facts = {"split": UNASSIGNED, "fps": 25.0, "num_frames": 9, "width": 32, "height": 24}
    videos = [Video(id=name, path=name, tubes=tubes, **facts) for name in names]
    return Annotations("set", ("Diving",), videos, "root")


def splits(annotations):
    return [video.split for video in annotations.videos]


@pytest.mark.parametrize(
    "text",
    [
        f"{A}\n{B}",  # no newline at the end, as in the real one
        f"{A}\r\n{B}\r\n\r\n",
        f"\ufeff{A}.avi 6\n{B}.avi 6\n",  # UCF101's own trainlist01.txt
        f"  {A}.mp4\t\n{B}",
        f"{A}/00009.txt\n{A}/00010.txt\n{B}/00001.txt\n",  # YOWO's testlist.txt
        f"labels/{A}/00009.txt\nlabels/{B}/00010.txt\n",
    ],
)
def test_lists_in_all_their_forms(tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert read_video_list(tmp_path / "list.txt") == (A, B)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (f"{A}\n{B}\n{A}.avi".encode(), f"line 3: video '{A}' is there already, in line 1"),
        (b"\n \n", "lists no video"),
        (b"../x\n", r"line 1: is '\.\./x'; expected a name like"),
        (b"/etc/passwd\n", "line 1: is '/etc/passwd'; expected a name"),
        (b"a b c\n", "line 1: is 'a b c'; expected a name"),
        (b"\xff\xfe\x00", "cannot be read as a list of videos"),
    ],
)
def test_a_wrong_list_is_an_error_that_names_the_line(tmp_path, data, message):
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_video_list(tmp_path / "list.txt")
    with pytest.raises(InputError, match="cannot be read as a list"):
        read_video_list(tmp_path / "none.txt")


def test_one_list_decides_and_two_must_agree():
    data = annotations(A, B, C)
    assert splits(assign_splits(data, test=[A])) == ["test", "train", "train"]
    assert splits(assign_splits(data, train=[A])) == ["train", "test", "test"]
    assert splits(assign_splits(data, train=[B, C, "x"], test=[A])) == ["test", "train", "train"]
    with pytest.raises(InputError, match=f"'{C}' is in neither list"):
        assign_splits(data, train=[B], test=[A])
    with pytest.raises(InputError, match=f"'{B}' is listed for training and for testing"):
        assign_splits(data, train=[B, C], test=[A, B])
    with pytest.raises(InputError, match="none of the 1 videos listed"):
        assign_splits(data, test=["Archery/v_Archery_g01_c01"])
    with pytest.raises(InputError, match="give a split file"):
        assign_splits(data)


def test_listed_videos_without_annotation_are_known_by_their_class():
    names = [A, B, "Diving/v_Diving_g09_c01", "Archery/v_Archery_g01_c01"]
    assert unknown_names(annotations(A, B), names) == ["Diving/v_Diving_g09_c01"]


def test_groups_for_validation_come_from_the_training_videos():
    data = assign_splits(annotations(A, B, C), test=[A])
    assert splits(hold_out_groups(data, [22])) == ["test", "train", "validation"]
    with pytest.raises(InputError, match=r"no training video is of group 1 .* are \[8, 22\]"):
        hold_out_groups(data, [1, 22])
    with pytest.raises(InputError, match="leave some"):
        hold_out_groups(data, [8, 22])


def test_one_split_is_kept():
    data = assign_splits(annotations(A, B, C), test=[A])
    assert [video.id for video in keep_split(data, "test").videos] == [A]
    with pytest.raises(InputError, match="no split 'validation'"):
        keep_split(data, "validation")
