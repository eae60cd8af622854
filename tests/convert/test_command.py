"""`python -m step_jax.convert` and `load_released` on files. Needs PyTorch: `make test-convert`."""

import collections

import jax
import numpy as np
import pytest
from released_file import content
from test_backbones import VGG16

from configs import ava, common
from step_jax import run_folder
from step_jax.convert import kinetics, load_released
from step_jax.convert.__main__ import describe
from step_jax.convert.torch_files import read_torch, write_torch
from step_jax.inference import abstract_predictor, load_predictor
from step_jax.transfer import by_path

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def one_step(tmp_path_factory):
    """A released checkpoint of one step."""
    path = tmp_path_factory.mktemp("released") / "ava.pth"
    write_torch(path, content(steps=1))
    return path


@pytest.fixture
def convert(run_program):
    def convert(source, given, output, *more):
        return run_program("convert", source, f"--input={given}", f"--output={output}", *more)

    return convert


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_released_there_and_back(convert, one_step, tmp_path):
    status, output, _ = convert("released", one_step, tmp_path / "run")
    assert status == 0
    assert f"wrote {tmp_path / 'run'}, checkpoint 321020" in output
    assert convert("released", one_step, tmp_path / "run")[1].endswith("conversion already\n")

    # The two ways to a ready detector.
    predictor, loaded = load_released(one_step), load_predictor(tmp_path / "run")
    assert_same(predictor.variables, loaded.variables)
    assert (predictor.step, predictor.num_steps, predictor.input_frames) == (321020, 1, 12)
    assert predictor.classes == loaded.classes
    config = run_folder.read_config(tmp_path / "run")
    assert config["eval"]["frames"] == "middle"
    assert config["converted_from"] == "ava.pth"
    assert common.get_config().to_dict().keys() <= config.keys()

    assert convert("export", tmp_path / "run", tmp_path / "back.pth")[0] == 0
    expected, found = read_torch(one_step), read_torch(tmp_path / "back.pth")
    for net in ("base_net", "context_net", "det_net0"):
        assert list(found[net]) == list(expected[net])
        for key, array in expected[net].items():
            assert found[net][key].dtype == array.dtype
            assert found[net][key].tobytes() == array.tobytes(), key
    status, _, errors = convert("export", tmp_path / "run", tmp_path / "back.pth")
    assert (status, len(errors)) == (1, 1)


def test_every_key_that_differs_is_printed(convert, tmp_path):
    file = content(steps=1)
    for key in ("downsample.weight", "downsample.bias", "local_reg.weight", "local_reg.bias"):
        file["det_net0"][f"other.{key}"] = file["det_net0"].pop(key)
    write_torch(tmp_path / "ava.pth", file)
    status, _, errors = convert("released", tmp_path / "ava.pth", tmp_path / "run")
    assert status == 1
    assert sum(line.startswith("missing: det_net0/") for line in errors) == 4
    assert sum(line.startswith("surplus: det_net0/other.") for line in errors) == 4
    assert errors[-1].startswith(f"error: {tmp_path / 'ava.pth'}: keys of another architecture")
    assert len(errors) == 9
    assert not (tmp_path / "run").exists()


def random_tensor(shape):
    return torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape, np.float32))


@pytest.mark.slow  # compiles the initialisation of all that the file does not have
def test_kinetics(convert, tmp_path):
    description = describe(ava.get_config().to_dict(), [str(number) for number in range(60)])
    shapes = by_path(abstract_predictor(description).variables)
    state = collections.OrderedDict()
    for key, path, layout in kinetics.entries(shapes):
        if path:
            state[key] = random_tensor(layout.theirs(np.empty(shapes[path].shape)).shape)
    state["conv3d_0c_1x1.conv3d.bias"] = torch.zeros(400)
    torch.save(state, tmp_path / "i3d.pth")
    status, output, _ = convert("kinetics_i3d", tmp_path / "i3d.pth", tmp_path / "run")
    assert status == 0
    assert "initial values: heads_*/box, heads_*/box_after" in output
    found = load_predictor(tmp_path / "run")
    assert found.step == 0
    kernel = state["mixed_5c.branch_1.1.conv3d.weight"].numpy().transpose(2, 3, 4, 1, 0)
    for module in ("scene_context", "heads_0", "heads_2"):
        np.testing.assert_array_equal(
            by_path(found.variables)[f"{module}/mixed_5c/branch_1/kernel"], kernel
        )


@pytest.mark.slow  # compiles the initialisation of all that the file does not have
def test_vgg16(convert, tmp_path):
    state, inputs = collections.OrderedDict(), 3
    for number, width in VGG16.items():
        state[f"features.{number}.weight"] = random_tensor((width, inputs, 3, 3))
        state[f"features.{number}.bias"], inputs = random_tensor((width,)), width
    state["classifier.6.bias"] = torch.zeros(1000)
    torch.save(state, tmp_path / "vgg16.pth")
    arguments = (tmp_path / "vgg16.pth", tmp_path / "run", "--input_type=early")
    assert convert("imagenet_vgg16", *arguments)[0] == 0
    arrays = by_path(load_predictor(tmp_path / "run").variables)
    stem = state["features.0.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(arrays["backbone/conv1_1/kernel"][:, :, :3], stem)
    np.testing.assert_allclose(
        arrays["backbone/conv1_1/kernel"][:, :, 17], stem.mean(axis=2), rtol=1e-6
    )
    last = state["features.28.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(arrays["backbone/conv5_3/kernel"], last)
    assert convert("imagenet_vgg16", *arguments)[1].endswith("conversion already\n")
    assert convert("kinetics_i3d", *arguments[:2])[0] == 1
