"""Frame-mAP against reference numbers, against a slow loop, and at each rule of the protocol."""

import dataclasses
import json
import sys

import made_up
import numpy as np
import pytest
from made_up import SIDE

from step_jax.annotations import Annotations, Tube, Video, write_native
from step_jax.clip_detections import clip_detections
from step_jax.detections import Detections, TableHeader, write_detections
from step_jax.errors import InputError
from step_jax.metrics import frame_boxes, frame_map
from step_jax.metrics.frame_boxes import detected_boxes
from step_jax.metrics.frame_errors import frame_errors
from step_jax.nms import suppress


def make_annotations(tubes, **facts):
    """`tubes` are (video, labels, first frame, boxes); the videos are named v0, v1, ..."""
    tubes = [(v, labels, first + np.arange(len(b)), b) for v, labels, first, b in tubes]
    return made_up.make_annotations(tubes, **facts)


def make_detections(rows, *, classes=("a", "b", "c"), videos=("v0", "v1"), num_steps=1, side=SIDE):
    """`rows` are (video, frame, label, score, pixel box[, step]); tubelets count the rows."""
    rows_of_6 = [row if len(row) == 6 else (*row, 1) for row in rows]
    column = [list(c) for c in zip(*rows_of_6, strict=True)]
    video, frame, label, score, boxes, step = column or [[]] * 6
    return Detections(
        header=TableHeader(classes, 6, 1, num_steps, {"checkpoint": "7"}),
        videos=tuple(videos),
        video=np.array(video, np.int32),
        frame=np.array(frame, np.int32),
        step=np.array(step, np.int8),
        tubelet=np.arange(len(rows), dtype=np.int32),
        label=np.array(label, np.int16),
        score=np.array(score, np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 4) / side,
    )


def ap_of(rows, tubes, **kwargs):
    """AP of class a, percent."""
    result = frame_map.frame_map(
        make_detections(rows), make_annotations(tubes), "test", step=1, **kwargs
    )
    return result.ap[0]


# --- slow and obvious -----------------------------------------------------------------------------


