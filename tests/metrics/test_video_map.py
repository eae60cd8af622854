"""Video-mAP against reference numbers, against a slow loop, and at each rule of the protocol."""

import dataclasses

import numpy as np
import pytest
from made_up import make_annotations, make_tubes, slow_iou3dt, truth_as_tubes

from step_jax.annotations import Annotations, Tube, Video
from step_jax.errors import InputError
from step_jax.metrics.tube_overlap import tube_nms
from step_jax.metrics.video_map import ALL_THRESHOLDS, video_map
from step_jax.tube_table import Tubes

BOX, HALF, FAR = [0, 0, 9, 9], [0, 0, 9, 4], [40, 40, 49, 49]


# --- the reference --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(data_dir):
    """Two of 24 classes of 30 synthetic videos: tubes that ACT's linking made and their AP.

    `linked`, without the class-agnostic NMS, and `trimmed` with a penalty of 3.
    """
    return dict(np.load(data_dir / "ucf101_24_video_ap.npz"))


def reference_annotations(reference):
    ends = np.cumsum(reference["truth_length"])[:-1]
    frames = np.split(reference["truth_frame"].astype(int), ends)
    boxes = np.split(reference["truth_box"], ends)
    labels = reference["labels"].tolist()
    videos = []
    for v, length in enumerate(reference["num_frames"].tolist()):
        own = [
            Tube((labels.index(reference["truth_label"][t]),), frames[t], boxes[t])
            for t in np.flatnonzero(reference["truth_video"] == v)
        ]
        videos.append(Video(f"v{v}", f"v{v}.avi", "test", 25.0, length, 320, 240, tuple(own)))
    return Annotations("reference", ("a", "b"), tuple(videos), "/nowhere")


def reference_tubes(reference, kind):
    first, length = reference[f"{kind}_first"].astype(int), reference[f"{kind}_length"].astype(int)
    frame = np.concatenate([f + np.arange(n) for f, n in zip(first, length, strict=True)])
    return Tubes(
        classes=("a", "b"),
        videos=tuple(f"v{v}" for v in range(30)),
        video=reference[f"{kind}_video"].astype(np.int32),
        label=np.searchsorted(reference["labels"], reference[f"{kind}_label"]).astype(np.int32),
        score=reference[f"{kind}_score"],
        offset=np.append(0, np.cumsum(length)),
        frame=frame.astype(np.int32),
        boxes=reference[f"{kind}_box"],
        frame_score=np.zeros(len(frame), np.float32),
    )


@pytest.mark.parametrize("kind", ["linked", "trimmed"])
def test_reference_numbers_at_all_thresholds(reference, kind):
    annotations, tubes = reference_annotations(reference), reference_tubes(reference, kind)
    result = video_map(tubes, annotations, "test")
    np.testing.assert_allclose(result.thresholds, reference["thresholds"])
    np.testing.assert_allclose(result.ap, reference[f"{kind}_ap"], atol=1e-4)
    assert result.averaged == pytest.approx(reference[f"{kind}_ap"][4:].mean(), abs=1e-4)
    assert 5 < result.averaged < result.at(0.05)


def test_tube_nms_keeps_what_the_reference_keeps(reference):
    kept = tube_nms(reference_tubes(reference, "linked"))
    np.testing.assert_array_equal(kept, reference["linked_kept"])
    assert 0 < kept.sum() < len(kept)


# --- slow and obvious -----------------------------------------------------------------------------


def as_dict(frames, boxes):
    return dict(zip(np.asarray(frames).tolist(), np.asarray(boxes, float).tolist(), strict=True))


def slow_video_ap(tubes, annotations, label, threshold):
    """Percent; the videos of both must be in the same order."""
    ranked, free = [], {}
    for v, video in enumerate(annotations.videos):
        free[v] = [as_dict(t.frames, t.boxes) for t in video.tubes if label in t.labels]
        own = np.flatnonzero((tubes.video == v) & (tubes.label == label))
        kept = []
        for i in sorted(own, key=lambda i: -tubes.score[i]):  # Python's sort is stable
            rows = tubes.tube(i)
            tube = as_dict(tubes.frame[rows], tubes.boxes[rows])
            if all(slow_iou3dt(tube, other) <= 0.3 for other in kept):
                kept.append(tube)
                ranked.append((tubes.score[i], v, tube))
    ranked.sort(key=lambda entry: -entry[0])
    total, hits, area, last = sum(map(len, free.values())), 0, 0.0, (0.0, 1.0)
    for seen, (_, v, tube) in enumerate(ranked, start=1):
        overlaps = [slow_iou3dt(tube, other) for other in free[v]]
        if overlaps and max(overlaps) >= threshold:
            free[v].pop(int(np.argmax(overlaps)))
            hits += 1
        recall, precision = hits / total, hits / seen
        area += (recall - last[0]) * (precision + last[1]) / 2
        last = recall, precision
    return 100 * area


