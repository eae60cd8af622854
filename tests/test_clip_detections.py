"""Step 1 of the protocol by hand-made cases; tests/metrics/test_frame_map.py has the reference."""

import numpy as np
import pytest

from step_jax.clip_detections import clip_detections, clip_rows
from step_jax.detections import SCHEMA
from step_jax.errors import InputError


def separate_tubes(count, frames=6):
    """Tubelets `[count, frames, 4]` in [0, 1] that do not touch each other."""
    x1 = np.arange(count, dtype=np.float32) / count
    box = np.stack([x1, np.zeros_like(x1), x1 + 0.5 / count, np.ones_like(x1)], axis=-1)
    return np.repeat(box[:, None], frames, axis=1)


def test_a_score_must_be_above_the_threshold():
    scores = np.array([[0.25, 0.2], [0.3, np.nextafter(np.float32(0.25), np.float32(1))]])
    found = clip_detections(scores.astype(np.float32), separate_tubes(2), score_threshold=0.25)
    assert found.tubelet.tolist() == [1, 1]
    assert found.label.tolist() == [0, 1]


def test_per_class_top_comes_before_nms():
    """The third tubelet is beyond the cap although NMS then drops the second."""
    tubes = separate_tubes(3)
    tubes[1] = tubes[0]
    scores = np.array([[0.9], [0.8], [0.7]], np.float32)
    assert clip_detections(scores, tubes, per_class_top=2).tubelet.tolist() == [0]
    assert clip_detections(scores, tubes, per_class_top=3).tubelet.tolist() == [0, 2]


def test_the_default_caps():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.1, 1, (410, 1)).astype(np.float32)
    found = clip_detections(scores, separate_tubes(410))
    assert found.tubelet.tolist() == np.argsort(-scores[:, 0])[:200].tolist()
    found = clip_detections(scores, separate_tubes(410), top=1000)
    assert len(found.tubelet) == 400


def test_top_counts_the_pairs_of_a_clip_over_all_classes():
    scores = np.array([[0.5, 0.9], [0.8, 0.8], [0.3, 0.2]], np.float32)
    found = clip_detections(scores, separate_tubes(3), top=2)
    assert list(zip(found.label, found.tubelet, strict=True)) == [(0, 1), (1, 0)]  # tie: class 0


def test_nms_is_of_a_class_and_uses_normalised_boxes_without_the_extra_pixel():
    """The mean IoU is exactly .4375; with the extra pixel it would be far above."""
    tubes = np.zeros((2, 2, 4), np.float32)
    tubes[:, :, 2:] = 1
    tubes[1, :, 2] = (0.5, 0.375)  # IoUs .5 and .375
    scores = np.array([[0.9, 0.0], [0.8, 0.7]], np.float32)
    at = clip_detections(scores, tubes, nms_threshold=0.4375)
    assert list(zip(at.label, at.tubelet, strict=True)) == [(0, 0), (0, 1), (1, 1)]
    below = clip_detections(scores, tubes, nms_threshold=0.437)
    assert list(zip(below.label, below.tubelet, strict=True)) == [(0, 0), (1, 1)]


def test_boxes_are_clipped_before_nms():
    tubes = np.array([[[0.5, 0, 1, 1]], [[0.5, 0, 2, 1]]], np.float32)  # IoU 1/3, clipped 1
    scores = np.array([[0.9], [0.8]], np.float32)
    assert clip_detections(scores, tubes).tubelet.tolist() == [0]


def test_many_clips_at_once_equal_one_by_one():
    rng = np.random.default_rng(1)
    clips = rng.permutation(np.repeat(np.arange(6), 9))
    corner = rng.uniform(0, 0.5, (54, 4, 2))
    tubes = np.concatenate([corner, corner + 0.4], axis=-1).astype(np.float32)
    scores = rng.uniform(0, 0.2, (54, 3)).round(2).astype(np.float32)
    together = clip_detections(scores, tubes, clips=clips, per_class_top=5, top=7)
    expected = []
    for clip in range(6):
        members = np.flatnonzero(clips == clip)
        one = clip_detections(scores[members], tubes[members], per_class_top=5, top=7)
        expected += zip(members[one.tubelet], one.label, one.score, strict=True)
    pairs = zip(together.tubelet, together.label, together.score, strict=True)
    assert list(pairs) == expected
    np.testing.assert_array_equal(together.boxes, tubes[together.tubelet])


