"""Small text files: complete or not at all."""

import errno
import json
import os
import pathlib

import pytest

from step_jax.errors import InputError
from step_jax.files import write_json, write_text


def test_makes_the_folder_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    write_text(path, "first ø\n")
    write_text(str(path), "second\n")
    assert path.read_text(encoding="utf-8") == "second\n"
    assert os.listdir(path.parent) == ["note.txt"]


def test_json(tmp_path):
    value = {"name": "walk", "numbers": [1, 2.5, None], "tuple": (1, 2)}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text()
    assert json.loads(text) == value | {"tuple": [1, 2]}
    assert text.endswith("}\n")


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("broken", ["write", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "note.txt"
    write_text(path, "old")
    if broken == "write":
        monkeypatch.setattr(pathlib.Path, "write_text", no_space)
    else:
        monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(InputError, match=r"note.txt: cannot be written .No space left on device.;"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*choose another folder"):
        write_text(tmp_path / "file" / "below" / "note.txt", "text")
