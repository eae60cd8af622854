"""Kinetics' I3D and ImageNet's VGG16: which array goes where. Without PyTorch."""

import numpy as np
import pytest

from configs import ava, ucf101_24
from step_jax.convert import imagenet, kinetics, mapping
from step_jax.convert.__main__ import describe
from step_jax.inference import abstract_predictor
from step_jax.models.i3d import MIXED
from step_jax.transfer import by_path


def paths_of(config, classes=3):
    description = describe(config.to_dict(), [str(number) for number in range(classes)])
    return by_path(abstract_predictor(description).variables)


@pytest.fixture(scope="module")
def ava_paths():
    return paths_of(ava.get_config())


def test_kinetics_fills_the_backbone_and_every_5b_and_5c(ava_paths):
    table = kinetics.entries(ava_paths)
    filled = {entry.path for entry in table if entry.path}
    modules = ("scene_context", "heads_0", "heads_1", "heads_2")
    expected = {
        path
        for path in ava_paths
        if path.startswith(("backbone/", *(f"{name}/mixed_5" for name in modules)))
    }
    assert filled == expected
    copies = [entry.path for entry in table if entry.key == "mixed_5c.branch_2.0.conv3d.weight"]
    assert sorted(copies) == sorted(f"{name}/mixed_5c/branch_2_reduce/kernel" for name in modules)


def test_kinetics_keys(ava_paths):
    keys = {entry.key for entry in kinetics.entries(ava_paths)}
    layers = {"conv3d_1a_7x7", "conv3d_2b_1x1", "conv3d_2c_3x3", *MIXED}
    assert {key.partition(".")[0] for key in keys} == layers
    assert "mixed_4f.branch_3.1.batch3d.running_mean" in keys
    assert len(keys) == 6 * (3 + 6 * len(MIXED))


def test_arrays_of_kinetics_fit(ava_paths):
    """As the check before a conversion compares them."""
    table = kinetics.entries(ava_paths)
    shapes = {"conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7)}
    shapes["mixed_4e.branch_1.1.conv3d.weight"] = (288, 144, 3, 3, 3)
    shapes["mixed_5b.branch_3.1.batch3d.bias"] = (128,)
    some = [entry for entry in table if entry.key in shapes]
    found = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    mapping.check("i3d.pth", some, found, ava_paths)
    assert len(mapping.to_ours(some, found)) == 1 + 1 + 4


# --- VGG16 ----------------------------------------------------------------------------------------

# torchvision's numbers of the convolutions in `features`.
VGG16 = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
VGG16 |= {17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}


def test_vgg16_keys_and_shapes():
    shapes, inputs = paths_of(ucf101_24.get_config("rgb")), 3
    found = {}
    for number, width in VGG16.items():
        found[f"features.{number}.weight"] = np.zeros((width, inputs, 3, 3), np.float32)
        found[f"features.{number}.bias"] = np.zeros(width, np.float32)
        inputs = width
    table = imagenet.entries()
    mapping.check("vgg16.pth", table, found, shapes)
    filled = set(mapping.to_ours(table, found))
    assert filled == {path for path in shapes if path.startswith("backbone/")}
    assert [entry.path for entry in table[::2]][:3] == [
        "backbone/conv1_1/kernel",
        "backbone/conv1_2/kernel",
        "backbone/conv2_1/kernel",
    ]


@pytest.mark.parametrize("variant", ucf101_24.INPUTS)
def test_inflated_stem(variant):
    options = ucf101_24.INPUTS[variant]
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 5)).astype(np.float32)
    wide = imagenet.inflate(kernel, channels=options["channels"], rgb=options["rgb"])
    assert wide.shape == (3, 3, options["channels"], 5)
    average = (kernel[:, :, 0] + kernel[:, :, 1] + kernel[:, :, 2]) / 3
    for channel in range(options["channels"]):
        colour = options["rgb"] and channel < 3
        expected = kernel[:, :, channel] if colour else average
        np.testing.assert_allclose(wide[:, :, channel], expected, atol=1e-6)
