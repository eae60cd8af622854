"""The run folder of a conversion, and the configuration in it. Without PyTorch."""

import jax
import jax.numpy as jnp
import minute
import numpy as np
import pytest

from configs import ava, common
from step_jax import run_folder
from step_jax.convert.__main__ import configuration, describe
from step_jax.convert.conversion import Converted, source, start_detector, write_run
from step_jax.errors import InputError
from step_jax.inference import abstract_predictor, load_predictor
from step_jax.transfer import by_path

CLASSES = ("walk", "run", "sit")


def description(**changes):
    model = {name: value for name, value in minute.MODEL.items() if name != "num_classes"}
    told = {
        "model": model,
        "classes": list(CLASSES),
        "image_size": minute.SIDE,
        "fps": 25.0,
        "proposals": [[1.0, 0.0], [2.0, 0.0]],
        "source": {"format": "test", "file": "weights.pth", "sha256": "1"},
    }
    return told | changes


def config():
    return common.get_config().to_dict() | {"converted_from": "weights.pth"}


@pytest.fixture(scope="module")
def converted():
    told = description()
    kernel = by_path(abstract_predictor(told).variables)["backbone/stem/kernel"]
    return start_detector(told, {"backbone/stem/kernel": np.full(kernel.shape, 7, np.float32)})


def test_what_a_file_does_not_have_is_initialised(converted):
    arrays = by_path(converted.variables)
    assert (arrays.pop("backbone/stem/kernel") == 7).all()
    assert set(converted.initial) == set(arrays)
    assert any(float(np.std(array)) > 0 for array in arrays.values())


@pytest.mark.parametrize("step", [0, 321020])
def test_a_written_run_is_loaded_as_ours(converted, tmp_path, step, capsys):
    assert write_run(tmp_path / "run", converted._replace(step=step), config())
    predictor = load_predictor(tmp_path / "run")
    assert predictor.step == step
    assert predictor.classes == CLASSES
    jax.tree.map(np.testing.assert_array_equal, predictor.variables, converted.variables)
    assert run_folder.read_config(tmp_path / "run")["converted_from"] == "weights.pth"
    assert f"listed in {tmp_path / 'run' / 'parameters.txt'}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_same_conversion_again_changes_nothing(converted, tmp_path):
    output = tmp_path / "run"
    write_run(output, converted, config())
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert not write_run(output, converted, config())
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    other = description(source={"format": "test", "file": "weights.pth", "sha256": "2"})
    for different in (converted._replace(step=1), converted._replace(description=other)):
        with pytest.raises(InputError, match="holds another run or conversion"):
            write_run(output, different, config())


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_is_left_alone(converted, tmp_path, there):
    output = tmp_path / "run"
    output.write_text("mine") if there == "file" else output.mkdir()
    with pytest.raises(InputError, match="run: is there already; choose another"):
        write_run(output, converted, config())
    assert list(tmp_path.iterdir()) == [output]


def test_an_output_that_cannot_be_made(converted, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output .*file/run: cannot be made"):
        write_run(tmp_path / "file" / "run", converted, config())


def test_what_fails_leaves_nothing_behind(converted, tmp_path):
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), converted.variables)
    with pytest.raises(InputError, match="not finite"):
        write_run(tmp_path / "run", Converted(description(), params), config())
    assert not list(tmp_path.iterdir())


def test_the_digest_tells_files_apart(tmp_path):
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).write_bytes(content)
    one, other = source("released", tmp_path / "a"), source("released", tmp_path / "b")
    assert one["file"] == "a"
    assert one["sha256"] != other["sha256"]


# --- the configuration ----------------------------------------------------------------------------


def test_the_configuration_has_every_key_of_a_run():
    preset = ava.get_config("released").to_dict()
    told = describe(preset, CLASSES) | {"source": {"file": "ava.pth"}, "proposals": 59}
    found = configuration(preset, told | {"image_size": 320, "fps": 15.0})
    assert found.keys() - {"converted_from"} == preset.keys()
    assert found["data"] == preset["data"] | {"image_size": 320, "fps": 15.0}
    assert found["eval"] == preset["eval"] | {"per_class_top": 59}
    assert found["data"]["records"] == found["data"]["annotations"] == ""
    assert preset["data"]["image_size"] == 400


def test_a_conversion_is_not_continued_by_training(converted, tmp_path):
    """It would start from nothing at checkpoint 0, silently."""
    write_run(tmp_path / "run", converted, config())
    with pytest.raises(InputError, match=r"converted_from was weights.pth.*another --workdir"):
        run_folder.open_for_training(tmp_path / "run", common.get_config().to_dict())
