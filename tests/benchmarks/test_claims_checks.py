"""`benchmarks.claims.checks`: what is measured of rows that did not come out as in the paper."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import configuration
from benchmarks.claims import checks, config
from configs import moving_actors, ucf101_24
from step_jax.annotations import Tube, Video
from step_jax.errors import InputError
from step_jax.inference import abstract_predictor
from step_jax.loss_options import LossOptions
from step_jax.models.step import StepPlan
from step_jax.sampling import Samples
from step_jax.train_state import init_variables
from step_jax.training_targets import Targets

BOX = np.array([10, 20, 30, 60], np.float32)


def samples(index, tube, positive, negative):
    rows = (np.asarray(row)[None] for row in (index, tube, positive, negative))
    return Samples(*map(jnp.asarray, rows))


def test_targets_are_those_of_the_window_in_input_pixels():
    acting = Tube(labels=(2,), frames=np.arange(4, 20), boxes=np.tile(BOX, (16, 1)))
    gone = Tube(labels=(0,), frames=np.arange(1, 3), boxes=np.tile(BOX, (2, 1)))
    video = Video("v", "v.avi", "test", 25.0, 30, 192, 96, (acting, gone))
    predictor = SimpleNamespace(
        input_frames=6, clip_frames=2, image_size=96, classes=("a", "b", "c")
    )
    row = checks.Trained(predictor, options=None, max_tubes=3)
    found = checks.targets(video, row, first=1)  # of which frames 3 and 4 are the target clip
    np.testing.assert_array_equal(
        found["box_mask"], [[0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0] * 6]
    )
    np.testing.assert_allclose(found["boxes"][0, 3], [5, 20, 15, 60])
    np.testing.assert_array_equal(found["tube_mask"], [False, False, False])
    np.testing.assert_array_equal(found["labels"], [[0, 0, 1], [1, 0, 0], [0, 0, 0]])
    found = checks.targets(video, row, first=2)
    np.testing.assert_array_equal(found["tube_mask"], [True, False, False])


def test_a_tube_has_a_positive_if_one_is_its_own():
    found = samples([0, 1, 2], [1, 0, 0], [True, False, False], [False, True, True])
    mask = jnp.array([[True, True, False]])
    assert [float(one) for one in checks.with_positive(found, mask)] == [1.0, 2.0]


def test_negatives_are_compared_with_all_that_are_neither_claimed_nor_positive():
    overlaps = jnp.array([[[0.3, 0.6, 0.1, 0.0, 0.2]]])  # the second is claimed, the first positive
    scores = jnp.array([[0.9, 0.8, 0.1, 0.4, 0.1]])
    drawn = samples([1, 3, 0], [0, 0, 0], [True, False, False], [False, True, False])
    found = checks.negative_scores(drawn, scores, overlaps, jnp.ones((1, 1), bool), threshold=0.25)
    assert float(found["negative_score"][0]) == pytest.approx(0.4)
    assert float(found["other_score"][0]) == pytest.approx(0.2)
    assert float(found["pool"][0]) == 3
    none = drawn._replace(negative=jnp.zeros((1, 3), bool))
    found = checks.negative_scores(none, scores, overlaps, jnp.ones((1, 1), bool), threshold=0.25)
    assert [float(one) for one in found["negative_score"]] == [0, 0]


def test_overlaps_are_of_known_and_of_added_frames():
    """K = 2; the second step has two frames more on both sides, of which one is not annotated."""
    plan = StepPlan(chunk=2, extends=(False, True))
    boxes = np.tile(BOX, (1, 1, 6, 1))
    tubes = np.stack([np.zeros((6, 4), np.float32), np.tile(BOX, (6, 1))])[None]
    tubes[0, 1, 4:] += [20, 0, 20, 0]  # beside the actor, after the target clip
    mask = np.ones((1, 1, 6), bool)
    mask[..., 5] = False
    wanted = Targets(boxes, mask, np.ones((1, 1, 3)), np.ones((1, 1), bool))
    best = jnp.array([[[0.0, 1.0]]])
    found = checks.overlaps_by_frames(jnp.asarray(tubes), best, wanted, plan, 1)
    assert [float(one) for one in found["overlap"]] == [2, 2]
    assert [float(one) for one in found["overlap_added"]] == [2, 3]
    found = checks.overlaps_by_frames(jnp.asarray(tubes[:, :, 2:4]), best, wanted, plan, 0)
    assert [float(one) for one in found["overlap"]] == [2, 2]
    assert [float(one) for one in found["overlap_added"]] == [0, 0]


@pytest.fixture(scope="module")
def trained():
    """Two small steps, the second extended by anticipation."""
    small = {
        **ucf101_24.steps(2, extension="anticipate"),
        "data.image_size": 32,
        "model.backbone_options.stem_features": 4,
        "model.backbone_options.features": 4,
        "model.head_options.global_features": (4, 4, 4),
        "model.head_options.local_features": (4, 4),
    }
    own = configuration.changed(moving_actors.get_config(), small)
    template = abstract_predictor(configuration.describe("configs/moving_actors.py", own))
    number = len(template.initial_tubes)
    variables = init_variables(
        template.detector, image_size=32, num_proposals=number, key=jax.random.key(0)
    )
    predictor = template.with_variables(variables, step=0)
    return checks.Trained(predictor, LossOptions(**own.loss.to_dict()), max_tubes=4)


@pytest.fixture(scope="module")
def batch(trained):
    rng, length = np.random.default_rng(0), trained.predictor.input_frames
    tube = Tube(labels=(2,), frames=np.arange(length), boxes=np.tile(BOX / 2, (length, 1)))
    video = Video("v", "v.avi", "test", 25.0, length, 32, 32, (tube,))
    clip = rng.integers(0, 256, (length, 32, 32, 3), np.uint8)
    example = {"clips": clip, **checks.targets(video, trained, first=0)}
    return {key: np.stack([value] * 2) for key, value in example.items()}


@pytest.mark.slow
def test_losses_reach_the_backbone_and_their_own_head(trained, batch):
    found, unreached = checks.gradients(trained, batch)
    assert unreached == ["heads_0/global_path/kernel"]  # given how cuboids move, which do not
    assert [*found] == [
        "anticipation_1", "classification_1", "classification_2", "localization_1",
        "localization_2",
    ]  # fmt: skip
    for name, norms in found.items():
        reached = {part for part, norm in norms.items() if norm > 0}
        assert reached == {"backbone", f"heads_{int(name[-1]) - 1}"}, name


def test_steps_are_told_over_all_windows(trained, batch):
    first, second = checks.steps(trained, [batch, batch])
    assert first["tubes_with_positive"] == second["tubes_with_positive"] == 1
    assert 1 <= first["positives"] <= trained.options.max_positives
    assert first["positives"] + first["pool"] <= 11
    assert first["negative_score"] >= first["other_score"] > 0
    assert "overlap_added" not in first
    assert 0 < second["overlap_added"] < 1


def test_trainings_that_read_flow_or_are_not_finished_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no finished training"):
        checks.load(tmp_path)
    (tmp_path / "finished.json").write_text('{"step": 4}')
    own = config.get_config("small/table1b_flow")
    (tmp_path / "config.json").write_text(own.to_json_best_effort())
    with pytest.raises(InputError, match="reads flow; expected RGB alone"):
        checks.load(tmp_path)