def slow_iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a, area_b = ((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
    return width * height / (area_a + area_b - width * height)


def slow_nms(rows):
    """Of one frame and class, (score, order, box) rows."""
    kept = []
    for row in sorted(rows, key=lambda row: (-row[0], row[1])):
        if all(slow_iou(row[2], other[2]) <= 0.3 for other in kept):
            kept.append(row)
    return kept


def slow_average_precision(ranked, truth):
    """`ranked` are (cell, box), best first; `truth` {cell: [box]}; trapezoid from (0, 1)."""
    free = {cell: list(boxes) for cell, boxes in truth.items()}
    total = sum(map(len, truth.values()))
    hits, area, last_recall, last_precision = 0, 0.0, 0.0, 1.0
    for seen, (cell, box) in enumerate(ranked, start=1):
        overlaps = [slow_iou(box, other) for other in free.get(cell, [])]
        if overlaps and max(overlaps) >= 0.5:
            free[cell].pop(int(np.argmax(overlaps)))
            hits += 1
        recall, precision = hits / total, hits / seen
        area += (recall - last_recall) * (precision + last_precision) / 2
        last_recall, last_precision = recall, precision
    return 100 * area


def slow_truth(annotations, label):
    truth = {}
    for v, video in enumerate(annotations.videos):
        for tube in video.tubes:
            for frame, box in zip(tube.frames, tube.boxes, strict=True):
                if label in tube.labels:
                    truth.setdefault((v, int(frame)), []).append(box.tolist())
    return truth


def slow_frame_ap(detections, annotations, label):
    """AP of one class; the videos of both must be in the same order."""
    frames = {}
    for i in np.flatnonzero(detections.label == label):
        box = np.clip(detections.boxes[i].astype(float), 0, 1) * SIDE
        cell = (int(detections.video[i]), int(detections.frame[i]))
        frames.setdefault(cell, []).append((detections.score[i], detections.tubelet[i], box))
    listed = [(cell, row) for cell in sorted(frames) for row in slow_nms(frames[cell])]
    listed.sort(key=lambda entry: -entry[1][0])  # Python's sort is stable
    ranked = [(cell, row[2]) for cell, row in listed]
    return slow_average_precision(ranked, slow_truth(annotations, label))


# --- the reference --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(data_dir):
    """Tubelets of 8 synthetic videos and what ACT's evaluation kept of them.

    The 8 shortest of 30 videos of 24 classes, clips of 6 frames at every frame. Pixels times 16 are
    whole; scores of .01 and less, which play no part, are 0; `clip_survivors` are bits of (tubelet,
    class), `frame_survivors` bits of (clip survivor, frame): the reference's own decisions.
    """
    return dict(np.load(data_dir / "ucf101_24_frames.npz"))


def reference_annotations(reference):
    frames, boxes = reference["truth_frame"], reference["truth_box"]
    videos = []
    for v, (length, (height, width)) in enumerate(
        zip(reference["num_frames"], reference["height_width"], strict=True)
    ):
        tubes = []
        for t in np.flatnonzero(reference["truth_video"] == v):
            rows = reference["truth_tube"] == t
            tubes.append(Tube((reference["truth_label"][t],), frames[rows], boxes[rows]))
        size = {"num_frames": int(length), "width": int(width), "height": int(height)}
        videos.append(Video(f"v{v}", f"v{v}.avi", "test", 25.0, tubes=tuple(tubes), **size))
    classes = tuple(name.decode() for name in reference["classes"])
    return Annotations("reference", classes, tuple(videos), "/nowhere")


def reference_detections(reference, annotations):
    """The reference's tubelets through `clip_detections`, each box with its (tubelet, class)."""
    height, width = reference["height_width"][0]
    tubes = reference["tubelets_16th_px"].reshape(-1, 6, 4).astype(np.float32) / 16
    tubes /= np.array([width, height, width, height], np.float32)
    clips = np.repeat(np.arange(len(reference["clip_size"])), reference["clip_size"])
    found = clip_detections(reference["scores"], tubes, clips=clips)
    order = np.lexsort((found.label, found.tubelet))
    tubelet, label, score = (np.repeat(column[order], 6) for column in found[:3])
    offset = np.tile(np.arange(6), len(order))
    return Detections(
        header=TableHeader(annotations.classes, 6, 1, 1),
        videos=tuple(video.id for video in annotations.videos),
        video=reference["clip_video"][clips[tubelet]].astype(np.int32),
        frame=(reference["clip_start"][clips[tubelet]] + offset).astype(np.int32),
        step=np.ones(len(tubelet), np.int8),
        tubelet=tubelet.astype(np.int32),
        label=label.astype(np.int16),
        score=score,
        boxes=tubes[tubelet, offset],
    )


def test_clips_and_frames_keep_what_the_reference_keeps(reference):
    annotations = reference_annotations(reference)
    detections = reference_detections(reference, annotations)
    bits = np.unpackbits(reference["clip_survivors"], count=reference["scores"].size)
    tubelet, label = np.nonzero(bits.reshape(reference["scores"].shape))
    assert detections.tubelet[::6].tolist() == tubelet.tolist()
    assert detections.label[::6].tolist() == label.tolist()

    kept = np.unpackbits(reference["frame_survivors"], count=len(detections)).astype(bool)
    expected = np.concatenate(
        [
            block.boxes
            for block in detected_boxes(detections.take(kept), annotations, "test", step=1)
        ]
    )
    found = [
        block.take(suppress(block.boxes, block.cells(24), 0.3, inclusive=True)).boxes
        for block in detected_boxes(detections, annotations, "test", step=1)
    ]
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_ap_of_the_reference_detections_equals_the_loop(reference):
    annotations = reference_annotations(reference)
    detections = reference_detections(reference, annotations)
    result = frame_map.frame_map(detections, annotations, "test", step=1)
    bits = np.unpackbits(reference["frame_survivors"], count=len(detections))
    kept = detections.take(bits.astype(bool))
    for label in range(24):
        truth = slow_truth(annotations, label)
        if not truth:
            assert np.isnan(result.ap[label])
            continue
        rows = kept.take(kept.label == label)
        order = np.lexsort((rows.tubelet, -rows.score, rows.frame, rows.video))
        order = order[np.argsort(-rows.score[order], kind="stable")]
        boxes = rows.boxes.astype(float) * (320, 240, 320, 240)
        ranked = [((rows.video[i], rows.frame[i]), boxes[i]) for i in order]
        assert result.ap[label] == pytest.approx(slow_average_precision(ranked, truth), abs=1e-9)
        assert result.num_detections[label] == len(rows)
        assert result.num_ground_truth[label] == sum(map(len, truth.values()))
    assert result.mean == pytest.approx(np.nanmean(result.ap))
    assert 20 < result.mean < 95


# --- the protocol, rule by rule -------------------------------------------------------------------


def random_problem(seed):
    """Crowded frames, whole pixels and few different scores: ties of every kind."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(-4, 30, (count, 2))
        return np.concatenate([corner, corner + rng.integers(8, 40, (count, 2))], axis=1)

    tubes = [
        (rng.integers(2), tuple({*rng.integers(0, 3, 2).tolist()}), rng.integers(5), boxes(4))
        for _ in range(8)
    ]
    rows = [
        (rng.integers(2), rng.integers(10), rng.integers(3), rng.integers(1, 6) / 8, box)
        for box in boxes(300)
    ]
    return rows, tubes


@pytest.mark.parametrize("block_rows", [2**17, 1])
@pytest.mark.parametrize("seed", range(8))
def test_everything_at_once_equals_the_loop(seed, block_rows, monkeypatch):
    monkeypatch.setattr(frame_boxes, "BLOCK_ROWS", block_rows)
    rows, tubes = random_problem(seed)
    detections, annotations = make_detections(rows), make_annotations(tubes)
    shuffled = detections.take(np.random.default_rng(seed).permutation(len(rows)))
    result = frame_map.frame_map(shuffled, annotations, "test", step=1)
    expected = [slow_frame_ap(detections, annotations, label) for label in range(3)]
    np.testing.assert_allclose(result.ap, expected, atol=1e-9)
    assert 0 < result.num_true_positives.sum() < result.num_detections.sum() < len(rows)


BOX = [0, 0, 9, 9]  # 100 pixels
HALF = [0, 0, 9, 4]  # 50 of them
FAR = [40, 40, 49, 49]


def test_equal_scores_count_in_the_order_of_videos_and_frames():
    """The boxes of a tubelet share a score: a reversed or an unstable sort gives another AP."""
    rows = [(0, frame, 0, 0.5, BOX if frame < 20 else FAR) for frame in range(40)]
    annotations = make_annotations([(0, (0,), 0, [BOX] * 20)], num_frames=(40, 1))
    detections = make_detections(rows)
    for order in (np.arange(40), np.arange(40)[::-1], np.random.default_rng(0).permutation(40)):
        result = frame_map.frame_map(detections.take(order), annotations, "test", step=1)
        assert result.ap[0] == 100
    late = [(0, frame, 0, 0.5, FAR if frame < 20 else BOX) for frame in range(40)]
    annotations = make_annotations([(0, (0,), 20, [BOX] * 20)], num_frames=(40, 1))
    assert frame_map.frame_map(make_detections(late), annotations, "test", step=1).ap[0] < 40


def test_videos_count_in_the_order_of_the_annotations():
    rows = [(0, 0, 0, 0.5, FAR), (1, 0, 0, 0.5, BOX)]
    tubes = [(1, (0,), 0, [BOX])]
    annotations = make_annotations(tubes)
    swapped = dataclasses.replace(annotations, videos=annotations.videos[::-1])
    detections = make_detections(rows)
    first = frame_map.frame_map(detections, annotations, "test", step=1)
    assert first.ap[0] == pytest.approx(25)  # from (0, 1) over (0, 0) to (1, 1/2)
    assert frame_map.frame_map(detections, swapped, "test", step=1).ap[0] == 100


def test_an_overlap_of_exactly_the_threshold_matches():
    assert ap_of([(0, 0, 0, 0.9, HALF)], [(0, (0,), 0, [BOX])]) == 100
    assert ap_of([(0, 0, 0, 0.9, HALF)], [(0, (0,), 0, [BOX])], iou_threshold=0.501) == 0
    less = [0, 0, 8, 4]
    assert ap_of([(0, 0, 0, 0.9, less)], [(0, (0,), 0, [BOX])]) == 0


def test_nms_keeps_an_overlap_of_exactly_the_threshold():
    """Two boxes of 13 x 10 pixels that share 6 x 10, and 7 x 10."""
    at, above = [7, 0, 19, 9], [6, 0, 18, 9]
    rows = [(0, 0, 0, 0.9, [0, 0, 12, 9])]
    tubes = [(0, (0,), 0, [[0, 0, 12, 9]]), (0, (0,), 0, [at])]
    assert ap_of([*rows, (0, 0, 0, 0.8, at)], tubes) == 100
    assert ap_of([*rows, (0, 0, 0, 0.8, above)], tubes) == 50


def test_a_taken_box_is_no_match_but_the_second_best_is():
    tubes = [(0, (0,), 0, [[0, 0, 19, 9]]), (0, (0,), 0, [[0, 3, 19, 12]])]
    rows = [(0, 0, 0, 0.9, [0, 0, 19, 9]), (0, 0, 0, 0.8, [0, 1, 19, 10])]
    assert ap_of(rows, tubes, nms_threshold=0.9) == 100
    assert ap_of(rows, tubes[:1], nms_threshold=0.9) == 100  # then precision 1/2 at recall 1
    assert ap_of(rows[::-1], tubes, nms_threshold=0.9) == 100


def test_a_detection_takes_the_box_that_it_overlaps_best():
    """If the first took the first box that it may (IoU 8/12 instead of 9/11), none would be left
    for the second."""
    tubes = [(0, (0,), 0, [[0, 0, 19, 9]]), (0, (0,), 0, [[0, 3, 19, 12]])]
    rows = [(0, 0, 0, 0.9, [0, 2, 19, 11]), (0, 0, 0, 0.8, [0, 0, 19, 6])]
    assert ap_of(rows, tubes, nms_threshold=0.9) == 100


def test_frames_and_videos_without_ground_truth_count():
    tubes = [(0, (0,), 0, [BOX, BOX])]
    rows = [(0, 0, 0, 0.9, BOX), (1, 5, 0, 0.8, BOX), (0, 7, 0, 0.7, BOX), (0, 1, 0, 0.6, BOX)]
    by_hand = 0.5 * 1 + 0.5 * (1 / 3 + 2 / 4) / 2
    assert ap_of(rows, tubes) == pytest.approx(100 * by_hand)


def only_middles(detections, *, clip_frames=4, stride=3):
    """As of windows of 4 frames at 0, 3 and 6 of 10: what lies in frames 2, 5 and 8."""
    header = dataclasses.replace(
        detections.header, frames="middle", clip_frames=clip_frames, stride=stride
    )
    kept = detections.take(np.isin(detections.frame, [2, 5, 8]))
    return dataclasses.replace(kept, header=header)


@pytest.mark.parametrize("seed", range(4))
def test_middle_frames_alone_equal_the_loop(seed):
    rows, tubes = random_problem(seed)
    annotations = make_annotations(tubes)
    detections = only_middles(make_detections(rows))
    result = frame_map.frame_map(detections, annotations, "test", step=1)
    cut = [
        (video, labels, first + offset, [box])
        for video, labels, first, boxes in tubes
        for offset, box in enumerate(boxes)
        if first + offset in (2, 5, 8)
    ]
    expected = [slow_frame_ap(detections, make_annotations(cut), label) for label in range(3)]
    np.testing.assert_allclose(result.ap, expected, atol=1e-9)
    assert result.num_ground_truth.sum() == sum(len(labels) for _, labels, _, _ in cut)
    assert "6 of 20 frames (the middle ones of windows of 4 frames, stride 3)" in result.protocol


def test_recall_and_errors_are_of_the_middle_frames_too():
    tubes = [(0, (0,), 0, [BOX] * 10)]
    rows = [(0, frame, 0, 0.9, BOX) for frame in (2, 5)] + [(0, 8, 0, 0.8, FAR)]
    detections, annotations = only_middles(make_detections(rows)), make_annotations(tubes)
    arguments = (detections, annotations, "test")
    assert frame_map.frame_map(*arguments, step=1).ap[0] == pytest.approx(100 * 2 / 3)
    recall = frame_map.localization_recall(*arguments, step=1)
    assert recall == pytest.approx(100 * 2 / 3)
    assert frame_errors(*arguments, step=1).missed[0] == pytest.approx(100 / 3)


def test_middle_frames_without_ground_truth_or_with_other_windows_are_errors():
    annotations = make_annotations([(0, (0,), 0, [BOX, BOX])])
    detections = only_middles(make_detections([(0, 2, 0, 0.9, BOX)]))
    with pytest.raises(InputError, match="no annotated box in the middle frame of any window"):
        frame_map.frame_map(detections, annotations, "test", step=1)
    longer = make_annotations([(0, (0,), 0, [BOX] * 5)])
    other = only_middles(make_detections([(0, 2, 0, 0.9, BOX)]), stride=2, clip_frames=2)
    with pytest.raises(InputError, match="frame 2 of video 'v0', the middle of no window of 2"):
        frame_map.frame_map(other, longer, "test", step=1)


def test_boxes_are_clipped_to_the_image():
    assert ap_of([(0, 0, 0, 0.9, [-90, -90, 9, 9])], [(0, (0,), 0, [BOX])]) == 100


def test_nothing_detected_is_zero_and_no_ground_truth_is_nan():
    annotations = make_annotations([(0, (0, 2), 0, [BOX])])
    result = frame_map.frame_map(make_detections([]), annotations, "test", step=1)
    np.testing.assert_array_equal(result.ap, [0, np.nan, 0])
    assert result.mean == 0
    assert result.num_ground_truth.tolist() == [1, 0, 1]
    rows = [(0, 0, 1, 0.9, BOX), (0, 0, 2, 0.9, BOX)]
    result = frame_map.frame_map(make_detections(rows), annotations, "test", step=1)
    np.testing.assert_array_equal(result.ap, [0, np.nan, 100])
    assert result.mean == 50
    assert result.num_detections.tolist() == [0, 1, 1]
    assert "frame-mAP@0.5" in result.protocol
    assert "2 of 3 classes (no ground truth: b)" in result.protocol
    assert "all 20 frames of 2 videos" in result.protocol


def test_localization_recall_asks_for_any_class():
    tubes = [(0, (0,), 0, [BOX, BOX, BOX]), (1, (1,), 0, [FAR])]
    rows = [(0, 0, 2, 0.1, BOX), (0, 1, 0, 0.9, FAR), (0, 2, 0, 0.9, HALF), (1, 0, 0, 0.5, BOX)]
    detections, annotations = make_detections(rows), make_annotations(tubes)
    assert frame_map.localization_recall(detections, annotations, "test", step=1) == 50


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "split", "message"),
    [
        (make_detections([(0, 0, 0, 1, BOX)], classes=("a", "c", "b")), "test", "'a', 'c', 'b'"),
        (make_detections([(0, 0, 0, 1, BOX)], videos=("x9",)), "test", "video 'x9'"),
        (make_detections([(0, 10, 0, 1, BOX)]), "test", "frame 10 of video 'v0', which has 10"),
        (make_detections([]), "train", "'train'"),
    ],
)
def test_a_table_of_something_else_is_an_error(detections, split, message):
    annotations = make_annotations([(0, (0,), 0, [BOX])])
    with pytest.raises(InputError, match=message):
        frame_map.frame_map(detections, annotations, split, step=1)


def test_a_split_without_boxes_is_an_error():
    with pytest.raises(InputError, match="split 'test' has no annotated box"):
        frame_map.frame_map(make_detections([]), make_annotations([]), "test", step=1)


def test_names_of_videos_without_rows_do_not_matter():
    detections = make_detections([(1, 0, 0, 1, BOX)], videos=("x9", "v0"))
    annotations = make_annotations([(0, (0,), 0, [BOX])])
    assert frame_map.frame_map(detections, annotations, "test", step=1).ap[0] == 100


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_and_writes_every_step(tmp_path, monkeypatch, capsys):
    annotations = make_annotations([(0, (0,), 0, [BOX]), (1, (2,), 3, [BOX])])
    rows = [(0, 0, 0, 0.9, FAR, 1), (0, 0, 0, 0.9, BOX, 2), (1, 3, 2, 0.9, BOX, 2)]
    write_native(tmp_path / "a.json", annotations)
    write_detections(tmp_path / "d.parquet", make_detections(rows, num_steps=2))
    arguments = ["--annotations", "a.json", "--detections", "d.parquet", "--split", "test"]
    monkeypatch.setattr(sys, "argv", ["frame_map", *arguments, "--output", "out.json"])
    monkeypatch.chdir(tmp_path)
    frame_map.main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "step", "1", "step", "2", "boxes"]
    assert lines[1].split() == ["a", "0.00", "100.00", "1"]
    assert lines[2].split() == ["b", "-", "-", "0"]
    assert lines[4].split() == ["mean", "0.00", "100.00"]
    report = json.loads((tmp_path / "out.json").read_text())
    assert [step["mean"] for step in report["steps"]] == [0, 100]
    assert [step["localization_recall"] for step in report["steps"]] == [0, 100]
    assert report["steps"][1]["per_class"][1]["ap"] is None
    assert report["provenance"] == {"checkpoint": "7"}
    assert report["num_videos_with_detections"] == 2
    assert report["protocol"] in lines

    monkeypatch.setattr(sys, "argv", ["frame_map", *arguments, "--frame_nms", "1"])
    frame_map.main()
    assert "NMS 1 per frame and class" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["frame_map", *arguments, "--output", "d.parquet"])
    with pytest.raises(InputError, match="is one of the inputs"):
        frame_map.main()
