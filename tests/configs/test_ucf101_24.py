"""The UCF101-24 presets: their schedule, their sizes, and one training step of each, made small."""

import jax
import minute
import numpy as np
import pytest

import train
from configs import ucf101_24
from step_jax import parallel
from step_jax.models import platform
from step_jax.models.factory import build_detector, input_frames
from step_jax.train_state import create_train_state, init_variables
from step_jax.train_step import LossOptions, make_train_step

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
    ("variant", "plan"), [("rgb", (False, True)), ("flow", (False,)), ("early", (False,))]
)
def test_a_training_step_changes_every_parameter(variant, plan):
    config = small(ucf101_24.get_config(variant), plan=plan)
    detector = detector_of(config)
    proposals = train.initial_tubes(config, detector.plan.chunk)
    variables = init_variables(
        detector, image_size=SIDE, num_proposals=len(proposals), key=jax.random.key(0)
    )
    assert variables["params"]["backbone"]["conv1_1"]["kernel"].shape[2] == CHANNELS[variant]
    optimizer = train.optimizer_of(config)
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
    rate = train.schedule_of(config)
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


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match=r"ucf101_24.py:both: .* expected one of rgb, flow, early"):
        ucf101_24.get_config("both")