def test_each_class_may_have_its_own_boxes():
    shared = separate_tubes(2)
    own = np.stack([shared, shared], axis=1)
    own[1, 1] = own[0, 1]  # class 1 regresses both to one place
    scores = np.array([[0.9, 0.9], [0.8, 0.8]], np.float32)
    found = clip_detections(scores, own)
    assert list(zip(found.label, found.tubelet, strict=True)) == [(0, 0), (0, 1), (1, 0)]


def test_what_is_not_finite_is_an_error():
    tubes, scores = separate_tubes(2), np.ones((2, 1), np.float32)
    with pytest.raises(InputError, match=r"1 of the detector's 2 scores are not finite"):
        clip_detections(np.array([[np.nan], [1.0]]), tubes)
    tubes[0, 0, 0] = np.inf
    with pytest.raises(InputError, match="boxes are not finite"):
        clip_detections(scores, tubes)


@pytest.mark.parametrize("regressors", [0, 1, 2])
def test_rows_of_a_batch_equal_loops(regressors):
    """Two videos, one of them shorter than the clip; 0 regressors: no such axis."""
    rng = np.random.default_rng(2)
    B, M, C, K = 3, 4, 2, 5
    scores = rng.uniform(0, 0.02, (B, M, C)).astype(np.float32)
    corner = rng.uniform(-0.1, 0.5, (B, M, max(regressors, 1), K, 2))
    tubes = np.concatenate([corner, corner + 0.7], axis=-1).astype(np.float32)
    starts, lengths = np.array([0, 4, 0]), np.array([9, 9, 3])
    columns = clip_rows(
        scores,
        tubes if regressors else tubes[:, :, 0],
        videos=["long", "long", "short"],
        starts=starts,
        num_frames=lengths,
        stride=3,
        step=2,
    )
    expected = []
    for b, (name, window) in enumerate([("long", 0), ("long", 2), ("short", 0)]):
        each = tubes[b] if regressors == C else np.repeat(tubes[b], C, axis=1)
        found = clip_detections(scores[b], each)
        pairs = sorted(zip(found.tubelet, found.label, found.score, strict=True))
        for m, c, score in pairs:
            for k in range(K):
                if starts[b] + k < lengths[b]:
                    box = np.clip(each[m, c, k], 0, 1)
                    row = (name, starts[b] + k, 2, window * M + m, c, score, *box)
                    expected.append(row)
    assert list(zip(*columns.values(), strict=True)) == expected
    assert list(columns) == SCHEMA.names


# --- as the released model does it ----------------------------------------------------------------


def released(scores, boxes_px, *, side=160, **limits):
    """`clip_detections` by its rules, of boxes `[N, 4]` in pixels."""
    tubes = np.asarray(boxes_px, np.float32)[:, None] / np.float32(side)
    defaults = {"nms_threshold": 0.4, "top": 300, "inclusive_side": side}
    return clip_detections(np.asarray(scores, np.float32), tubes, **defaults | limits)


@pytest.mark.parametrize("step", [1, 3])
def test_detections_of_the_released_model(data_dir, step):
    """Its scores and boxes of two clips of 160 px, and the 300 best pairs that it made of each.

    It works on 3 feature frames a window, each for 4 frames of the video, of which frame 6 counts.
    """
    reference = np.load(data_dir / "released_detections.npz")
    tubes = reference[f"step{step}_boxes_px"] / np.float32(160)
    columns = clip_rows(
        reference[f"step{step}_scores"],
        np.repeat(tubes, 4, axis=2)[:, :, None],
        videos=["v", "v"],
        starts=np.array([0, 12]),
        num_frames=np.array([24, 24]),
        stride=12,
        step=step,
        frames="middle",
        score_threshold=0.01,
        nms_threshold=0.4,
        top=300,
        inclusive_side=160,
    )
    expected = reference[f"step{step}_detections"]  # clip, box, class, score
    assert set(columns["frame"]) == {6, 18}
    clip = columns["frame"] // 12
    order = np.lexsort((-columns["score"], clip))
    np.testing.assert_array_equal(clip[order], expected[:, 0])
    np.testing.assert_array_equal(columns["class"][order], expected[:, 5])
    np.testing.assert_array_equal(columns["score"][order], expected[:, 6])
    boxes = np.stack([columns[side][order] for side in ("x1", "y1", "x2", "y2")], axis=-1)
    np.testing.assert_allclose(boxes, expected[:, 1:5], atol=1e-6)


