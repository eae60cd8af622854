"""Which of AVA's files are read, and what is said where they are missing."""

import pytest

from step_jax.annotations.ava_folder import open_ava_folder
from step_jax.errors import InputError

MAP = 'item { name: "b" id: 12 } item { name: "a" id: 3 }'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ava_train_v2.1.csv").write_text("v,0902,0,0,1,1,12,3\n")
    (tmp_path / "ava_train_v2.2.csv").write_text("v,0902,0,0,1,1,3,3\nv,0902,0,0,1,1,12,3\n")
    (tmp_path / "ava_action_list_v2.1_for_activitynet_2018.pbtxt").write_text(MAP)
    (tmp_path / "ava_train_excluded_timestamps_v2.2.csv").write_text("v,0910\n")
    return tmp_path


def test_files_of_a_version(folder):
    old, new = (open_ava_folder(folder, version) for version in ("2.1", "2.2"))
    assert old.labels("train").action_id.tolist() == [12]
    assert new.labels("train").action_id.tolist() == [3, 12]
    assert old.label_map().ids == (3, 12)
    # The list of the other version does, unless there is one of its own.
    assert old.exclusions("train").timestamp.tolist() == [910]
    (folder / "ava_train_excluded_timestamps_v2.1.csv").write_text("v,0911\n")
    assert old.exclusions("train").timestamp.tolist() == [911]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda f: f.labels("val"), r"ava_val_v2.2.csv: is missing, annotations of 'val' of AVA"),
        (lambda f: f.label_map(), r"ava_action_list_v2.2_for_\w+_2019.pbtxt: is missing"),
        (lambda f: f.exclusions("val"), r"ava_val_excluded_timestamps_v2.2.csv: is missing"),
    ],
)
def test_missing_files(folder, read, message):
    with pytest.raises(InputError, match=message):
        read(open_ava_folder(folder, "2.2"))


def test_what_is_no_version_or_folder(folder):
    with pytest.raises(InputError, match=r"AVA version '2.0': expected one of 2.1, 2.2"):
        open_ava_folder(folder, "2.0")
    with pytest.raises(InputError, match=r"ava_train_v2.1.csv: is no folder.*ava_train_v2.2.csv"):
        open_ava_folder(folder / "ava_train_v2.1.csv", "2.2")
