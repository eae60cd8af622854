"""Linking as windows arrive: the same tubes as afterwards, early, in bounded memory."""

import pickle

import numpy as np
import pytest
from slow_linking import SIDE, assert_identical, make_rows, random_rows
from test_linking import A, B, C

from step_jax.errors import InputError
from step_jax.linking import LinkOptions, link
from step_jax.online_linking import OnlineLinker
from step_jax.tube_table import join_tubes, sort_tubes

EVERYTHING = {"min_score": 0, "min_frames": 1}


def make_linker(rows, options=None):
    return OnlineLinker(rows.header, width=SIDE, height=SIDE, video="v", options=options)


def add_all(linker, rows, starts=None):
    """What each call of `add` returns; windows without rows are left out if `starts` is None."""
    parts = []
    for start in np.unique(rows.start) if starts is None else starts:
        some = rows.start == start
        parts.append(linker.add(start, rows.scores[some], rows.tubes[some]))
    return parts


VARIATIONS = {
    "STEP's": {},
    "everything": {"options": EVERYTHING},
    "class-specific": {"num_boxes": 3, "options": EVERYTHING},
    "one class": {"num_classes": 1, "options": EVERYTHING},
    "stride 2": {"stride": 2, "num_frames": 37, "options": EVERYTHING},
    "stride 3": {"stride": 3, "clip_frames": 7, "num_frames": 42, "options": EVERYTHING},
    "short gap": {"options": {**EVERYTHING, "max_gap": 1}},
    "short gap, stride 2": {"stride": 2, "options": {**EVERYTHING, "max_gap": 1}},
    "ACT's": {"num_boxes": 3, "options": {**EVERYTHING, "global_nms": 0.5, "global_top": 3}},
    "at most 9 frames": {"options": {**EVERYTHING, "max_frames": 9}},
    "many tubelets": {"most": 60, "num_frames": 12, "options": EVERYTHING},
    "short video": {"num_frames": 4, "options": EVERYTHING},
    "all scores": {"num_boxes": 3, "options": {**EVERYTHING, "class_scores": True}},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", VARIATIONS)
def test_equals_the_offline_linker_bit_for_bit(name, seed):
    variation = {"num_frames": 40, **VARIATIONS[name]}
    options = LinkOptions(**variation.pop("options", {}))
    rows = random_rows(seed, **variation)
    num_frames = variation["num_frames"]
    offline = link(rows, sizes={"v": (num_frames, SIDE, SIDE)}, options=options)
    linker = make_linker(rows, options)
    parts = add_all(linker, rows)
    last = linker.finish(num_frames=num_frames)
    assert_identical(sort_tubes(join_tubes([*parts, last])), offline)
    assert last.provenance == offline.provenance
    if options.min_score == 0 and num_frames > 20:
        assert len(offline) > len(last)  # most leave early


def test_a_tube_leaves_with_the_window_that_shows_that_it_has_ended():
    windows = {0: [(0.5, A)], 1: [(0.5, A)], **{s: [(0.25, B)] for s in range(2, 9)}}
    rows = make_rows(windows)
    linker = make_linker(rows, LinkOptions(**EVERYTHING))
    parts = add_all(linker, rows)
    assert [len(part) for part in parts] == [0] * 6 + [1] + [0] * 2  # at frame 1 + K - 1
    assert parts[6].frame.tolist() == list(range(7))
    assert linker.finish().frame.tolist() == list(range(2, 14))


def test_windows_that_are_left_out_count_as_empty():
    """As windows with tubelets elsewhere: the tube ends at its gap, and another begins."""
    options = LinkOptions(**EVERYTHING, max_gap=2)
    rows = make_rows({0: [(0.5, A)], 3: [(0.5, A)], 500: [(0.5, A)]})
    ended = add_all(make_linker(rows, options), rows)
    assert [part.frame.tolist() for part in ended] == [[], list(range(6)), list(range(3, 9))]
    with_empty = make_linker(rows, options)
    parts = add_all(with_empty, rows, starts=range(501))
    assert [int(part.first[0]) for part in parts if len(part)] == [0, 3]
    assert_identical(join_tubes(parts), join_tubes(ended))


def endless(linker, windows, *, lifetime):
    """Feeds windows in which something moves on after `lifetime`; bytes of every fifth state.

    The boxes of a third tubelet match nothing that came before.
    """
    sizes = []
    rng = np.random.default_rng(0)
    for start in range(windows):
        place = [A, B, C][start // lifetime % 3]
        clutter = rng.uniform(0, 100, 2)
        boxes = np.array([place, [0, 100, 19, 119], [*clutter, *clutter + 9]], np.float32) / SIDE
        boxes = np.tile(boxes[:, None, None], (1, 1, 6, 1))
        linker.add(start, np.full((3, 1), 0.5, np.float32), boxes)
        if start % 5 == 0:
            sizes.append(len(pickle.dumps(vars(linker))))
    return sizes


def test_the_state_does_not_grow_with_the_stream():
    linker = make_linker(make_rows({}), LinkOptions(max_frames=30))
    sizes = endless(linker, 300, lifetime=20)
    assert max(sizes[48:]) < 1.1 * max(sizes[12:24])


def test_a_tube_that_never_ends_makes_the_state_grow_by_its_own_tubelets():
    linker = make_linker(make_rows({}))
    sizes = endless(linker, 300, lifetime=20)
    growth = (max(sizes[48:]) - max(sizes[12:24])) / 180
    assert 6 * 4 * 4 < growth < 600  # bytes a window: its tubelet, and what holds it


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": 3}, InputError, "a window at frame 3 after one at 3"),
        ({"scores": np.nan}, InputError, "scores is not finite"),
        ({"boxes": np.nan}, InputError, "tubes is not finite"),
        ({"shape": (1, 1, 5, 4)}, ValueError, r"expected \(1, 1\), \(1, 1, 6, 4\)"),
    ],
    ids=str,
)
def test_bad_windows_are_refused(change, error, message):
    linker = make_linker(make_rows({}))
    scores, boxes = np.full((1, 1), 0.5), np.zeros((1, 1, 6, 4))
    linker.add(3, scores, boxes)
    boxes = np.full(change.get("shape", (1, 1, 6, 4)), change.get("boxes", 0.0))
    with pytest.raises(error, match=message):
        linker.add(change.get("start", 4), scores * change.get("scores", 1), boxes)
