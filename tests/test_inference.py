"""Predictions of a detector that was saved and loaded, against its own raw outputs."""

import types

import jax
import minute
import numpy as np
import optax
import pytest

from step_jax import inference
from step_jax.checkpoint import Checkpoints
from step_jax.detector_loss import normalise_clips
from step_jax.models.step import StepPlan
from step_jax.train_state import create_train_state

CLASSES = ("jump", "run", "wave")
B, SIDE, K, M = 4, minute.SIDE, minute.CHUNK, len(minute.initial_tubes())


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    with minute.quick_compilation():
        yield


@pytest.fixture(scope="module")
def detector():
    return minute.detector()


@pytest.fixture(scope="module")
def variables(detector):
    return minute.random_variables(detector)


@pytest.fixture(scope="module")
def clips(detector):
    return minute.random_clips(detector, batch_size=B)


@pytest.fixture(scope="module")
def workdir(variables, tmp_path_factory):
    """A run's folder with checkpoint 7."""
    folder = tmp_path_factory.mktemp("run")
    state = create_train_state(variables, optax.sgd(1.0))
    checkpoints = Checkpoints(folder)
    checkpoints.save(state.replace(step=np.int32(7)), description())
    checkpoints.close()
    return folder


def description():
    model = {key: value for key, value in minute.MODEL.items() if key != "num_classes"}
    return inference.describe(
        model=model, classes=CLASSES, image_size=SIDE, fps=12.5, proposals=minute.PROPOSALS
    )


@pytest.fixture(scope="module")
def predictor(workdir):
    return inference.load_predictor(workdir)


@pytest.fixture(scope="module")
def predicted(predictor, clips):
    return jax.tree.map(np.asarray, predictor(clips))


@pytest.fixture(scope="module")
def raw(detector, variables, clips):
    """What the detector says of the normalised clips."""
    tubes = minute.initial_tubes()
    apply = jax.jit(lambda clips: detector.apply(variables, normalise_clips(clips), tubes))
    return jax.tree.map(np.asarray, apply(clips))


def test_a_loaded_predictor_is_the_saved_one(predictor, detector, variables):
    assert predictor.step == 7
    assert predictor.classes == CLASSES
    assert (predictor.image_size, predictor.fps) == (SIDE, 12.5)
    assert predictor.proposals == minute.PROPOSALS
    assert (predictor.clip_frames, predictor.input_frames, predictor.num_steps) == (2, 6, 2)
    assert predictor.detector.plan == detector.plan
    assert jax.tree.structure(predictor.variables) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, predictor.variables, variables)


def test_shapes(predicted):
    assert len(predicted) == 2
    for step in predicted:
        assert step.scores.shape == (B, M, 3)
        assert step.tubes.shape == (B, M, 3, K, 4)
        assert step.fed.shape == (B, M, K, 4)


def test_the_first_step_is_fed_the_initial_proposals(predicted):
    expected = np.broadcast_to(minute.initial_tubes() / SIDE, predicted[0].fed.shape)
    np.testing.assert_allclose(predicted[0].fed, expected, atol=1e-6)


def test_tubelets_are_the_target_clip_of_the_raw_outputs(predicted, raw, detector):
    """Step 2 has six frames, of which the middle two are reported."""
    for step, output, middle in zip(predicted, raw, (slice(0, 2), slice(2, 4)), strict=True):
        np.testing.assert_allclose(step.scores, detector.class_scores(output), atol=1e-5)
        np.testing.assert_allclose(step.fed, output.fed[:, :, middle] / SIDE, atol=1e-5)
        boxes = np.asarray(detector.class_tubes(output)) / SIDE  # [B, M, L, C, 4]
        for b, m, c in np.ndindex(B, M, 3):
            np.testing.assert_allclose(step.tubes[b, m, c], boxes[b, m, middle, c], atol=1e-4)


def test_boxes_of_the_last_step_may_leave_the_image_but_what_is_fed_may_not(predicted):
    assert min(step.tubes.min() for step in predicted) < 0
    assert min(step.fed.min() for step in predicted) >= 0
    assert max(step.fed.max() for step in predicted) <= 1


def test_boxes_between_feature_frames_in_an_image_of_any_sides():
    """Two input frames to each of K feature frames; 32 px high, 64 wide."""
    detector = minute.detector_of_patch_means(extension_plan=(False,))
    variables = minute.random_variables(detector)
    tubes = minute.initial_tubes() * np.float32([2, 1, 2, 1])
    predict = inference.make_predict_step(detector, initial_tubes=tubes)
    clips = minute.random_clips(detector, batch_size=1).repeat(2, axis=3)
    (step,) = jax.jit(predict)(variables, clips)
    (raw,) = jax.jit(detector.apply)(variables, normalise_clips(clips), tubes)
    assert step.fed.shape == (1, M, 2 * K, 4)
    assert step.tubes.shape == (1, M, 3, 2 * K, 4)
    boxes = np.asarray(detector.class_tubes(raw))[0] / [64, 32, 64, 32]
    for frame, expected in enumerate(
        [boxes[:, 0], boxes[:, 0], (boxes[:, 0] + boxes[:, 1]) / 2, boxes[:, 1]]
    ):
        np.testing.assert_allclose(step.fed[0, :, frame], minute.initial_tubes()[:, 0] / SIDE)
        np.testing.assert_allclose(step.tubes[0, :, :, frame], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("length", "expected"),
    # Feature frames stand for input frames 4j to 4j + 3, their boxes for 4j + 2.
    [(3, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), (9, [x + 10 for x in range(12)])],
)
def test_between_feature_frames_boxes_move_on_a_straight_line(length, expected):
    """Boxes that move 4 px a feature frame; the released model's lengths."""
    plan = StepPlan(3, (False, True), "mean")
    backbone = types.SimpleNamespace(temporal_stride=4)
    detector = types.SimpleNamespace(plan=plan, backbone=backbone)
    tubes = 4 * np.arange(length, dtype=np.float32)[None, None, :, None]
    found = inference.on_input_frames(detector, tubes)
    np.testing.assert_array_equal(found[0, 0, :, 0], expected)


def test_other_clips_and_other_checkpoints_are_not_compiled_for(predictor, predicted, clips):
    larger = jax.tree.map(lambda leaf: 1.5 * leaf, predictor.variables)
    other = predictor.with_variables(larger, step=9)
    predictor(clips)
    with minute.compilations() as compiled:
        shifted = predictor(clips[::-1].copy())
        changed = other(clips)
    assert not compiled
    assert (predictor.step, other.step) == (7, 9)
    np.testing.assert_allclose(shifted[1].scores[::-1], predicted[1].scores, atol=1e-5)
    assert (changed[1].scores != predicted[1].scores).all()


def test_checkpoints_of_one_run_share_the_compiled_program(predictor, workdir, clips, predicted):
    again = inference.load_predictor(workdir, "7")
    with minute.compilations() as compiled:
        scores = np.asarray(again(clips)[0].scores)
    assert not compiled
    np.testing.assert_array_equal(scores, predicted[0].scores)
