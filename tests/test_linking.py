"""Linking against ACT's numbers, against loops, and at each rule and its boundary."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from slow_linking import (
    SIDE,
    as_dicts,
    assert_identical,
    assert_same,
    make_rows,
    random_rows,
    slow_link,
)

from step_jax import linking
from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError
from step_jax.global_nms import global_survivors
from step_jax.linking import LinkOptions, link, link_videos, video_sizes
from step_jax.tube_table import join_tubes, read_tubes, write_tubes
from step_jax.tubelet_table import TubeletHeader, TubeletRows, concatenate

EVERYTHING = {"min_score": 0, "min_frames": 1}
A, B, C = [0, 0, 19, 19], [40, 40, 59, 59], [80, 80, 99, 99]  # boxes apart


def link_windows(windows, num_frames=40, *, options=None, **header):
    """The tubes of one made-up video as (first frame, frames, score), by `sort_tubes`."""
    rows = make_rows(windows, **header)
    options = LinkOptions(**EVERYTHING | (options or {}))
    tubes = link(rows, sizes={"v": (num_frames, SIDE, SIDE)}, options=options)
    assert_same(as_dicts(tubes), slow_link(rows, {"v": (num_frames, SIDE, SIDE)}, options))
    return tubes


def spans(tubes):
    last = tubes.first + tubes.length - 1
    return list(zip(tubes.first.tolist(), last.tolist(), tubes.score.tolist(), strict=True))


# --- reference numbers ----------------------------------------------------------------------------


def reference_rows(data):
    """The tubelets of two videos in the reference numbers, normalised; and the videos' sizes."""
    clip = np.repeat(np.arange(len(data["clip_start"])), data["clip_tubelets"])
    first = np.cumsum(data["clip_tubelets"]) - data["clip_tubelets"]
    names = tuple(map(str, data["videos"]))
    height, width = data["resolution"].T
    sides = np.stack([width, height, width, height], axis=1).astype(np.float32)
    video = data["clip_video"][clip]
    rows = TubeletRows(
        header=TubeletHeader(
            classes=tuple(map(str, data["labels"])),
            clip_frames=6,
            stride=1,
            num_steps=1,
            num_boxes=1,
        ),
        videos=names,
        video=video.astype(np.int32),
        start=data["clip_start"][clip],
        step=np.ones(len(clip), np.int8),
        proposal=(np.arange(len(clip)) - first[clip]).astype(np.int32),
        scores=data["scores"],
        tubes=(data["tubelets"] / sides[video][:, None])[:, None],
    )
    sizes = {
        name: (int(n), int(w), int(h))
        for name, n, w, h in zip(names, data["num_frames"], width, height, strict=True)
    }
    return rows, sizes


@pytest.mark.parametrize(("name", "global_nms"), [("nogn", None), ("act", 0.7)])
def test_reference_tubes(data_dir, name, global_nms):
    """Those of ACT's evaluation, with and without its NMS over all classes."""
    data = np.load(data_dir / "ucf101_24_tubes.npz")
    rows, sizes = reference_rows(data)
    tubes = link(rows, sizes=sizes, options=LinkOptions(global_nms=global_nms))
    columns = ("video", "label", "first", "length")
    found = np.stack([getattr(tubes, column) for column in columns])
    expected = np.stack([data[f"{name}_{column}"] for column in columns])
    score = data[f"{name}_score"]
    order = np.lexsort((-tubes.score, *found[::-1]))
    expected_order = np.lexsort((-score, *expected[::-1]))
    np.testing.assert_array_equal(found[:, order], expected[:, expected_order])
    np.testing.assert_allclose(tubes.score[order], score[expected_order], atol=2e-7)
    if name == "nogn":
        first = np.cumsum(data["nogn_length"]) - data["nogn_length"]
        row = np.concatenate([first[i] + np.arange(data["nogn_length"][i]) for i in expected_order])
        ours = tubes.take(order)
        np.testing.assert_allclose(ours.boxes, data["nogn_rows"][row, :4], atol=1e-4)
        np.testing.assert_allclose(ours.frame_score, data["nogn_rows"][row, 4], atol=2e-7)


def test_reference_survivors_of_the_nms_over_all_classes(data_dir):
    data = np.load(data_dir / "ucf101_24_tubes.npz")
    rows, sizes = reference_rows(data)
    sides = np.array([sizes[name][1:] for name in rows.videos], np.float32)
    kept = global_survivors(rows, sides, threshold=0.7, top=300)
    assert rows.proposal[kept].tolist() == data["globalnms_index"].tolist()
    clip = np.repeat(np.arange(len(data["clip_start"])), data["clip_tubelets"])
    assert np.bincount(clip[kept]).tolist() == data["globalnms_count"].tolist()