def random_problem(seed):
    """Crowded videos and few different scores: ties of every kind, and ground truth with gaps."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 20, 2) + rng.integers(-1, 2, (count, 2))
        return np.concatenate([corner, corner + 20], axis=1)

    truth = []
    for _ in range(14):
        frames = np.sort(rng.choice(12, rng.integers(3, 9), replace=False))
        labels = tuple({*rng.integers(0, 3, 2).tolist()})
        truth.append((rng.integers(2), labels, frames, boxes(len(frames))))
    tubes = []
    for _ in range(90):
        first = rng.integers(0, 8)
        length = rng.integers(2, 13 - first)
        score = rng.integers(1, 5) / 8
        tubes.append((rng.integers(2), rng.integers(3), score, first, boxes(length)))
    return make_tubes(tubes), make_annotations(truth, num_frames=(12, 12))


@pytest.mark.parametrize("seed", range(6))
def test_everything_at_once_equals_the_loop(seed):
    tubes, annotations = random_problem(seed)
    thresholds = (0.05, 0.1, 0.25)
    result = video_map(tubes, annotations, "test", thresholds=thresholds)
    expected = [[slow_video_ap(tubes, annotations, c, t) for c in range(3)] for t in thresholds]
    np.testing.assert_allclose(result.ap, expected, atol=1e-9)
    hits = result.num_true_positives.sum(axis=1)
    assert 0 < hits[2] < hits[0] < result.num_detections.sum() < len(tubes)


def test_the_order_of_videos_in_the_table_does_not_matter():
    tubes, annotations = random_problem(0)
    expected = video_map(tubes, annotations, "test").ap
    reversed_names = dataclasses.replace(tubes, videos=("v1", "v0"), video=1 - tubes.video)
    order = np.argsort(reversed_names.video, kind="stable")
    found = video_map(reversed_names.take(order), annotations, "test").ap
    np.testing.assert_array_equal(found, expected)


# --- the protocol, rule by rule -------------------------------------------------------------------


def ap_of(tubes, truth, **options):
    """AP of class a at one threshold, percent."""
    options = {"thresholds": (0.5,), **options}
    return video_map(make_tubes(tubes), make_annotations(truth), "test", **options).ap[0, 0]


def test_ground_truth_as_detections_scores_100():
    annotations = make_annotations(
        [
            (0, (0,), range(3), [BOX] * 3),  # shorter than the linker's 15 frames
            (0, (0, 1), range(2, 9), [FAR] * 7),
            (1, (2,), range(10), [HALF] * 10),
        ]
    )
    result = video_map(truth_as_tubes(annotations), annotations, "test")
    np.testing.assert_array_equal(result.ap, 100)
    assert result.averaged == 100
    assert result.num_ground_truth.tolist() == [2, 1, 1]


def test_an_overlap_of_exactly_the_threshold_matches():
    truth = [(0, (0,), range(4), [BOX] * 4)]
    assert ap_of([(0, 0, 0.9, 0, [HALF] * 4)], truth) == 100
    assert ap_of([(0, 0, 0.9, 0, [HALF] * 4)], truth, thresholds=(0.501,)) == 0
    assert ap_of([(0, 0, 0.9, 0, [BOX] * 2)], truth) == 100  # half of the frames
    assert ap_of([(0, 0, 0.9, 0, [BOX])], truth) == 0


def test_the_best_of_those_still_free():
    """The second tube's favourite is taken; it gets the other one, which also suffices."""
    truth = [(0, (0,), range(9), [[0, 0, 19, 19]] * 9), (0, (0,), range(9), [[8, 0, 27, 19]] * 9)]
    tubes = [
        (0, 0, 0.9, 0, [[0, 0, 19, 19]] * 9),
        (0, 0, 0.8, 4, [[0, 0, 19, 19]] * 2),  # inside the first: iou3dt 2/9 with it
    ]
    assert ap_of(tubes, truth, thresholds=(0.05,)) == 100
    # IoU 12/28 over 2 of 9 frames is .095 for the second.
    assert ap_of(tubes, truth, thresholds=(0.1,)) == 50


