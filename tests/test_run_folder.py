"""The folder of a run: its configuration, its parameters, its end."""

import json

import jax.numpy as jnp
import pytest

from step_jax import run_folder
from step_jax.errors import InputError

CONFIG = {
    "seed": 0,
    "data": {"records": "/a", "eval_split": "test", "image_size": 96},
    "model": {"extension_plan": (False, True)},
    "train": {"steps": 100, "log_every_steps": 10},
    "eval": {"stride": 6},
}


def changed(section, **values):
    return CONFIG | {section: CONFIG[section] | values}


@pytest.fixture
def begun(tmp_path):
    """A run with a checkpoint."""
    run_folder.open_for_training(tmp_path, CONFIG)
    (tmp_path / "checkpoints" / "50").mkdir(parents=True)
    return tmp_path


def test_configuration_survives(tmp_path):
    run_folder.open_for_training(tmp_path / "new" / "run", CONFIG)
    found = run_folder.read_config(tmp_path / "new" / "run")
    assert found == json.loads(json.dumps(CONFIG))
    assert run_folder.evaluated_part(tmp_path / "new" / "run") == ("test", "")
    assert run_folder.evaluated_part(tmp_path) is None


def test_the_same_configuration_continues(begun):
    run_folder.open_for_training(begun, CONFIG)


def test_runs_from_before_there_were_modalities_continue(begun):
    run_folder.open_for_training(begun, changed("data", modality="rgb", flow_frames=5))
    assert run_folder.read_config(begun)["data"]["modality"] == "rgb"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("data", modality="early"), "data.modality was rgb, is early"),
        (changed("train", steps=200), "train.steps was 100, is 200"),
        (changed("model", extension_plan=(False, False)), r"was \[False, True\], is \[False, Fals"),
        (changed("data", fps=25.0), "data.fps was absent, is 25.0"),
        (CONFIG | {"seed": 1, "data": {}}, "data.image_size was 96, is absent; seed was 0, is 1"),
    ],
)
def test_another_configuration_does_not(begun, config, message):
    before = (begun / "config.json").read_bytes()
    with pytest.raises(InputError, match=message) as error:
        run_folder.open_for_training(begun, config)
    assert str(begun) in str(error.value)
    assert "continue it with the same one or choose another --workdir" in str(error.value)
    assert (begun / "config.json").read_bytes() == before


def test_what_changes_nothing_may_differ(begun):
    config = changed("data", records="/moved") | {"eval": {"stride": 1}}
    config["train"] = {"steps": 100, "log_every_steps": 5}
    run_folder.open_for_training(begun, config)
    assert run_folder.read_config(begun)["data"]["records"] == "/moved"


def test_a_run_without_checkpoint_may_be_corrected(tmp_path):
    run_folder.open_for_training(tmp_path, CONFIG)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").rename(tmp_path / "checkpoints" / "tmp")
    run_folder.open_for_training(tmp_path, changed("train", steps=200))
    assert run_folder.read_config(tmp_path)["train"]["steps"] == 200


def test_continuing_is_not_finished(begun):
    run_folder.mark_finished(begun, step=100)
    assert run_folder.finished_step(begun) == 100
    run_folder.open_for_training(begun, CONFIG)
    assert run_folder.finished_step(begun) is None


def test_parameters(tmp_path, capsys):
    variables = {"params": {"head": {"kernel": jnp.zeros((30, 50)), "bias": jnp.zeros(50)}}}
    run_folder.write_parameters(tmp_path, variables)
    lines = (tmp_path / "parameters.txt").read_text().splitlines()
    assert [line.split() for line in lines] == [
        ["params/head/bias", "(50,)", "50"],
        ["params/head/kernel", "(30,", "50)", "1,500"],
        ["total", "1,550"],
    ]
    assert "1,550 parameters" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "{", '{"a":'])
def test_no_run_there(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config.json: (missing; give the --workdir|not JSON)"):
        run_folder.read_config(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--workdir .*/file/run: cannot be made: Not a directory"):
        run_folder.open_for_training(tmp_path / "file" / "run", CONFIG)
