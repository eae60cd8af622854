"""From raw tubelets to boxes in frames: the same as by way of the detections table."""

import numpy as np
import pytest
from made_up import make_annotations, make_tubelets, truth_as_tubelets

from step_jax.clip_detections import clip_rows
from step_jax.detections import Detections
from step_jax.errors import InputError
from step_jax.metrics import tubelet_frames
from step_jax.metrics.frame_boxes import detected_boxes
from step_jax.metrics.frame_errors import errors_of
from step_jax.metrics.frame_map import frame_map, map_of
from step_jax.metrics.frame_tally import tally
from step_jax.metrics.tubelet_frames import as_table_header, frame_detections

SIDE = 64


def random_rows(seed, *, num_boxes=1, num_frames=(9, 2, 12)):
    """Few different scores; the second video is shorter than a window."""
    rng = np.random.default_rng(seed)
    rows = []
    for video, length in enumerate(num_frames):
        for start in range(max(length - 3, 0) + 1):
            for proposal in range(4):
                corner = rng.integers(-6, 40, (num_boxes, 1, 2)) + rng.integers(0, 3, (1, 3, 2))
                boxes = np.concatenate([corner, corner + 22], axis=-1)
                rows.append((video, start, proposal, rng.integers(0, 9, 3) / 16, boxes))
    return make_tubelets(rows, videos=("v0", "v1", "v2"))


def by_way_of_the_table(rows, num_frames, **limits):
    """One window after the other through `clip_rows`."""
    columns = []
    for video, start in sorted(set(zip(rows.video.tolist(), rows.start.tolist(), strict=True))):
        own = rows.take((rows.video == video) & (rows.start == start))
        columns.append(
            clip_rows(
                own.scores[None],
                own.tubes[None],
                videos=[video],
                starts=np.array([start]),
                num_frames=np.array([num_frames[video]]),
                stride=1,
                step=1,
                **limits,
            )
        )
    joined = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    boxes = np.stack([joined[side] for side in ("x1", "y1", "x2", "y2")], axis=-1)
    return Detections(
        header=as_table_header(rows.header),
        videos=rows.videos,
        video=joined["video"].astype(np.int32),
        frame=joined["frame"],
        step=joined["step"],
        tubelet=joined["tubelet"],
        label=joined["class"],
        score=joined["score"],
        boxes=boxes,
    )


def all_columns(blocks):
    parts = [(b.frame, b.label, b.score, b.boxes) for b in blocks]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("block", [1, 2**12])
@pytest.mark.parametrize("num_boxes", [1, 3])
def test_the_same_as_by_way_of_the_table(monkeypatch, block, num_boxes):
    monkeypatch.setattr(tubelet_frames, "BLOCK_TUBELETS", block)
    num_frames = (9, 2, 12)
    annotations = make_annotations([(0, (0,), [1], [[0, 0, 9, 9]])], num_frames=num_frames)
    rows = random_rows(0, num_boxes=num_boxes)
    limits = {"nms_threshold": 0.2, "top": 5}
    table = by_way_of_the_table(rows, num_frames, **limits)
    expected = all_columns(detected_boxes(table, annotations, "test", step=1))
    shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
    found = all_columns(frame_detections(shuffled, annotations, "test", **limits))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(found[0]) > 100


def test_the_order_of_videos_does_not_matter():
    """Given one by one and backwards: equal scores still count in the order of the split."""
    rng = np.random.default_rng(3)
    corner = rng.integers(0, 40, (40, 1, 2)) + np.zeros((1, 4, 2), int)
    boxes = np.concatenate([corner, corner + 22], axis=-1)
    truth = [(rng.integers(3), (rng.integers(3),), rng.integers(9) + np.arange(4), b)
             for b in boxes]  # fmt: skip
    annotations = make_annotations(truth, num_frames=(12, 12, 12))
    rows = random_rows(4, num_frames=(12, 12, 12))
    header = as_table_header(rows.header)
    together = tally(frame_detections(rows, annotations, "test"), annotations, "test", header)
    blocks = []
    for video in (2, 0, 1):
        blocks += frame_detections(rows.take(rows.video == video), annotations, "test")
    apart = tally(blocks, annotations, "test", header)
    np.testing.assert_array_equal(map_of(apart).ap, map_of(together).ap)
    assert 0 < map_of(apart).mean < 100
    table = by_way_of_the_table(rows, (12, 12, 12))
    np.testing.assert_array_equal(
        frame_map(table, annotations, "test", step=1).ap, map_of(apart).ap
    )
    backwards = tally(blocks[::-1], annotations, "test", header)
    np.testing.assert_array_equal(map_of(backwards).ap, map_of(together).ap)


