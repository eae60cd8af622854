"""NMS against a loop over pairs, at its boundaries, against ACT's and the released model's code."""

import numpy as np
import pytest

from step_jax.nms import grouped_nms, nms, ranks_in_runs, tubelet_nms


def slow_iou(a, b, extra):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + extra)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + extra)
    area_a, area_b = ((c[2] - c[0] + extra) * (c[3] - c[1] + extra) for c in (a, b))
    union = area_a + area_b - width * height
    return width * height / union if union > 0 else 0


def slow_nms(tubes, scores, threshold, extra):
    """Of tubelets `[N, K, 4]`: one candidate after the other, against all that were kept."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        overlaps = [
            sum(slow_iou(a, b, extra) for a, b in zip(tubes[i], tubes[j], strict=True))
            / len(tubes[i])
            for j in kept
        ]
        if all(overlap <= threshold for overlap in overlaps):
            kept.append(i)
    return kept


def random_tubes(rng, count, frames, *, whole=False):
    corners = rng.uniform(0, 30, (count, frames, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, corners.shape)], axis=-1)
    return (boxes.round() if whole else boxes).astype(np.float32)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_equal_the_loop_with_ties_of_scores_and_of_overlaps(seed, inclusive):
    rng = np.random.default_rng(seed)
    boxes = random_tubes(rng, 60, 1, whole=True)  # whole numbers, so that IoU .5 occurs exactly
    scores = rng.integers(0, 8, 60).astype(np.float32) / 8
    kept = nms(boxes[:, 0], scores, 0.5, inclusive=inclusive)
    assert kept.tolist() == slow_nms(boxes.tolist(), scores, 0.5, int(inclusive))
    assert 1 < len(kept) < 60


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("inclusive", [False, True])
def test_tubelets_equal_the_loop(frames, inclusive):
    rng = np.random.default_rng(frames)
    tubes, scores = random_tubes(rng, 50, frames), rng.uniform(size=50).astype(np.float32)
    kept = tubelet_nms(tubes, scores, 0.35, inclusive=inclusive)
    assert kept.tolist() == slow_nms(tubes.astype(float), scores, 0.35, int(inclusive))


def test_groups_do_not_see_each_other_and_may_come_in_any_order():
    rng = np.random.default_rng(0)
    tubes = random_tubes(rng, 90, 1)
    scores = rng.integers(0, 20, 90).astype(np.float32)
    groups = rng.choice([7, -2, 30], 90)
    kept = grouped_nms(tubes[:, 0], scores, groups, 0.3, inclusive=True)
    expected = []
    for group in (-2, 7, 30):
        members = np.flatnonzero(groups == group)
        alone = slow_nms(tubes[members].tolist(), scores[members], 0.3, 1)
        expected += members[alone].tolist()
    assert kept.tolist() == expected


def test_overlap_equal_to_the_threshold_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # half of it, without +1
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, 0.5, inclusive=False).tolist() == [0, 1]
    assert nms(boxes, scores, 0.4999, inclusive=False).tolist() == [0]
    assert nms(boxes, scores, 0.5, inclusive=True).tolist() == [0]  # 66 / 121 pixels


def test_overlap_equal_to_the_threshold_goes_if_asked_to():
    """5 and 4 of 10 rows of pixels, both borders included."""
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 4], [0, 0, 9, 3]], np.float32)  # IoU .5 and .4
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert nms(boxes, scores, 0.5, at_threshold=True).tolist() == [0, 2]
    assert nms(boxes[[0, 2]], scores[:2], 0.4, at_threshold=True).tolist() == [0]
    assert nms(boxes[[0, 2]], scores[:2], 0.4, at_threshold=False).tolist() == [0, 1]
    above = np.nextafter(0.5, 1, dtype=np.float32)
    assert nms(boxes[:2], scores[:2], above, at_threshold=True).tolist() == [0, 1]


def test_what_was_dropped_drops_nothing():
    boxes = np.array([[0, 0, 9, 9], [4, 0, 13, 9], [8, 0, 17, 9]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]


def test_boxes_without_area_and_no_boxes():
    point = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert nms(point, np.ones(2), 0.5, inclusive=False).tolist() == [0, 1]
    assert nms(point, np.ones(2), 0.5, inclusive=True).tolist() == [0]  # the same one pixel
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
    assert tubelet_nms(np.zeros((0, 6, 4)), np.zeros(0), 0.5).tolist() == []


def test_reference_numbers(data_dir):
    """Outputs of ACT's evaluation on synthetic boxes and tubelets of 6 frames, in pixels."""
    reference = np.load(data_dir / "ucf101_24_units.npz")
    boxes = reference["nms2d_in"]
    for threshold in (0.3, 0.45, 0.5):
        kept = nms(boxes[:, :4], boxes[:, 4], threshold)
        assert kept.tolist() == reference[f"nms2d_keep_{threshold}"].tolist()
    rows = reference["tubelets"]
    tubes, scores = rows[:, :24].reshape(-1, 6, 4), rows[:, 24]
    for threshold, top in ((0.3, None), (0.3, 10), (0.7, None), (0.7, 300)):
        kept = tubelet_nms(tubes, scores, threshold, inclusive=True)[:top]
        assert kept.tolist() == reference[f"nms_tubelets_keep_{threshold}_{top}"].tolist()


@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.7])
def test_numbers_of_the_released_model(data_dir, threshold):
    reference = np.load(data_dir / "released_detections.npz")
    boxes, scores = reference["nms_boxes"], reference["nms_scores"]
    kept = nms(boxes, scores, threshold, at_threshold=True)
    assert sorted(kept) == reference[f"nms_keep_{threshold}"].tolist()


def test_ranks_in_runs():
    assert ranks_in_runs(np.array([3, 3, 3, 1, 5, 5])).tolist() == [0, 1, 2, 0, 0, 1]
    assert ranks_in_runs(np.zeros(0)).tolist() == []
