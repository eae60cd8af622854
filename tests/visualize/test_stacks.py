import numpy as np

from step_jax.boxes import pairwise_iou
from step_jax.visualize.stacks import SAME_IOU, stacks


def test_each_box_is_in_the_group_of_the_first_best_that_it_lies_on():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 4, (80, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(9, 11, (80, 2))], axis=-1)
    iou, expected = pairwise_iou(boxes, boxes), {}
    for box in range(len(boxes)):
        best = [first for first in expected if iou[first, box] >= SAME_IOU]
        expected.setdefault(best[0] if best else box, []).append(box)
    found = stacks(boxes)
    assert [group.tolist() for group in found] == list(expected.values())
    assert 1 < len(found) < 40


def test_boxes_without_area_and_no_boxes():
    assert [group.tolist() for group in stacks(np.zeros((2, 4)))] == [[0], [1]]
    assert stacks(np.zeros((0, 4))) == []
