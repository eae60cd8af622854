"""Ground truth on feature frames: which frames count, and what stands for missing boxes."""

import jax.numpy as jnp
import numpy as np
import pytest

from step_jax.models.step import StepPlan
from step_jax.training_targets import Targets, nearest_boxes, overlaps, targets_of, with_boxes

PLAN = StepPlan(chunk=3, extends=(False, True))


def test_targets_are_at_the_middle_of_each_feature_frame():
    batch = {
        "boxes": np.zeros((1, 2, 12, 4)) + np.arange(12)[:, None],
        "box_mask": np.arange(24).reshape(1, 2, 12) % 5 == 0,
        "labels": np.ones((1, 2, 3)),
        "tube_mask": np.ones((1, 2), bool),
    }
    targets = targets_of(batch, temporal_stride=4)
    np.testing.assert_array_equal(targets.boxes[0, 1, :, 0], [2, 6, 10])
    np.testing.assert_array_equal(targets.box_mask, batch["box_mask"][:, :, [2, 6, 10]])
    np.testing.assert_array_equal(targets_of(batch, temporal_stride=1).boxes, batch["boxes"])


def random_targets(rng, *, tubes=2, frames=9):
    corner = rng.uniform(0, 20, (1, tubes, frames, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 20, corner.shape)], axis=-1)
    mask = rng.uniform(size=(1, tubes, frames)) < 0.7
    mask[..., frames // 2] = True
    return Targets(boxes, mask, np.ones((1, tubes, 1)), np.ones((1, tubes), bool))


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize(("frames", "counted"), [("all", [3, 4, 5]), ("middle", [4])])
@pytest.mark.parametrize("length", [3, 9])
def test_overlaps_are_of_the_target_clip(frames, counted, length):
    rng = np.random.default_rng(length)
    targets, tubes = random_targets(rng), random_targets(rng, tubes=5, frames=length).boxes
    found = overlaps(targets, jnp.asarray(tubes), PLAN, frames=frames)
    first = (9 - length) // 2  # frame of the window that the tubes begin at
    for g, m in np.ndindex(2, 5):
        real = [j for j in counted if targets.box_mask[0, g, j]]
        values = [iou(tubes[0, m, j - first], targets.boxes[0, g, j]) for j in real]
        assert found[0, g, m] == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_a_missing_box_is_the_nearest_one_the_earlier_of_two():
    boxes = np.arange(7.0)[:, None] + np.zeros(4)
    mask = np.isin(np.arange(7), [1, 5])
    found = nearest_boxes(jnp.asarray(boxes), jnp.asarray(mask))
    np.testing.assert_array_equal(found[:, 0], [1, 1, 1, 1, 5, 5, 5])
    nothing = nearest_boxes(jnp.asarray(boxes), jnp.zeros(7, bool))
    np.testing.assert_array_equal(nothing, boxes)


def test_tubes_without_a_box_that_counts_are_absent():
    mask = np.zeros((1, 3, 9), bool)
    mask[0, 0, 4] = mask[0, 1, 8] = True
    targets = Targets(None, mask, None, np.array([[True, True, True]]))
    assert with_boxes(targets).tube_mask.tolist() == [[True, True, False]]
    assert with_boxes(targets, within=slice(4, 5)).tube_mask.tolist() == [[True, False, False]]