def test_the_trap_of_an_unstable_sort(monkeypatch):
    """A tubelet's boxes share a score: any order but that of the frames gives another AP."""
    box, far = [0, 0, 20, 20], [40, 40, 60, 60]
    rows = [
        (0, start, 0, [0.5, 0, 0], [box if start < 9 else far] * 3) for start in range(0, 18, 3)
    ]
    tubelets = make_tubelets(rows, videos=("v0",))
    annotations = make_annotations([(0, (0,), range(9), [box] * 9)], num_frames=(18,))
    blocks = list(frame_detections(tubelets, annotations, "test"))
    arguments = blocks, annotations, "test", as_table_header(tubelets.header)
    assert map_of(tally(*arguments)).ap[0] == 100

    def reversed_ascending(labels, scores, *, num_classes):
        order = np.argsort(scores, kind="stable")[::-1]
        return [order[labels[order] == label] for label in range(num_classes)]

    monkeypatch.setattr("step_jax.metrics.frame_tally.ranking", reversed_ascending)
    assert map_of(tally(*arguments)).ap[0] < 40


def test_ground_truth_as_detections_scores_100():
    box = np.array([4, 4, 30, 40])
    truth = [
        (0, (0,), range(9), box + np.arange(9)[:, None]),
        (0, (1, 2), range(2, 7), [[40, 10, 60, 30]] * 5),
        (1, (2,), range(3), [box] * 3),
    ]
    annotations = make_annotations(truth, num_frames=(10, 3))
    rows = truth_as_tubelets(annotations)
    blocks = list(frame_detections(rows, annotations, "test"))
    counted = tally(blocks, annotations, "test", as_table_header(rows.header))
    np.testing.assert_array_equal(map_of(counted).ap, 100)
    errors = errors_of(counted).means()
    assert errors == {"ap": 100} | dict.fromkeys(list(errors)[1:], 0)
    assert counted.localization_recall == 100


def test_only_annotated_frames():
    box, far = [0, 0, 20, 20], [40, 40, 60, 60]
    rows = [(0, 0, 0, [0.5, 0, 0], [box] * 3), (0, 3, 0, [0.9, 0, 0], [far] * 3)]
    annotations = make_annotations([(0, (0,), range(3), [box] * 3)], num_frames=(6,))
    tubelets = make_tubelets(rows, videos=("v0",))
    blocks = list(frame_detections(tubelets, annotations, "test"))
    header = as_table_header(tubelets.header)
    everywhere = map_of(tally(blocks, annotations, "test", header))
    annotated = map_of(tally(blocks, annotations, "test", header, frames="annotated"))
    assert everywhere.ap[0] < 50
    assert annotated.ap[0] == 100
    assert "not ACT protocol" in annotated.protocol
    assert "3 of 6 frames of 1 videos (annotated ones alone)" in annotated.protocol
    assert "not" not in everywhere.protocol.replace("without", "")
    voc = map_of(tally(blocks, annotations, "test", header), ap="voc")
    assert voc.ap[0] == pytest.approx(50)  # precision 3/6 at every recall
    assert "not ACT protocol" in voc.protocol
    assert "VOC-style AP" in voc.protocol


def test_nothing_found():
    annotations = make_annotations([(0, (0,), [1], [[0, 0, 9, 9]])])
    rows = make_tubelets([])
    counted = tally(
        frame_detections(rows, annotations, "test"),
        annotations,
        "test",
        as_table_header(rows.header),
    )
    result = map_of(counted)
    assert result.mean == 0
    assert errors_of(counted).missed[0] == 100
    assert counted.localization_recall == 0
    below = make_tubelets([(0, 0, 0, [0.01, 0.001, 0], [[0, 0, 9, 9]] * 3)])
    blocks = frame_detections(below, annotations, "test")
    assert map_of(tally(blocks, annotations, "test", as_table_header(rows.header))).mean == 0


ROW = (0, 3, 0, [0.5, 0, 0], [[0, 0, 9, 9]] * 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (make_tubelets([ROW], videos=("w",)), r"detections of video 'w' .1 such videos"),
        (make_tubelets([ROW], classes=("c", "b", "a")), "the detections' classes are"),
        (make_tubelets([(0, 10, *ROW[2:])]), "window at frame 10 of video 'v0', which has 10 fr"),
        (make_tubelets([(0, 3, 0, [np.nan] * 3, ROW[4])]), "3 of the detector's 3 scores are not"),
    ],
)
def test_bad_input(rows, message):
    annotations = make_annotations([(0, (0,), [1], [[0, 0, 9, 9]])])
    with pytest.raises(InputError, match=message):
        list(frame_detections(rows, annotations, "test"))