def test_equal_scores_count_in_the_order_of_the_split():
    tubes = [(0, 0, 0.5, 0, [FAR] * 4), (1, 0, 0.5, 0, [BOX] * 4)]
    truth = [(1, (0,), range(4), [BOX] * 4)]
    assert ap_of(tubes, truth) == pytest.approx(25)  # from (0, 1) over (0, 0) to (1, 1/2)
    assert ap_of(tubes[::-1], truth) == pytest.approx(25)
    assert ap_of([(1, *tubes[0][1:]), (0, *tubes[1][1:])], [(0, *truth[0][1:])]) == 100


def test_other_protocols_have_other_numbers_and_say_so():
    truth = [(0, (0,), range(4), [BOX] * 4), (1, (0,), range(4), [BOX] * 4)]
    tubes = [
        (0, 0, 0.9, 0, [FAR] * 4),
        (0, 0, 0.8, 0, [BOX] * 10),  # 4 of 10 frames; all 4 that are annotated
        (1, 0, 0.7, 0, [BOX] * 4),
    ]
    assert ap_of(tubes, truth) == pytest.approx(100 * (1 / 3) / 2 / 2)
    assert ap_of(tubes, truth, ap="voc") == pytest.approx(100 * (1 / 3) / 2)
    assert ap_of(tubes, truth, ap="voc", frames="annotated") == pytest.approx(100 * 2 / 3)
    arguments = make_tubes(tubes), make_annotations(truth), "test"
    assert "not ACT protocol" in video_map(*arguments, ap="voc").protocol
    line = video_map(*arguments, frames="annotated").protocol
    assert "not ACT protocol" in line
    assert "annotated frames alone" in line
    line = video_map(*arguments).protocol
    assert "not" not in line
    for part in ("ACT protocol", "tube NMS 0.3", "2 tubes of 2 videos", "trapezoid AP"):
        assert part in line


def test_tubes_outside_of_all_annotated_frames_do_not_count_there():
    truth = [(0, (0,), range(4), [BOX] * 4)]
    tubes = [(0, 0, 0.9, 6, [BOX] * 4), (0, 0, 0.8, 0, [BOX] * 4)]
    assert ap_of(tubes, truth) == pytest.approx(25)
    assert ap_of(tubes, truth, frames="annotated") == 100


def test_no_tubes_and_missing_classes():
    result = video_map(make_tubes([]), make_annotations([(0, (1,), [3], [BOX])]), "test")
    np.testing.assert_array_equal(result.ap, [[np.nan, 0, np.nan]] * len(ALL_THRESHOLDS))
    assert result.averaged == 0
    assert "mean over 1 of 3 classes (no ground truth: a, c)" in result.protocol
    with pytest.raises(InputError, match="has no annotated tube"):
        video_map(make_tubes([]), make_annotations([]), "test")


TRUTH = [(0, (0,), range(4), [BOX] * 4)]


@pytest.mark.parametrize(
    ("tubes", "options", "message"),
    [
        (make_tubes([(0, 0, np.nan, 0, [BOX])]), {}, r"tube 0 \(video 'v0', frames 0 to 0\) has a"),
        (make_tubes([(0, 0, 1, 0, [[0, 0, np.inf, 9]])]), {}, "score or a box that is not finite"),
        (make_tubes([(1, 0, 1, 5, [BOX] * 6)]), {}, "frames 5 to 10. reaches beyond the end"),
        (make_tubes([(0, 0, 1, 0, [BOX])], videos=("w",)), {}, "video 'w' .1 such videos"),
        (make_tubes([], classes=("a", "c", "b")), {}, r"classes are \['a', 'c', 'b'\]"),
        (make_tubes([]), {"ap": "coco"}, "ap 'coco': expected one of trapezoid, voc"),
        (
            make_tubes([]),
            {"frames": "some"},
            "frames 'some': expected one of all, annot",
        ),
        (make_tubes([]), {"thresholds": (50,)}, r"thresholds are \[50\]; expected numbers above 0"),
    ],
)
def test_bad_input(tubes, options, message):
    with pytest.raises(InputError, match=message):
        video_map(tubes, make_annotations(TRUTH), "test", **options)
