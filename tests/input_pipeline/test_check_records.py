"""The command that checks a folder of records."""

import shutil

import pytest

from input_pipeline import check_records
from step_jax.errors import InputError
from tests import record_damage


def check(folder, *arguments):
    return check_records.main(["--records", str(folder), "--workers", "2", *arguments])


def test_every_damage_is_told(records_dir, tmp_path, capsys):
    copy = shutil.copytree(records_dir, tmp_path / "copy")
    assert check(copy) == 0
    assert capsys.readouterr().out == f"{copy}: damaged: 0\n"
    first, second, third = (record_damage.shard(copy, number) for number in range(3))
    record_damage.cut_image(first, 1)
    record_damage.flip_data(first, 3)
    record_damage.repeat_last(second, None)
    record_damage.remove(third, None)
    assert check(copy, "--split", "train") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert "00000-of-00003: record 1 of 4" in lines[0]
    assert "does not decode" in lines[0]
    assert "record 3 of 4" in lines[1]
    assert "checksum" in lines[1]
    assert lines[2] == f"{second}: holds 1 records too many"
    assert all("the file is missing" in line for line in lines[3:7])
    assert lines[7] == f"{copy}: damaged: 7"
    assert check(copy, "--split", "test") == 0


def test_bad_arguments(records_dir, tmp_path):
    with pytest.raises(InputError, match="no split 'val'"):
        check(records_dir, "--split", "val")
    with pytest.raises(InputError, match="no complete clip records"):
        check(tmp_path)
