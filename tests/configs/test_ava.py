"""The AVA presets: one training step of each, made small, and what their schedules say."""

import jax
import minute
import numpy as np
import pytest

from configs import ava, ava_classification
from programs import training_config
from step_jax import parallel
from step_jax.errors import InputError
from step_jax.loss_options import LossOptions
from step_jax.models import platform
from step_jax.models.factory import build_detector, input_frames
from step_jax.train_state import create_train_state, init_variables
from step_jax.train_step import make_train_step
from step_jax.transfer import by_path, transfer

CLASSES = 60
SIDE = 32
PRESETS = {
    "paper": ava.get_config,
    "released": lambda: ava.get_config("released"),
    "classification": ava_classification.get_config,
}


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """With the accelerators' formulations, which compile in less time and compute the same."""
    with minute.quick_compilation(), platform.assumed("gpu"):
        yield


def small(config, *, steps=2):
    """The same model on small images, of fewer steps, with narrow local branches."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        steps = min(steps, len(config.model.extension_plan))
        config.data.image_size = SIDE
        config.model.clip_frames = 4
        config.model.extension_plan = (False, True)[:steps]
        config.model.pool_size = 1
        config.model.head_options.update(
            {"global_features": 4, "local_features": 8, "local_bottleneck": 4, "local_blocks": 1}
        )
        config.loss.update({"max_positives": 1, "negatives_per_positive": 1})
    return config


def detector_of(config):
    return build_detector(num_classes=CLASSES, **config.model.to_dict())


def random_variables(shapes):
    """Small kernels and statistics of unit variance, without compiling an initialisation."""
    rng = np.random.default_rng(0)

    def random(keys, leaf):
        if keys[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        spread = np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))) if leaf.ndim > 1 else 0.01
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(spread)

    return jax.tree_util.tree_map_with_path(random, shapes)


def shapes_of(config):
    return jax.eval_shape(
        lambda: init_variables(
            detector_of(config),
            image_size=config.data.image_size,
            num_proposals=1,
            key=jax.random.key(0),
        )
    )


def batch_of(frames):
    """A clip of noise and a person in it, annotated at the middle of each feature frame."""
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 1, 1, frames), bool)
    mask[..., 2::4] = True
    return {
        "clips": rng.integers(0, 256, (1, 1, frames, SIDE, SIDE, 3), np.uint8),
        "boxes": mask[..., None] * np.float32([2, 3, 20, 25]),
        "box_mask": mask,
        "labels": np.eye(CLASSES, dtype=np.float32)[None, None, [7]],
        "tube_mask": np.ones((1, 1, 1), bool),
    }


@pytest.mark.parametrize(
    "preset",
    [
        "released",
        pytest.param("paper", marks=pytest.mark.slow),
        pytest.param("classification", marks=pytest.mark.slow),
    ],
)
def test_a_training_step_changes_every_parameter(preset):
    # Compiling is what this costs: the steps' growth is tested with one of the presets.
    config = small(PRESETS[preset](), steps=2 if preset == "released" else 1)
    detector = detector_of(config)
    training_config.check_groups(config, shapes_of(config)["params"])
    variables = random_variables(shapes_of(config))
    optimizer = training_config.optimizer_of(config)
    step = make_train_step(
        detector,
        optimizer,
        proposals=training_config.initial_tubes(config, detector.plan.chunk),
        options=LossOptions(**config.loss.to_dict()),
    )
    state, metrics = parallel.data_parallel(step)(
        create_train_state(variables, optimizer),
        batch_of(input_frames(detector)),
        jax.random.key(1),
    )
    assert np.isfinite(metrics["loss"]).all()
    assert metrics["positives_1"][0] == 1
    assert ("localization_1" in metrics) == (preset != "classification")
    after, before = (by_path({"params": one}) for one in (state.params, variables["params"]))
    unchanged = {path for path in before if (np.asarray(after[path]) == before[path]).all()}
    assert not unchanged
    for path, array in by_path({"frozen": state.model_state["frozen"]}).items():
        np.testing.assert_array_equal(array, by_path(variables)[path])


@pytest.mark.parametrize("preset", PRESETS)
def test_sizes_and_groups_of_the_full_model(preset):
    config = PRESETS[preset]()
    shapes = shapes_of(config)
    training_config.check_groups(config, shapes["params"])
    assert input_frames(detector_of(config)) == 36
    parts = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in
             shapes["params"].items()}  # fmt: skip
    frozen = {name: by_path({"": part}) for name, part in shapes["frozen"].items()}
    affine = {
        name: sum(
            leaf.size for path, leaf in leaves.items() if path.split("/")[-1] in ("scale", "bias")
            and "box_" not in path
        )
        for name, leaves in frozen.items()
    }  # fmt: skip
    assert parts["backbone"] + affine["backbone"] == 7_528_256
    assert parts["scene_context"] + affine["scene_context"] == 4_759_008
    steps = len(config.model.extension_plan)
    assert len(parts) == 2 + steps == (3 if preset == "classification" else 5)


def test_the_pretrained_head_goes_into_every_step():
    source = random_variables(shapes_of(small(ava_classification.get_config())))
    target = random_variables(shapes_of(small(ava.get_config("released"))))
    found, report = transfer(target, source, skip=("classifier",))
    found, source = by_path(found), by_path(source)
    assert not report.surplus
    assert not report.misshapen
    assert all("/local_" in path or "/box" in path for path in report.missing)
    for step in range(2):
        head = f"heads_{step}"
        np.testing.assert_array_equal(
            found[f"{head}/mixed_5c/branch_1/kernel"], source["heads_0/mixed_5c/branch_1/kernel"]
        )
        classifier = f"{head}/classifier/kernel"
        np.testing.assert_array_equal(found[classifier], by_path(target)[classifier])


def test_the_schedules():
    config = ava.get_config()
    epoch = config.train.steps / 10
    assert epoch * config.train.batch_size == ava.CLIPS
    rate = training_config.schedule_of(config)
    for epochs, expected in [(0, 5e-5), (5.9, 5e-5), (6.1, 5e-6), (9.9, 5e-6)]:
        assert float(rate(int(epochs * epoch))) == pytest.approx(expected)
    released = ava.get_config("released")
    assert released.train.steps == 321_020
    assert released.train.batch_size == 8


def test_presets_are_locked_and_have_the_common_keys():
    common = ava.common.get_config()
    for preset in PRESETS.values():
        config = preset()
        assert config.is_locked
        assert {key: set(config[key]) for key in ("loss", "optimizer", "train", "eval")} == {
            key: set(common[key]) for key in ("loss", "optimizer", "train", "eval")
        }
    with pytest.raises(ValueError, match=r"configs/ava.py:paper: expected"):
        ava.get_config("paper")


def test_a_small_image_is_refused():
    with pytest.raises(InputError, match=r"data\.image_size: found 31"):
        detector_of(ava.get_config()).backbone.check_side(31)
