"""A file is there completely or as it was before."""

import os

import pytest

from step_jax.errors import InputError
from step_jax.replacing import check_outputs, replacing


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "table.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.json"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_or_an_interruption_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "table.json"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.json"]


def test_the_file_can_be_read_by_others_as_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "replaced"):
        pass
    modes = [os.stat(tmp_path / name).st_mode for name in ("plain", "replaced")]
    assert modes[0] == modes[1]


def test_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such"), replacing(tmp_path / "a/b"):
        pass


def test_an_output_is_no_input_and_no_other_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.json").symlink_to("a.json")
    check_outputs(["b.json", None, tmp_path / "c.json"], inputs=["a.json", None])
    for output in (tmp_path / "a.json", "link.json", "./a.json"):
        with pytest.raises(InputError, match=r"json: is one of the inputs; choose another name"):
            check_outputs(["b.json", output], inputs=["a.json"])
    with pytest.raises(InputError, match=r"b\.json: is given for two outputs"):
        check_outputs(["b.json", tmp_path / "b.json"], inputs=[])


def test_processes_of_one_number_do_not_meet(tmp_path):
    """As those of two machines that share a folder may be."""
    path = tmp_path / "table.json"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer block ended last
    assert os.listdir(tmp_path) == ["table.json"]
