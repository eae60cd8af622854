"""The UCF101-24 rows: what each says, their sizes, and small training steps of each input."""

import pathlib
import re

import jax
import minute
import numpy as np
import pytest

from configs import ucf101_24
from programs import training_config
from step_jax import parallel
from step_jax.loss_options import LossOptions
from step_jax.modality import Modality
from step_jax.models import platform
from step_jax.models.factory import build_detector, check_modality, input_frames
from step_jax.train_state import create_train_state, init_variables
from step_jax.train_step import make_train_step

CLASSES = 24
SIDE = 32
CHANNELS = {"rgb": 3, "flow": 15, "early": 18}


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """With the accelerators' formulations, which compile in less time and compute the same."""
    with minute.quick_compilation(), platform.assumed("gpu"):
        yield


def small(config, *, plan):
    """The same model on small images, short clips and few samples, with few channels."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.head_options.update(
            {"global_features": 4, "local_features": 8, "local_bottleneck": 4, "local_blocks": 1}
        )
        config.model.clip_frames = 1
        config.model.extension_plan = plan
        config.model.pool_size = 2
        config.model.backbone_options.update({"frames_at_once": 2, "blocks": ((1, 8),) * 5})
        config.data.image_size = SIDE
        config.loss.update(
            {"max_positives": 1, "negatives_per_positive": 1, "thresholds": (0.2, 0.3)}
        )
    return config


def detector_of(config):
    return build_detector(num_classes=CLASSES, **config.model.to_dict())


def batch_of(detector):
    """A clip of noise, and a tube that is there in all of its frames."""
    rng = np.random.default_rng(0)
    frames, shape = input_frames(detector), (1, 1, input_frames(detector))
    return {
        "clips": rng.integers(
            0, 256, (1, frames, SIDE, SIDE, detector.backbone.channels), np.uint8
        ),
        "boxes": np.broadcast_to(np.float32([2, 3, 20, 25]), (*shape, 4)),
        "box_mask": np.ones(shape, bool),
        "labels": np.eye(CLASSES, dtype=np.float32)[None, [7]],
        "tube_mask": np.ones((1, 1), bool),
    }


@pytest.mark.parametrize(
    ("variant", "plan"),
    [
        pytest.param("rgb", (False, True), marks=pytest.mark.slow),
        pytest.param("flow", (False,), marks=pytest.mark.slow),
        ("early", (False,)),
    ],
)
def test_a_training_step_changes_every_parameter(variant, plan):
    config = small(ucf101_24.get_config(variant), plan=plan)
    detector = detector_of(config)
    proposals = training_config.initial_tubes(config, detector.plan.chunk)
    variables = init_variables(
        detector, image_size=SIDE, num_proposals=len(proposals), key=jax.random.key(0)
    )
    assert variables["params"]["backbone"]["conv1_1"]["kernel"].shape[2] == CHANNELS[variant]
    optimizer = training_config.optimizer_of(config)
    options = LossOptions(**config.loss.to_dict())
    step = make_train_step(detector, optimizer, proposals=proposals, options=options)
    batch = jax.tree.map(lambda leaf: leaf[None], batch_of(detector))  # on one device
    state = create_train_state(variables, optimizer)
    state, metrics = parallel.data_parallel(step)(state, batch, jax.random.key(1))
    assert np.isfinite(metrics["loss"]).all()
    for number in range(1, len(plan) + 1):
        assert metrics[f"positives_{number}"][0] == 1
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, variables["params"])
    unchanged = [path for path, value in jax.tree.leaves_with_path(changed) if not value]
    assert not unchanged


@pytest.mark.parametrize("variant", CHANNELS)
def test_the_full_size_is_the_papers(variant):
    detector = detector_of(ucf101_24.get_config(variant))
    lengths = [detector.plan.length(step) for step in range(3)]
    assert (lengths, input_frames(detector)) == ([6, 18, 30], 30)
    assert detector.backbone.channels == CHANNELS[variant]
    assert (detector.classification, detector.regression) == ("softmax", "per_class")
    clips = jax.ShapeDtypeStruct((1, 30, 400, 400, CHANNELS[variant]), np.float32)
    tubes = jax.ShapeDtypeStruct((11, 6, 4), np.float32)
    outputs, variables = jax.eval_shape(detector.init_with_output, jax.random.key(0), clips, tubes)
    assert [output.fed.shape for output in outputs] == [(1, 11, length, 4) for length in lengths]
    assert outputs[2].head.logits.shape == (1, 11, 25)
    assert outputs[2].head.deltas.shape == (1, 11, 30, 24, 4)
    sizes = {
        name: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(part))
        for name, part in variables["params"].items()
    }
    # As docs/models.md tells them.
    first_kernel = 3 * 3 * 64 * (CHANNELS[variant] - 3)
    assert sizes["backbone"] == 14_714_688 + first_kernel
    assert [sizes[f"heads_{step}"] for step in range(3)] == [27_717_433, 27_717_433, 25_308_793]


def test_the_schedule_is_the_papers():
    config = ucf101_24.get_config()
    steps_of_an_epoch = config.train.steps / 35
    assert config.train.batch_size * steps_of_an_epoch == pytest.approx(17_494, rel=1e-4)
    rate = training_config.schedule_of(config)
    for epoch, expected in [(0, 5e-5), (19.9, 5e-5), (20.1, 5e-6), (29.9, 5e-6), (30.1, 5e-7)]:
        assert float(rate(int(epoch * steps_of_an_epoch))) == pytest.approx(expected)


def test_presets_are_locked_and_have_the_common_keys():
    for variant in CHANNELS:
        config = ucf101_24.get_config(variant)
        with pytest.raises(AttributeError, match="locked"):
            config.model.backbonne = "vgg16"
        assert config.data.modality == variant
    assert ucf101_24.get_config("early").augment.photometric == 0.5
    assert ucf101_24.get_config("flow").augment.photometric == 0


def test_another_row_is_refused():
    with pytest.raises(ValueError, match=r"ucf101_24.py:both: .* expected one of rgb, flow, early"):
        ucf101_24.get_config("both")
    for row, runs in ucf101_24.FUSIONS.items():
        with pytest.raises(ValueError, match=rf"{row}: is the fusion of .*step_jax.fusion"):
            ucf101_24.get_config(row)
        assert set(runs) <= set(ucf101_24.ROWS)


# Frames of each step, frames that the network reads, M, as docs/ucf101_24.md lists them.
SHAPES = {
    "rgb": ([6, 18, 30], 30, 11),
    "flow": ([6, 18, 30], 30, 11),
    "early": ([6, 18, 30], 30, 11),
    "table1a_s1": ([6], 6, 11),
    "table1a_s2": ([6, 6], 6, 11),
    "table1a_s3": ([6, 6, 6], 6, 11),
    "table1a_s4": ([6, 6, 6, 6], 6, 11),
    "table1b_rgb": ([6, 18, 30], 30, 11),
    "table1b_flow": ([6, 18, 30], 30, 11),
    "table1b_early": ([6, 18, 30], 30, 11),
    "fig5_k6": ([6, 6, 6], 6, 11),
    "fig5_k30": ([30, 30, 30], 30, 11),
    "fig5_extrapolate": ([6, 18, 30], 30, 11),
    "fig5_anticipate": ([6, 18, 30], 30, 11),
    "fig6a_s1": ([6], 6, 11),
    "fig6a_s2": ([6, 6], 6, 11),
    "fig6a_s3": ([6, 6, 6], 6, 11),
    "fig6a_s4": ([6, 6, 6, 6], 6, 11),
    "fig6a_s2_extended": ([6, 18], 18, 11),
    "fig6a_s3_extended": ([6, 18, 30], 30, 11),
    "fig6a_s4_extended": ([6, 18, 30, 42], 42, 11),
    "fig6b_m11": ([6, 6, 6], 6, 11),
    "fig6b_m34": ([6, 6, 6], 6, 34),
    "fig6b_m59": ([6, 6, 6], 6, 59),
    "fig6b_m84": ([6, 6, 6], 6, 84),
    "fig6b_m109": ([6, 6, 6], 6, 109),
    "without_scene_context": ([6, 18, 30], 30, 11),
    "without_hard_sampling": ([6, 18, 30], 30, 11),
    "without_rising_thresholds": ([6, 18, 30], 30, 11),
    "smoke": ([6, 18], 18, 11),
    "smoke_rgb": ([6, 18], 18, 11),
    "smoke_flow": ([6, 18], 18, 11),
}


@pytest.mark.parametrize("row", ucf101_24.ROWS)
def test_a_row_is_what_the_guide_says(row):
    config = ucf101_24.get_config(row)
    detector = detector_of(config)
    steps = range(detector.plan.num_steps)
    lengths = [detector.plan.length(step) for step in steps]
    tubes = training_config.initial_tubes(config, detector.plan.chunk)
    assert (lengths, input_frames(detector), len(tubes)) == SHAPES[row]
    assert tubes.shape[1] == config.model.clip_frames == lengths[0]
    thresholds = config.loss.thresholds
    assert len(thresholds) == len(lengths)
    is_flat = row == "without_rising_thresholds"
    assert list(thresholds) == sorted(set(thresholds)) or is_flat
    assert config.eval.tubes
    assert config.eval.stride == 1
    check_modality(detector, Modality(config.data.modality, config.data.flow_frames))
    LossOptions(**config.loss.to_dict())


def test_the_guide_has_every_row():
    guide = pathlib.Path(__file__).parents[2] / "docs" / "ucf101_24.md"
    named = set(re.findall(r"`(\w+)`", guide.read_text(encoding="utf-8")))
    assert set(ucf101_24.ROWS) <= named


def changed(row):
    """The keys in which a row is not `rgb`."""
    base, own = ucf101_24.get_config().to_dict(), ucf101_24.get_config(row).to_dict()
    return {
        f"{part}.{key}"
        for part in ("data", "model", "loss", "optimizer", "augment", "train", "eval")
        for key in base[part]
        if base[part][key] != own[part][key]
    } | ({"proposals"} if base["proposals"] != own["proposals"] else set())


def test_lines_of_several_tables_are_one_run():
    same = [
        ("rgb", "table1b_rgb", "fig5_anticipate", "fig6a_s3_extended"),
        ("flow", "table1b_flow"),
        ("early", "table1b_early"),
        ("table1a_s3", "fig5_k6", "fig6a_s3", "fig6b_m11"),
        ("table1a_s1", "fig6a_s1"),
        ("table1a_s2", "fig6a_s2"),
        ("table1a_s4", "fig6a_s4"),
    ]
    for first, *others in same:
        for other in others:
            assert ucf101_24.get_config(first).to_dict() == ucf101_24.get_config(other).to_dict()


def test_a_row_changes_what_it_is_about_alone():
    plan = {"model.extension", "model.extension_plan"}
    assert changed("table1a_s3") == plan
    assert changed("table1a_s4") == plan | {"loss.thresholds"}
    assert changed("fig5_k30") == plan | {"model.clip_frames"}
    assert changed("fig5_extrapolate") == {"model.extension"}
    assert changed("fig6b_m34") == plan | {"proposals"}
    assert changed("without_scene_context") == {"model.scene_context"}
    assert changed("without_rising_thresholds") == {"loss.thresholds"}
    assert changed("without_hard_sampling") == {"loss.positive_weights", "loss.negative_weights"}
    assert changed("early") == {"data.modality", "model.backbone_options"}


@pytest.mark.parametrize("row", ["table1a_s4", "fig5_k30", "fig6b_m109", "smoke"])
def test_a_row_builds(row):
    config = ucf101_24.get_config(row)
    detector, side = detector_of(config), config.data.image_size
    frames, channels = input_frames(detector), detector.backbone.channels
    clips = jax.ShapeDtypeStruct((1, frames, side, side, channels), np.float32)
    tubes = training_config.initial_tubes(config, detector.plan.chunk)
    outputs, _ = jax.eval_shape(detector.init_with_output, jax.random.key(0), clips, tubes)
    lengths, _, proposals = SHAPES[row]
    assert [output.head.deltas.shape for output in outputs] == [
        (1, proposals, length, 24, 4) for length in lengths
    ]
