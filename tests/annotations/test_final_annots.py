"""finalAnnots.mat: every number a small unsigned integer, and nothing in it runs."""

import numpy as np
import pytest
import scipy.io

from step_jax.annotations.final_annots import read_final_annots
from step_jax.annotations.foreign import UNASSIGNED
from step_jax.errors import InputError

NAME = "Diving/v_Diving_g20_c01"


def struct(**fields):
    record = np.zeros((1, 1), [(name, object) for name in fields])
    for name, value in fields.items():
        record[name][0, 0] = value
    return record


def tube(**changes):
    facts = {
        "ef": np.uint8([[201]]),
        "sf": np.uint8([[200]]),
        "class": np.uint8([[6]]),
        "boxes": np.array([(101, 52, 200, 140), (1, 1, 255, 239)], np.uint8),
    }
    return struct(**(facts | changes))


def video(**changes):
    facts = {"num_imgs": np.uint16([[300]]), "name": NAME, "tubes": tube()}
    return struct(**(facts | changes))


@pytest.fixture
def read(tmp_path):
    def read_saved(annot, name="annot"):
        scipy.io.savemat(tmp_path / "final.mat", {name: annot})
        return read_final_annots(tmp_path / "final.mat")

    return read_saved


def test_numbers_are_cast_before_anything_is_added(read):
    two = np.concatenate([tube(), tube(sf=np.uint8([[1]]), ef=np.uint8([[2]]))], axis=1)
    [found] = read(video(tubes=two)).videos
    assert (found.id, found.split, found.num_frames) == (NAME, UNASSIGNED, 300)
    assert [item.labels for item in found.tubes] == [(5,), (5,)]
    np.testing.assert_array_equal(found.tubes[0].frames, [199, 200])  # 1-based, inclusive
    np.testing.assert_array_equal(found.tubes[1].frames, [0, 1])
    for item in found.tubes:
        np.testing.assert_array_equal(item.boxes, [[100, 51, 300, 191], [0, 0, 255, 239]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sf": np.uint8([[199]])}, r"tube 0: boxes have shape \(2, 4\), but sf 199 and ef 201"),
        ({"sf": np.uint8([[0]]), "ef": np.uint8([[1]])}, "tube 0 covers frames -1 to 0"),
        ({"class": np.uint8([[7]])}, "label 6 is Fencing, but the video is"),
        ({"class": np.uint8([[0]])}, "label -1 is no class"),
        ({"sf": np.zeros((0, 0))}, r"sf has shape \(0, 0\); expected one number"),
        ({"sf": "text"}, "sf is str; expected numbers"),
    ],
)
def test_a_wrong_tube_is_an_error_that_names_its_video(read, changes, message):
    with pytest.raises(InputError, match=message) as error:
        read(video(tubes=tube(**changes)))
    assert f"final.mat: video {NAME!r}" in str(error.value)


@pytest.mark.parametrize(
    ("annot", "message"),
    [
        (video(name="../up"), "annot 1: video '../up': expected a name like"),
        (video(name=np.uint8([[1]])), r"annot 1: video array\(.*expected a name like"),
        (video(tubes=np.zeros((0, 0))), "tubes: expected a struct array with the fields sf, ef"),
        (np.zeros((2, 2)), "annot: expected a struct array with the fields num_imgs"),
        (np.concatenate([video(), video()], axis=1), f"video id '{NAME}' occurs twice"),
    ],
)
def test_other_contents_are_input_errors(read, annot, message):
    with pytest.raises(InputError, match=message):
        read(annot)


def test_other_files_are_input_errors(read, tmp_path):
    with pytest.raises(InputError, match="has no variable 'annot'"):
        read(video(), name="other")
    good = (tmp_path / "final.mat").read_bytes()
    for data in (b"", b"text", good[:200], good[:128] + b"\xff" * 64, good[:-9]):
        (tmp_path / "final.mat").write_bytes(data)
        with pytest.raises(InputError, match=r"not a MATLAB file|no variable"):
            read_final_annots(tmp_path / "final.mat")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_final_annots(tmp_path / "none.mat")


def test_a_file_with_a_function_in_it_runs_nothing(read):
    with pytest.raises(InputError, match="holds a cell array; expected structs"):
        read(video(tubes=np.array([["system('touch x')"]], object)))
