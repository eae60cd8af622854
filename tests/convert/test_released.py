"""Released checkpoints as our detectors, and back. Without PyTorch: files are read elsewhere."""

import argparse

import numpy as np
import pytest
import released_file
from released_file import CFG, content

from step_jax.convert import released_config
from step_jax.convert.export import to_released
from step_jax.convert.released import convert_released
from step_jax.convert.released_keys import Architecture
from step_jax.errors import InputError
from step_jax.transfer import DifferentKeysError, by_path

FULL = Architecture(steps=3)


def convert(file):
    return convert_released("ava.pth", file, source={"format": "released", "file": "ava.pth"})


def describe(architecture=FULL, **cfg):
    return released_config.describe("ava.pth", CFG | cfg, architecture)


@pytest.fixture(scope="module")
def full():
    return convert(content())


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        (FULL, "det_net"),
        (Architecture(4, context=False), "det_net_no_context"),
        (Architecture(1, local=False), "det_net_cls_only"),
    ],
)
def test_keys_are_the_files_in_their_order(architecture, head):
    lists = released_file.key_lists()
    nets = {"base_net": lists["base_net"]}
    if architecture.context:
        nets["context_net"] = lists["context_net"]
    nets |= {f"det_net{step}": lists[head] for step in range(architecture.steps)}
    expected = [f"{net}/{key}" for net, keys in nets.items() for key in keys]
    assert [entry.key for entry in architecture.entries()] == expected


def test_numbers_of_parameters(full):
    counts = dict.fromkeys(("backbone", "scene_context", "heads_0", "heads_1", "heads_2"), 0)
    for path, leaf in by_path(full.variables).items():
        if not path.endswith(("/mean", "/var")):
            counts[path.partition("/")[0]] += leaf.size
    assert list(counts.values()) == [7_528_256, 4_759_008, *[10_721_320] * 3]


def test_arrays_lie_where_the_names_say(full):
    file, ours = content(), by_path(full.variables)
    theirs = file["base_net"]["module.base_model.9.branch_2.1.conv3d.weight"]
    assert ours["backbone/mixed_4c/branch_2/kernel"][1, 2, 0, 7, 11] == theirs[11, 7, 1, 2, 0]
    theirs = file["context_net"]["module.i3d_conv_context.2.branch_1.0.batch3d.running_var"]
    np.testing.assert_array_equal(ours["scene_context/mixed_5c/branch_1_reduce/var"], theirs)
    theirs = file["det_net1"]["global_cls.weight"]
    assert ours["heads_1/classifier/kernel"][(3 * 7 + 5) * 256 + 9, 8] == theirs[8, 9 * 49 + 26]
    assert ours["heads_1/classifier/kernel"][12544 + 1000, 8] == theirs[8, 12544 + 1000]
    theirs = file["det_net2"]["neighbor_reg2.weight"]
    assert ours["heads_2/box_after/kernel"][(3 * 7 + 5) * 256 + 9, 2] == theirs[2, 9 * 49 + 26]
    theirs = file["det_net0"]["local_conv.0.conv1.weight"]
    np.testing.assert_array_equal(
        ours["heads_0/local_0/shortcut/kernel"][0, 0], theirs[..., 0, 0].T
    )


# --- there and back -------------------------------------------------------------------------------


def assert_same_file(found, expected):
    """Nets bit for bit and in order, and the options of the detector."""
    nets = [name for name in expected if name.endswith("_net") or name.startswith("det_net")]
    assert [name for name in found if "net" in name] == nets
    for net in nets:
        assert list(found[net]) == list(expected[net])
        for key, array in expected[net].items():
            assert found[net][key].dtype == array.dtype
            assert found[net][key].shape == array.shape
            assert found[net][key].tobytes() == array.tobytes(), f"{net}/{key}"
    assert vars(found["cfg"]).keys() >= vars(expected["cfg"]).keys()
    for name, value in vars(expected["cfg"]).items():
        assert vars(found["cfg"])[name] == value, name
    for name in ("epochs", "iteration", "val_mAP"):
        assert found[name] == expected[name]


def test_round_trip(full):
    file = content()
    assert full.step == 321020
    assert_same_file(to_released(full.description, full.variables, step=full.step), file)


def test_round_trip_of_two_steps_without_context():
    cfg = {"temporal_mode": "mean", "pool_mode": "pool", "anchor_mode": "3", "extra": None}
    cfg |= {"iterative_mode": "temporal2", "NUM_CHUNKS": {1: 1, 2: 3, 3: 3}}
    file = content(steps=2, context=False, cfg=cfg)
    found = convert(file)
    assert not any(path.startswith("scene_context") for path in by_path(found.variables))
    assert_same_file(to_released(found.description, found.variables, step=found.step), file)


def test_round_trip_of_the_classification_pretraining():
    file = content(steps=1, classification=True, cfg={"NUM_CHUNKS": {1: 1, 2: 1}, "T": 9})
    found = convert(file)
    assert found.description["model"]["clip_frames"] == 36
    assert found.description["model"]["head_options"]["local_branch"] is False
    assert not any("local" in path or "box" in path for path in by_path(found.variables))
    back = to_released(found.description, found.variables, step=found.step)
    vars(file["cfg"])["iterative_mode"] = "spatial"  # as one step is called
    assert_same_file(back, file)


# --- the options ----------------------------------------------------------------------------------


def test_description(full):
    model = full.description["model"]
    assert model["clip_frames"] == 12
    assert model["extension_plan"] == [False, False, True]
    assert (model["classification"], model["regression"]) == ("sigmoid", "agnostic")
    assert full.description["fps"] == 12
    assert full.description["image_size"] == 400
    assert full.description["proposals"] == 34
    assert full.description["classes"][:2] == ["class 1", "class 2"]
    assert full.description["classes"][-1] == "class 66"


