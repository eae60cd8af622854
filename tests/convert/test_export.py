"""Our detectors in the released format: those of our own training, and those it has not."""

import types

import numpy as np
import pytest
from released_file import content

from step_jax.checkpoint import Checkpoints
from step_jax.convert.export import check_layers, export_run, to_released
from step_jax.convert.released import convert_released
from step_jax.errors import InputError
from step_jax.transfer import by_path


@pytest.fixture(scope="module")
def one_step():
    """A detector of one step without context, as if it had been trained here."""
    file = content(steps=1, context=False, cfg={"NUM_CHUNKS": {1: 1}})
    found = convert_released("ava.pth", file, source={"format": "released", "file": "ava.pth"})
    description = {key: value for key, value in found.description.items() if key != "source"}
    return types.SimpleNamespace(file=file, description=description, variables=found.variables)


def test_a_detector_of_our_own(one_step):
    found = to_released(one_step.description, one_step.variables, step=500)
    cfg = vars(found["cfg"])
    assert (found["iteration"], found["epochs"], found["val_mAP"]) == (500, 0, None)
    assert cfg["label_dict"] == {index: index + 1 for index in range(60)}
    assert cfg["id2class"][60] == "class 66"
    assert cfg["no_context"]
    assert cfg["NUM_CHUNKS"] == {1: 1, 2: 1}
    again = convert_released("back.pth", found, source={"format": "released", "file": "back.pth"})
    for path, array in by_path(again.variables).items():
        np.testing.assert_array_equal(array, by_path(one_step.variables)[path])


def test_regressors_that_were_not_carried_are_zero(one_step):
    paths = by_path(one_step.variables)
    kept = {path: leaf for path, leaf in paths.items() if "box_" not in path}
    found = to_released(one_step.description, {"params": kept}, step=1)["det_net0"]
    assert found.keys() == one_step.file["det_net0"].keys()
    assert found["neighbor_reg1.weight"].shape == (4, 12544)
    assert not found["neighbor_reg1.weight"].any()
    assert found["local_reg.weight"].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg16"}, "model.backbone 'vgg16' has no counterpart"),
        ({"head": "two_branch"}, "model.head 'two_branch'"),
        ({"classification": "softmax"}, "model.classification 'softmax'.*have 'sigmoid'"),
        ({"regression": "per_class"}, "model.regression 'per_class'"),
        ({"head_options": {"trunk": "conv"}}, "model.head_options.trunk 'conv'"),
        ({"head_options": {"local_blocks": 2}}, "model.head_options.local_blocks 2"),
        ({"backbone_options": {"channels": 18}}, "model.backbone_options.channels 18"),
    ],
)
def test_layers_without_a_counterpart(one_step, changes, message):
    check_layers(one_step.description["model"])
    with pytest.raises(InputError, match=message) as error:
        check_layers(one_step.description["model"] | changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proposals": 11}, "proposals 11 has no counterpart in the released format; it has 34"),
        (
            {"extension": "extrapolate", "extension_plan": (False, True)},
            "model.extension 'extrapolate' has no counterpart",
        ),
    ],
)
def test_options_without_a_counterpart(one_step, changes, message):
    told = dict(one_step.description)
    for name, value in changes.items():
        if name in told:
            told[name] = value
        else:
            told["model"] = told["model"] | {name: value}
    variables = by_path(one_step.variables)
    second = {path.replace("heads_0", "heads_1"): leaf for path, leaf in variables.items()}
    with pytest.raises(InputError, match=message):
        to_released(told, {"params": variables | second}, step=1)


def test_tubes_that_never_grow_do_so_in_any_way(one_step):
    model = one_step.description["model"] | {"extension": "none", "extension_plan": (False,)}
    told = one_step.description | {"model": model}
    found = to_released(told, one_step.variables, step=1)
    assert vars(found["cfg"])["temporal_mode"] == "predict"


def test_refused_before_anything_is_read(tmp_path, finished_description):
    with pytest.raises(InputError, match=r"model.backbone 'tiny' has no counterpart"):
        export_run(finished_description, tmp_path / "ours.pth")
    assert not (tmp_path / "ours.pth").exists()


@pytest.fixture
def finished_description(tmp_path, monkeypatch):
    """The folder of a run of a detector that cannot be exported, whose arrays cannot be read."""
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(Checkpoints, "find", lambda self, which: 3)
    description = {"model": {"backbone": "tiny"}}
    monkeypatch.setattr(Checkpoints, "describe", lambda self, step: description)
    return tmp_path


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "ours.pth").write_text("mine")
    with pytest.raises(InputError, match=r"ours.pth: is there already"):
        export_run(tmp_path, tmp_path / "ours.pth")
    assert (tmp_path / "ours.pth").read_text() == "mine"
