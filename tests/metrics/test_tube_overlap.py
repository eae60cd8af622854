"""iou3dt and the NMS of tubes against ACT's numbers and against loops."""

import numpy as np
import pytest
from made_up import make_tubes, slow_iou3dt

from step_jax.metrics import tube_overlap
from step_jax.metrics.tube_overlap import detected_tubes, iou3dt, tube_nms, tubes_of_frames


@pytest.fixture(scope="module")
def reference(data_dir):
    return dict(np.load(data_dir / "ucf101_24_units.npz"))


@pytest.mark.parametrize("chunk_rows", [1, 50, 2**17])
def test_reference_numbers(reference, monkeypatch, chunk_rows):
    monkeypatch.setattr(tube_overlap, "CHUNK_ROWS", chunk_rows)
    ends = reference["tube_offset"][1:-1]
    frames = np.split(reference["tube_rows"][:, 0].astype(int), ends)
    tubes = tubes_of_frames(frames, np.split(reference["tube_rows"][:, 1:], ends))
    i, j = (index.ravel() for index in np.indices((16, 16)))
    both = iou3dt(tubes, tubes, i, j).reshape(16, 16)
    np.testing.assert_allclose(both, reference["iou3dt"], atol=1e-6)
    space = iou3dt(tubes, tubes, i, j, spatial_only=True).reshape(16, 16)
    np.testing.assert_allclose(space, reference["iou3dt_spatialonly"], atol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.5])
def test_reference_nms(reference, threshold):
    rows, offset = reference["tube_rows"], reference["tube_offset"]
    parts = zip(offset[:-1], offset[1:], reference["tube_score"], strict=True)
    tubes = [(0, 0, score, rows[s, 0], rows[s:e, 1:]) for s, e, score in parts]
    kept = tube_nms(make_tubes(tubes), threshold)
    assert np.flatnonzero(kept).tolist() == sorted(reference[f"nms3dt_keep_{threshold}"])


def random_tube(rng, *, gaps):
    frames = np.arange(rng.integers(0, 6), rng.integers(7, 14))
    if gaps:
        frames = frames[rng.random(len(frames)) < 0.6]
    corner = rng.integers(0, 12, (len(frames), 2))
    return frames, np.concatenate([corner, corner + rng.integers(4, 14, (len(frames), 2))], axis=1)


def test_common_frames_are_those_with_a_box_of_both():
    """Also in gaps of either: a frame of a gap is neither common nor in the union."""
    rng = np.random.default_rng(0)
    tubes = [random_tube(rng, gaps=number % 2) for number in range(30)]
    tubes = [tube for tube in tubes if len(tube[0])]
    dense = tubes_of_frames(*zip(*tubes, strict=True))
    i, j = (index.ravel() for index in np.indices((len(tubes), len(tubes))))
    as_dicts = [dict(zip(f.tolist(), b.tolist(), strict=True)) for f, b in tubes]
    expected = [slow_iou3dt(as_dicts[a], as_dicts[b]) for a, b in zip(i, j, strict=True)]
    np.testing.assert_allclose(iou3dt(dense, dense, i, j), expected, atol=1e-12)
    assert not dense.present.all()
    assert 0 < np.count_nonzero(expected) < len(expected)


BOX, HALF = [0, 0, 9, 9], [0, 0, 9, 4]


def test_by_hand():
    """Half of the box in 2 of 4 frames: .5 * 2/4; with the border pixel, which counts."""
    tubes = detected_tubes(make_tubes([(0, 0, 1, 0, [BOX] * 3), (0, 0, 1, 1, [HALF] * 3)]))
    one, other = np.array([0]), np.array([1])
    assert iou3dt(tubes, tubes, one, other) == [0.5 * 2 / 4]
    assert iou3dt(tubes, tubes, one, other, spatial_only=True) == [0.5]
    assert iou3dt(tubes, tubes, one[:0], other[:0]).shape == (0,)
    apart = detected_tubes(make_tubes([(0, 0, 1, 0, [BOX]), (0, 0, 1, 1, [BOX])]))
    assert iou3dt(apart, apart, one, other) == [0]
    assert iou3dt(apart, apart, one, other, spatial_only=True) == [0]


def test_nms_is_of_a_video_and_class_and_keeps_at_the_threshold():
    same = [BOX] * 4
    tubes = make_tubes(
        [
            (0, 0, 0.5, 0, same),
            (0, 0, 0.9, 0, same),
            (0, 1, 0.4, 0, same),
            (1, 0, 0.3, 0, same),
            (1, 0, 0.3, 0, same),  # as good: the first stays
        ]
    )
    assert tube_nms(tubes, 0.3).tolist() == [False, True, True, True, False]
    half = make_tubes([(0, 0, 0.9, 0, [BOX] * 4), (0, 0, 0.8, 0, [HALF] * 4)])
    assert tube_nms(half, 0.5).tolist() == [True, True]
    assert tube_nms(half, 0.4999).tolist() == [True, False]
    assert tube_nms(make_tubes([]), 0.3).tolist() == []


def test_a_dropped_tube_drops_nothing():
    shifted = [[[x, 0, x + 9, 9]] * 4 for x in (0, 4, 8)]  # IoU 60/140, twice; 20/180 between ends
    tubes = make_tubes([(0, 0, s, 0, boxes) for s, boxes in zip((3, 2, 1), shifted, strict=True)])
    assert tube_nms(tubes, 0.3).tolist() == [True, False, True]