@pytest.mark.parametrize(
    ("chunks", "plan"),
    [
        ((1, 1, 1), [False, False, False]),
        ((1, 1, 3), [False, False, True]),
        ((1, 3, 3, 5), [False, True, False, True]),
        ((1,), [False]),
    ],
)
def test_chunk_plans(chunks, plan):
    model = describe(Architecture(len(chunks)), NUM_CHUNKS=dict(enumerate(chunks, start=1)))
    assert model["model"]["extension_plan"] == plan


@pytest.mark.parametrize("name", released_config.CHUNK_PLANS)
def test_chunk_plans_by_name(name):
    cfg = {key: value for key, value in CFG.items() if key != "NUM_CHUNKS"}
    told = released_config.describe("ava.pth", cfg | {"iterative_mode": name}, Architecture(4))
    chunks = dict(enumerate(released_config.CHUNK_PLANS[name], start=1))
    assert told == describe(Architecture(4), NUM_CHUNKS=chunks)


@pytest.mark.parametrize(
    ("option", "value", "key", "expected"),
    [
        ("temporal_mode", "extrapolate", "extension", "recursive"),
        ("temporal_mode", "mean", "extension", "mean"),
        ("pool_mode", "pool", "roi_mode", "pool"),
        ("T", 2, "clip_frames", 8),
    ],
)
def test_options_of_the_model(option, value, key, expected):
    assert describe(**{option: value})["model"][key] == expected


@pytest.mark.parametrize(("mode", "number"), [("1", 34), ("2", 59), ("3", 84), (4, 109)])
def test_anchors(mode, number):
    assert describe(anchor_mode=mode)["proposals"] == number


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("image_size", (400, 300), r"cfg.image_size is \(400, 300\); expected two equal sides"),
        ("image_size", "400", "image_size"),
        ("NUM_CHUNKS", {1: 1, 2: 2, 3: 3}, r"steps have \[1, 2, 3\] chunks"),
        ("NUM_CHUNKS", {1: 3, 2: 3, 3: 3}, r"\[3, 3, 3\]"),
        ("NUM_CHUNKS", {1: 1}, "chunks of each of 3 steps"),
        ("temporal_mode", "guess", "expected one of predict, extrapolate, mean"),
        ("anchor_mode", [1], "anchor_mode"),
        ("scale_norm", 1, "scale_norm is 1; expected 2"),
        ("means", [0.5, 0, 0], "means"),
        ("base_net", "vgg16", "base_net"),
        ("T", 0, "T is 0"),
        ("fps", "12", "fps"),
        ("label_dict", {1: 1}, "label_dict"),
        ("label_dict", {0: 1, 1: 1}, "another number"),
        ("id2class", {1: "run"}, "name of every class"),
    ],
)
def test_options_that_do_not_fit(option, value, message):
    with pytest.raises(InputError, match=message) as error:
        describe(**{option: value})
    assert str(error.value).startswith("ava.pth: cfg.")
    assert "\n" not in str(error.value)


def test_an_image_too_small():
    with pytest.raises(InputError, match=r"16.*32 pixels or more"):
        convert(content(cfg={"image_size": (16, 16)}))


# --- files that are not what they should be -------------------------------------------------------


def test_every_key_that_differs_is_listed():
    file = content()
    lost = [key for key in file["det_net1"] if key.startswith("local_conv")]
    for key in lost:
        del file["det_net1"][key]
    file["base_net"]["module.fc.weight"] = np.zeros((2, 3), np.float32)
    file["det_net0"]["global_cls.bias"] = np.zeros(80, np.float32)
    with pytest.raises(DifferentKeysError) as error:
        convert(file)
    assert "10 missing" in str(error.value)
    assert "\n" not in str(error.value)
    listing = error.value.report.listing()
    assert [f"missing: det_net1/{key}" for key in lost] == listing[:10]
    assert listing[10:] == [
        "surplus: base_net/module.fc.weight",
        "misshapen: det_net0/global_cls.bias [80] instead of [60]",
    ]


def test_counters_may_be_missing():
    file = content()
    for net in ("base_net", "context_net", "det_net0", "det_net1", "det_net2"):
        file[net] = {key: a for key, a in file[net].items() if not key.endswith("tracked")}
    found = convert(file)
    back = to_released(found.description, found.variables, step=found.step)
    assert back["det_net0"]["i3d_conv.0.branch_0.batch3d.num_batches_tracked"] == 0


def test_values_that_are_not_finite():
    file = content()
    broken = file["det_net2"]["downsample.weight"].copy()
    broken.flat[:3] = np.nan, np.inf, -np.inf
    file["det_net2"]["downsample.weight"] = broken
    with pytest.raises(InputError, match=r"det_net2/downsample.weight has 3 values of 262144"):
        convert(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("cfg"), "has no cfg"),
        (lambda file: file.update(cfg=dict(CFG)), "has no cfg"),
        (lambda file: file.update(cfg=argparse.Namespace()), "cfg has no 'label_dict'"),
        (lambda file: file.pop("base_net"), "not a STEP checkpoint: it holds epochs, iteration"),
        (lambda file: file.pop("det_net1"), r"the heads \[0, 2\]"),
        (lambda file: file.update(iteration="last"), "iteration is 'last'"),
        (lambda file: file.update(base_net=3), "expected a state dict"),
        (lambda file: file["base_net"].update(x=[1]), "'x' is of type list"),
    ],
)
def test_not_a_checkpoint(change, message):
    file = content()
    change(file)
    with pytest.raises(InputError, match=message) as error:
        convert(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", [None, 5, [1], {}, {"state_dict": {}}])
def test_something_else(file):
    with pytest.raises(InputError, match="not a STEP checkpoint"):
        convert(file)
