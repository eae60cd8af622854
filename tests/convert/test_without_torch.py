"""What needs PyTorch says so where there is none."""

import sys

import pytest

from step_jax.convert import load_released
from step_jax.convert.torch_files import write_torch
from step_jax.errors import InputError


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # import then fails


def test_reading(tmp_path):
    (tmp_path / "ava.pth").touch()
    with pytest.raises(InputError, match=r"PyTorch is missing.*pip install 'torch>=2.6'"):
        load_released(tmp_path / "ava.pth")


def test_writing(tmp_path):
    with pytest.raises(InputError, match="PyTorch is missing"):
        write_torch(tmp_path / "ava.pth", {})
    assert not list(tmp_path.iterdir())


def test_the_command(run_program, tmp_path):
    status, _, errors = run_program(
        "convert", "released", f"--input={tmp_path / 'ava.pth'}", f"--output={tmp_path / 'run'}"
    )
    assert status == 1
    assert errors[-1].startswith("error: PyTorch is missing")