def test_released_nms_counts_borders_in_pixels_and_drops_at_the_threshold():
    boxes = [[0, 0, 9, 19], [0, 0, 9, 7], [0, 0, 9, 5]]  # 20, 8 and 6 rows: IoU .4 and .3
    scores = [[0.9], [0.8], [0.7]]
    assert released(scores, boxes).tubelet.tolist() == [0, 2]
    assert released(scores, boxes, nms_threshold=0.41).tubelet.tolist() == [0, 1]
    shares = released(scores, boxes, inclusive_side=None)  # 19 : 7 : 5 without the border
    assert shares.tubelet.tolist() == [0, 1]


def test_released_boxes_of_two_pixels_become_the_whole_image():
    boxes = [[10, 20, 12, 90], [10, 20, 13, 90], [-50, 20, 2, 90], [-50, 20, 3, 200]]
    found = released(np.eye(4) * 0.5, boxes)
    whole = [0, 0, 1, 1]
    expected = [whole, [10 / 160, 20 / 160, 13 / 160, 90 / 160], whole, [0, 20 / 160, 3 / 160, 1]]
    np.testing.assert_allclose(found.boxes[:, 0], expected, atol=1e-6)
    # Two of one class are the same box then, however far apart they were.
    far = [[10, 20, 12, 90], [150, 20, 151, 90]]
    assert released([[0.4], [0.5]], far).tubelet.tolist() == [1]


def test_released_scores_of_exactly_the_threshold_are_dropped():
    boxes = [[0, 0, 40, 40], [60, 60, 100, 100], [110, 110, 150, 150]]
    at = np.float32(0.01)
    scores = [[at], [np.nextafter(at, np.float32(1))], [np.nextafter(at, np.float32(0))]]
    assert released(scores, boxes).tubelet.tolist() == [1]


@pytest.mark.parametrize("count", [4, 6])
def test_released_cap_of_300_takes_ties_by_class_then_tubelet(count):
    """60 classes of separate boxes: 240 pairs are all kept; of 360, the last class's are cut."""
    corner = np.arange(count)[:, None] * np.float32([20, 20, 20, 20]) + np.float32([0, 0, 10, 10])
    scores = np.full((count, 60), 0.5, np.float32)
    scores[2, 59] = 0.9
    found = released(scores, corner)
    pairs = [(c, m) for c in range(60) for m in range(count)]
    if count == 6:
        pairs = [*pairs[:299], (59, 2)]
    assert sorted(zip(found.label, found.tubelet, strict=True)) == pairs


def test_the_middle_frame_alone_is_compared_and_reported():
    """The tubelets meet in frame 2 of 4 and nowhere else; the second window ends before it."""
    tubes = np.zeros((2, 2, 4, 4), np.float32)
    tubes[:, 0] = [0.0, 0.0, 0.4, 0.4]
    tubes[:, 1] = [0.5, 0.5, 0.9, 0.9]
    tubes[:, :, 2] = [0.2, 0.2, 0.6, 0.6]
    scores = np.array([[[0.9], [0.8]]] * 2, np.float32)
    where = {"videos": ["a", "b"], "starts": np.array([3, 0]), "num_frames": np.array([9, 2])}
    columns = clip_rows(scores, tubes, **where, stride=3, step=1, frames="middle")
    assert list(zip(columns["video"], columns["frame"], columns["tubelet"], strict=True)) == [
        ("a", 5, 2)
    ]
    np.testing.assert_allclose([columns["x1"], columns["x2"]], [[0.2], [0.6]], atol=1e-6)
    everything = clip_rows(scores, tubes, **where, stride=3, step=1)
    assert everything["frame"].tolist() == [3, 4, 5, 6] * 2 + [0, 1] * 2