# --- against loops --------------------------------------------------------------------------------

VARIATIONS = {
    "STEP's": {},
    "everything": {"options": EVERYTHING},
    "class-specific": {"num_boxes": 3, "options": EVERYTHING},
    "class-specific, dropped": {"num_boxes": 3, "options": {"min_score": 0.2}},
    "one class": {"num_classes": 1, "options": {"min_frames": 8}},
    "stride 2": {"stride": 2, "num_frames": 37, "options": EVERYTHING},
    "stride 3": {"stride": 3, "clip_frames": 7, "num_frames": 42, "options": EVERYTHING},
    "stride 5": {"stride": 5, "num_frames": 44, "options": EVERYTHING},
    "K 2": {"clip_frames": 2, "options": EVERYTHING},
    "K 11": {"clip_frames": 11, "options": EVERYTHING},
    "short gap": {"options": {**EVERYTHING, "max_gap": 2}},
    "short gap, stride 2": {"stride": 2, "options": {**EVERYTHING, "max_gap": 1}},
    "ACT's": {"options": {**EVERYTHING, "global_nms": 0.7}},
    "ACT's, few": {"options": {**EVERYTHING, "global_nms": 0.5, "global_top": 2}},
    "ACT's, class-specific": {"num_boxes": 3, "options": {**EVERYTHING, "global_nms": 0.5}},
    "few candidates": {"options": {**EVERYTHING, "candidates": 2}},
    "strict": {"options": {**EVERYTHING, "candidate_nms": 0.1, "match_iou": 0.6}},
    "anything continues": {"options": {**EVERYTHING, "match_iou": 0}},
    "no NMS": {"options": {**EVERYTHING, "candidate_nms": 1}},
    "at most 9 frames": {"options": {**EVERYTHING, "max_frames": 9}},
    "many tubelets": {"most": 60, "num_frames": 12, "options": EVERYTHING},
    "short video": {"num_frames": 4, "options": EVERYTHING},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", VARIATIONS)
def test_equals_loops(name, seed):
    variation = {"num_frames": 40, **VARIATIONS[name]}
    options = LinkOptions(**variation.pop("options", {}))
    rows = random_rows(seed, **variation)
    sizes = {"v": (variation["num_frames"], SIDE, SIDE)}
    expected = slow_link(rows, sizes, options)
    assert_same(as_dicts(link(rows, sizes=sizes, options=options)), expected)
    assert len(expected) >= 3 or name == "short video"


def several_videos():
    lengths = {"c": 31, "a": 9, "none": 20, "b": 40, "short": 3}
    parts = [
        random_rows(seed, num_frames=n, num_boxes=3, video=name)
        for seed, (name, n) in enumerate(lengths.items())
    ]
    parts[2] = parts[2].take(slice(0))
    return parts, {name: (n, SIDE, SIDE // 2) for name, n in lengths.items()}


def test_videos_do_not_see_each_other(monkeypatch):
    parts, sizes = several_videos()
    rows = concatenate(parts[0].header, parts)
    options = LinkOptions(**EVERYTHING)
    together = link(rows, sizes=sizes, options=options)
    assert_same(as_dicts(together), slow_link(rows, sizes, options))
    alone = [link(part, sizes=sizes, options=options) for part in parts]
    assert_identical(join_tubes(alone), together)
    monkeypatch.setattr(linking, "_BATCH_VALUES", 5_000)
    assert_identical(link(rows, sizes=sizes, options=options), together)
    pieces = list(link_videos(iter(parts), sizes=sizes, options=options))
    assert 1 < len(pieces) < len(parts)
    assert_identical(join_tubes(pieces), together)


def test_the_order_of_rows_does_not_matter():
    parts, sizes = several_videos()
    rows = concatenate(parts[0].header, parts)
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    assert_identical(link(shuffled, sizes=sizes), link(rows, sizes=sizes))


# --- candidates -----------------------------------------------------------------------------------


def frames_of(*boxes):
    """A tubelet with a box for each frame."""
    return np.array(boxes, np.float32)


@pytest.mark.parametrize(("shared", "left"), [(3, 2), (4, 1)])
def test_candidate_nms_drops_above_its_threshold(shared, left):
    """Of 10 frames 3 overlap entirely and 7 not at all: .3 exactly."""
    other = frames_of(*[A] * shared, *[B] * (10 - shared))
    windows = {0: [(0.9, A), (0.8, other)]}
    assert len(link_windows(windows, clip_frames=10)) == left


def test_candidates_are_the_ten_best_however_bad():
    boxes = [[40 * i, 40 * j, 40 * i + 20, 40 * j + 20] for i in range(3) for j in range(4)]
    boxes = np.array(boxes, np.float32) / 2  # 12 apart, within the frame
    scores = [0.003, *np.arange(1, 12) / 1000]
    windows = {0: list(zip(scores, boxes, strict=True))}
    tubes = link_windows(windows)
    assert sorted(tubes.score, reverse=True) == pytest.approx(sorted(scores, reverse=True)[:10])
    assert len(link_windows(windows, options={"candidates": 3})) == 3


def test_of_equal_candidates_the_first_proposals_stay():
    windows = {0: [(0.5, C), (0.5, A), (0.5, [1, 1, 20, 20]), (0.5, B)]}
    tubes = link_windows(windows, options={"candidates": 2})
    assert {tuple(box) for box in tubes.boxes.tolist()} == {tuple(C), tuple(A)}


def test_boxes_are_clipped_before_they_are_compared():
    """They differ outside of the frame alone."""
    windows = {0: [(0.9, [100, 100, 140, 140]), (0.8, [100, 100, 1000, 1000])]}
    tubes = link_windows(windows)
    assert len(tubes) == 1
    assert tubes.boxes.tolist() == [[100, 100, SIDE, SIDE]] * 6
    outside = link_windows({0: [(0.9, [-50, -50, -10, -10])]})
    assert outside.boxes.tolist() == [[0, 0, 0, 0]] * 6


def test_a_frame_that_is_not_square():
    rows = make_rows({0: [(0.9, [32, 32, 96, 96])]})
    options = LinkOptions(**EVERYTHING)
    tubes = link(rows, sizes={"v": (9, 320, 240)}, options=options)
    assert tubes.boxes[0].tolist() == [80, 60, 240, 180]


def test_the_nms_over_all_classes_goes_by_the_best_class_and_cuts():
    """Tubelet 1 is best in class 1 and drops tubelet 0 for class 0, too; at .7 exactly it stays."""
    other = frames_of(*[A] * 7, *[B] * 3)
    windows = {0: [([0.5, 0.1], A), ([0.1, 0.9], A), ([0.3, 0.2], other), ([0.2, 0.2], C)]}
    header = {"clip_frames": 10, "num_classes": 2}
    tubes = link_windows(windows, options={"global_nms": 0.7}, **header)
    assert tubes.score[tubes.label == 0] == pytest.approx([0.3, 0.2])
    tubes = link_windows(windows, options={"global_nms": 0.7, "global_top": 1}, **header)
    assert tubes.score[tubes.label == 0] == pytest.approx([0.1])
    tubes = link_windows(windows, options={"global_nms": 0.6999}, **header)
    assert tubes.score[tubes.label == 0] == pytest.approx([0.2, 0.1])


# --- matching -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shared", "tubes"), [(1, 1), (0, 2)])
def test_a_match_needs_its_threshold_or_more(shared, tubes):
    """Of the 5 frames that are shared 1 overlaps entirely and 4 not at all: .2 exactly."""
    later = frames_of(*[A] * shared, *[B] * (6 - shared))
    assert len(link_windows({0: [(0.5, A)], 1: [(0.5, later)]})) == tubes


def test_only_shared_frames_count():
    moving = frames_of(C, C, C, C, A, A)
    windows = {0: [(0.5, moving)], 4: [(0.5, frames_of(A, A, C, C, C, C))]}
    assert spans(link_windows(windows)) == [(0, 9, 0.5)]


@pytest.mark.parametrize(
    ("start", "gap", "expected"),
    [
        (5, None, [(0, 10, 0.5)]),  # K - 1: one shared frame
        (6, None, [(0, 5, 0.5), (6, 11, 0.5)]),
        (2, 2, [(0, 7, 0.5)]),  # where it would end otherwise
        (3, 2, [(0, 5, 0.5), (3, 8, 0.5)]),
        (1, 0, [(0, 6, 0.5)]),
        (2, 0, [(0, 5, 0.5), (2, 7, 0.5)]),
    ],
)
def test_a_tube_waits_for_its_gap_and_no_longer(start, gap, expected):
    windows = {0: [(0.5, A)], start: [(0.5, A)]}
    assert spans(link_windows(windows, options={"max_gap": gap})) == expected


def test_candidates_that_do_not_match_let_a_tube_wait_too():
    windows = {0: [(0.5, A)], **{s: [(0.25, B)] for s in range(1, 6)}, 5: [(0.25, B), (0.5, A)]}
    assert spans(link_windows(windows)) == [(0, 10, 0.5), (1, 10, 0.25)]


def test_at_a_stride_the_gap_is_counted_in_frames():
    for start, tubes in ((4, 1), (6, 2)):  # at a stride of 2, K - 1 = 5 frames
        windows = {0: [(0.5, A)], start: [(0.5, A)]}
        assert len(link_windows(windows, stride=2)) == tubes
    assert len(link_windows({0: [(0.5, A)], 3: [(0.5, A)]}, stride=3)) == 1


def test_the_last_window_lies_off_the_grid_of_starts():
    windows = {start: [(0.5, A)] for start in (0, 3, 5)}
    assert spans(link_windows(windows, num_frames=11, stride=3)) == [(0, 10, 0.5)]


def test_the_highest_score_is_chosen_not_the_highest_overlap():
    windows = {0: [(0.5, A)], 1: [(0.4, A), (0.6, [0, 10, 19, 29])]}  # IoU 1 and 1/3
    windows[1][0] = (0.4, [0, 0, 19, 15])  # else the NMS drops it
    tubes = link_windows(windows, options={"candidate_nms": 0.5})
    assert spans(tubes) == [(0, 6, pytest.approx(0.55)), (1, 6, pytest.approx(0.4))]


def two_rivals(first, second, *, later=()):
    """Tubes at A and below it, then one candidate between them: which tube takes it?"""
    windows = {0: [(first, A), (second, [0, 20, 19, 39])], **dict(later)}
    start = max(windows) + 1
    windows[start] = [(0.25, [0, 10, 19, 29])]
    tubes = link_windows(windows)
    (winner,) = np.flatnonzero(tubes.length == start + 6)
    return tubes.boxes[tubes.offset[winner], 1]


def test_the_tube_with_the_higher_mean_chooses_first():
    assert two_rivals(0.5, 0.75) == 20
    assert two_rivals(0.75, 0.5) == 0
    both = {1: [(0.125, A), (0.5, [0, 20, 19, 39])]}  # means .5 and .5625; last scores the reverse
    assert two_rivals(0.875, 0.625, later=both.items()) == 20


def test_of_equal_tubes_the_older_chooses_first():
    assert two_rivals(0.5, 0.5) == 0
    windows = {
        0: [(0.5, [0, 20, 19, 39])],
        1: [(0.5, A), (0.5, [0, 20, 19, 39])],
        2: [(0.25, [0, 10, 19, 29])],
    }
    tubes = link_windows(windows)
    assert spans(tubes)[0] == (0, 7, pytest.approx(1.25 / 3))


# --- tubes ----------------------------------------------------------------------------------------


def test_scores_and_boxes_are_plain_means():
    windows = {0: [(0.25, [0, 0, 20, 20])], 1: [(0.5, [4, 4, 24, 24])], 3: [(0.75, [8, 0, 28, 20])]}
    tubes = link_windows(windows)
    assert tubes.score.tolist() == [0.5]
    assert tubes.frame_score == pytest.approx([0.25, *[0.375] * 2, *[0.5] * 3, 0.625, 0.75, 0.75])
    assert tubes.boxes[[0, 1, 3, 6, 8], 0] == pytest.approx([0, 2, 4, 6, 8])
    assert tubes.score.dtype == np.float64


@pytest.mark.parametrize(("threshold", "kept"), [(0.25, 1), (np.nextafter(np.float32(0.25), 1), 0)])
def test_a_score_below_the_least_is_dropped(threshold, kept):
    windows = {0: [(0.375, A)], 1: [(0.125, A)]}
    assert len(link_windows(windows, options={"min_score": threshold})) == kept


@pytest.mark.parametrize("num_boxes", [1, 3])
def test_a_score_of_just_the_least_is_kept(num_boxes):
    """Scores are float32, where .01 is a little below that of float64."""
    windows = {start: [(0.01, A)] for start in range(11)}
    rows = make_rows(windows, num_boxes=num_boxes, num_classes=num_boxes)
    tubes = link(rows, sizes={"v": (40, SIDE, SIDE)})
    assert tubes.score.tolist() == [np.float32(0.01)] * num_boxes


@pytest.mark.parametrize(("windows", "kept"), [(10, 1), (9, 0)])
def test_a_tube_needs_fifteen_frames(windows, kept):
    windows = {start: [(0.5, A)] for start in range(windows)}
    rows = make_rows(windows)
    assert len(link(rows, sizes={"v": (40, SIDE, SIDE)})) == kept


def test_frames_past_the_end_are_never_reported():
    tubes = link_windows({0: [(0.5, A)]}, num_frames=4)
    assert spans(tubes) == [(0, 3, 0.5)]
    assert len(link_windows({0: [(0.5, A)]}, num_frames=4, options={"min_frames": 5})) == 0


def test_no_tubelets_no_tubes(tmp_path):
    rows = make_rows({}, num_classes=2)
    tubes = link(rows, sizes={})
    assert (len(tubes), tubes.classes) == (0, ("class 0", "class 1"))
    assert list(link_videos([], sizes={})) == []
    assert len(link(rows, sizes={}, options=LinkOptions(global_nms=0.7))) == 0


@pytest.mark.parametrize("num_boxes", [1, 3])
def test_scores_below_the_least_everywhere(num_boxes):
    rows = random_rows(0, num_frames=30, num_boxes=num_boxes)
    rows = replace(rows, scores=rows.scores / 200)
    tubes = link(rows, sizes={"v": (30, SIDE, SIDE)}, options=LinkOptions(class_scores=True))
    assert (len(tubes), tubes.class_scores.shape) == (0, (0, 3))


def test_scores_of_all_classes(tmp_path):
    parts, sizes = several_videos()
    rows = concatenate(parts[0].header, parts)
    plain = link(rows, sizes=sizes)
    for num_boxes in (1, 3):
        header = replace(rows.header, num_boxes=num_boxes)
        some = replace(rows, header=header, tubes=rows.tubes[:, :num_boxes])
        tubes = link(some, sizes=sizes, options=LinkOptions(class_scores=True))
        own = tubes.class_scores[np.arange(len(tubes.frame)), tubes.label[tubes.row_tube]]
        np.testing.assert_array_equal(own, tubes.frame_score)
        first = tubes.offset[0]  # covered by one tubelet
        window = (rows.video == tubes.video[0]) & (rows.start == tubes.frame[first])
        assert tubes.class_scores[first].tolist() in rows.scores[window].tolist()
    assert_identical(replace(tubes, class_scores=None), plain)
    write_tubes(tmp_path / "tubes.parquet", tubes)
    found = read_tubes(tmp_path / "tubes.parquet")
    np.testing.assert_array_equal(found.class_scores, tubes.class_scores)
    assert join_tubes([link(make_rows({}, num_classes=3), sizes={}), tubes]).class_scores.shape == (
        len(tubes.frame),
        3,
    )


def test_sizes_of_the_annotated_videos():
    videos = [Video(n, n, s, 25.0, 9 + i, 64, 48, ()) for i, (n, s) in enumerate(["ab", "cd"])]
    annotations = Annotations("some", ("x",), tuple(videos), root=".")
    assert video_sizes(annotations) == {"a": (9, 64, 48), "c": (10, 64, 48)}
    assert video_sizes(annotations, "d") == {"c": (10, 64, 48)}


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {}}, "'v' has tubelets, but is not among the 0 annotated"),
        ({"sizes": {"v": (9, SIDE, SIDE)}}, "window of 6 frames at frame 4, but the video has 9"),
        ({"stride": 6}, "needs a stride below 6"),
        ({"step": [1, 1, 2]}, r"steps \[1, 2\]; linking takes those of one step"),
        ({"scores": np.nan}, "scores is not finite"),
        ({"tubes": np.inf}, "tubes is not finite"),
        ({"options": {"max_gap": 6}}, "max_gap is 6; expected 0 to 5"),
        ({"options": {"max_frames": 5}}, "max_frames is 5; expected 6"),
        ({"options": {"candidates": 0}}, "candidates is 0"),
        ({"options": {"match_iou": np.nan}}, "match_iou is nan"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(change, message):
    rows = make_rows({s: [(0.5, A)] for s in (0, 3, 4)}, stride=change.get("stride", 1))
    for name in ("scores", "tubes"):
        if name in change:
            getattr(rows, name)[1] = change[name]
    if "step" in change:
        header = replace(rows.header, num_steps=2, steps=(1, 2))
        rows = replace(rows, header=header, step=np.array(change["step"], np.int8))
    sizes = change.get("sizes", {"v": (40, SIDE, SIDE)})
    with pytest.raises(InputError, match=message) as error:
        link(rows, sizes=sizes, options=LinkOptions(**change.get("options", {})))
    assert "\n" not in str(error.value)


def test_none_of_it_needs_jax():
    modules = "step_jax.online_linking, step_jax.trimming"
    code = f"import sys; sys.modules['jax'] = sys.modules['tensorflow'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
