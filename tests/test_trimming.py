"""Trimming against reference numbers, against a loop, and at each rule."""

from dataclasses import replace

import numpy as np
import pytest

from step_jax.errors import InputError
from step_jax.trimming import TrimOptions, trim
from step_jax.tube_table import Tubes


def make_tubes(*frame_scores, first=7, labels=None, class_scores=None):
    """Tubes of two classes, each with these scores of its frames; the box tells the row."""
    lengths = [len(scores) for scores in frame_scores]
    rows = sum(lengths)
    return Tubes(
        classes=("a", "b"),
        videos=("u", "v"),
        video=np.arange(len(lengths), dtype=np.int32) % 2,
        label=np.array(labels or [0] * len(lengths), np.int32),
        score=np.zeros(len(lengths)),
        offset=np.cumsum([0, *lengths]),
        frame=np.concatenate([np.arange(n) for n in lengths] or [[]]).astype(np.int32) + first,
        boxes=np.arange(rows)[:, None] + np.zeros(4, np.float32),
        frame_score=np.concatenate([*frame_scores, []]).astype(np.float32),
        class_scores=class_scores,
    )


def spans(tubes):
    """(first frame, last frame) of each."""
    return list(zip(tubes.first.tolist(), (tubes.first + tubes.length - 1).tolist(), strict=True))


def slow_labels(scores, penalty):
    """Whether each frame is of the class: two-label dynamic programming over lists."""
    paths = [(0.0, []), (0.0, [])]  # value and labels of the best path that ends in 1, in 0
    for score in scores:
        stay = [(paths[i][0], paths[i][1], i) for i in range(2)]
        new = []
        for i, (label, gain) in enumerate(((True, score), (False, 1 - score))):
            other = stay[1 - i][0] - penalty if paths[0][1] else -np.inf
            before = stay[i] if stay[i][0] >= other else (other, stay[1 - i][1], 1 - i)
            new.append((before[0] + gain, [*before[1], label]))
        paths = new
    return paths[0][1] if paths[0][0] >= paths[1][0] else paths[1][1]


def slow_trim(tubes, options):
    """(tube, first row, end, score) of each run."""
    found = []
    for i in range(len(tubes)):
        rows = tubes.tube(i)
        scores = tubes.frame_score[rows].astype(float)
        labels = slow_labels(
            scores / scores.max() if options.normalise else scores, options.penalty
        )
        start = None
        for t, label in enumerate([*labels, False]):
            if label and start is None:
                start = t
            if not label and start is not None:
                best = sorted(scores[start:t], reverse=True)[: options.top_frames]
                if t - start >= options.min_run:
                    found.append((i, rows.start + start, rows.start + t, np.mean(best)))
                start = None
    return found


@pytest.mark.parametrize("name", ["trim0.5", "trim3"])
def test_reference_tubes(data_dir, name):
    """A public dynamic programme on (s, 1 - s), runs with last - first > 8."""
    data = np.load(data_dir / "ucf101_24_tubes.npz")
    length = data["nogn_length"]
    first = np.cumsum(length) - length
    tubes = Tubes(
        classes=tuple(map(str, data["labels"])),
        videos=tuple(map(str, data["videos"])),
        video=data["nogn_video"].astype(np.int32),
        label=data["nogn_label"].astype(np.int32),
        score=data["nogn_score"],
        offset=np.append(first, length.sum()),
        frame=np.arange(length.sum()) + np.repeat(data["nogn_first"] - first, length),
        boxes=data["nogn_rows"][:, :4],
        frame_score=data["nogn_rows"][:, 4],
    )
    trimmed = trim(tubes, TrimOptions(penalty=float(name[4:])))
    order = np.lexsort((trimmed.first, trimmed.label, trimmed.video))
    trimmed = trimmed.take(order)
    expected = np.lexsort([data[f"{name}_{column}"] for column in ("first", "label", "video")])
    for column in ("video", "label", "first", "length"):
        found = getattr(trimmed, column)
        np.testing.assert_array_equal(found, data[f"{name}_{column}"][expected])
    np.testing.assert_allclose(trimmed.score, data[f"{name}_score"][expected], atol=1e-7)
    lengths = data[f"{name}_length"]
    first = np.cumsum(lengths) - lengths
    rows = np.concatenate([first[i] + np.arange(lengths[i]) for i in expected])
    np.testing.assert_array_equal(trimmed.boxes, data[f"{name}_rows"][rows, :4])
    np.testing.assert_array_equal(trimmed.frame_score, data[f"{name}_rows"][rows, 4])


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("penalty", "min_run", "top"), [(0, 1, 3), (0.3, 2, 5), (1.5, 10, 40)])
def test_equals_a_loop(penalty, min_run, top, normalise):
    rng = np.random.default_rng(0)
    walks = [
        np.clip(0.5 + np.cumsum(rng.normal(0, 0.2, n)), 0.05, 0.95) * rng.choice([0.4, 1])
        for n in rng.integers(1, 90, 30)
    ]
    tubes = make_tubes(*walks)
    options = TrimOptions(penalty=penalty, min_run=min_run, top_frames=top, normalise=normalise)
    trimmed, expected = trim(tubes, options), slow_trim(tubes, options)
    assert len(trimmed) == len(expected) > 10
    for i, (source, start, stop, score) in enumerate(expected):
        rows = trimmed.tube(i)
        assert trimmed.video[i] == tubes.video[source]
        assert trimmed.frame[rows].tolist() == tubes.frame[start:stop].tolist()
        assert trimmed.boxes[rows, 0].tolist() == list(range(start, stop))
        assert trimmed.score[i] == pytest.approx(score)


def test_runs_need_ten_frames():
    tubes = make_tubes([*[0.9] * 9, *[0.1] * 9, *[0.9] * 10, *[0.1] * 20])
    assert spans(trim(tubes, TrimOptions(penalty=1))) == [(25, 34)]
    assert spans(trim(tubes, TrimOptions(penalty=1, min_run=9))) == [(7, 15), (25, 34)]
    assert spans(trim(tubes, TrimOptions(penalty=100))) == []


def test_runs_of_neighbouring_tubes_stay_apart():
    tubes = make_tubes([0.9] * 12, [0.8] * 11, [0.1] * 30, [0.7] * 10)
    trimmed = trim(tubes, TrimOptions(penalty=1))
    assert spans(trimmed) == [(7, 18), (7, 17), (7, 16)]
    assert trimmed.video.tolist() == [0, 1, 1]
    assert trimmed.score == pytest.approx([0.9, 0.8, 0.7])


def test_the_score_is_the_mean_of_the_best_forty():
    scores = np.tile([0.6, 0.9], 30)
    (score,) = trim(make_tubes(scores), TrimOptions(penalty=1)).score
    assert score == pytest.approx((30 * 0.9 + 10 * 0.6) / 40)
    (score,) = trim(make_tubes(scores), TrimOptions(penalty=1, top_frames=30)).score
    assert score == pytest.approx(0.9)
    (score,) = trim(make_tubes(scores[:20]), TrimOptions(penalty=1)).score
    assert score == pytest.approx(0.75)


def test_low_scores_survive_normalisation_and_remain_the_score():
    tubes = make_tubes([*[0.4] * 20, *[0.05] * 20], [0.0] * 20)
    assert spans(trim(tubes, TrimOptions(penalty=1))) == []
    trimmed = trim(tubes, TrimOptions(penalty=1, normalise=True))
    assert spans(trimmed) == [(7, 26)]
    assert trimmed.score == pytest.approx([0.4])


def test_all_classes_compete_in_the_multi_label_form():
    """The tube's class is low everywhere, but from frame 15 on the highest."""
    class_scores = np.float32([*[[0.2, 0.4]] * 15, *[[0.3, 0.1]] * 15])
    tubes = make_tubes(class_scores[:, 0], class_scores=class_scores)
    options = TrimOptions(penalty=1, multi_label=True)
    assert spans(trim(tubes, options)) == [(22, 36)]
    assert trim(tubes, options).class_scores.tolist() == class_scores[15:].tolist()
    assert spans(trim(tubes, TrimOptions(penalty=1))) == []
    other = replace(tubes, label=np.ones(1, np.int32), frame_score=class_scores[:, 1])
    assert spans(trim(other, options)) == [(7, 21)]
    equal = make_tubes([0.3] * 12, class_scores=np.full((12, 2), 0.3, np.float32), labels=[1])
    assert spans(trim(equal, options)) == [(7, 18)]  # its own class comes first
    with pytest.raises(InputError, match="link with class_scores"):
        trim(replace(tubes, class_scores=None), options)


def test_nothing_to_trim():
    for options in (TrimOptions(penalty=1), TrimOptions(penalty=0, normalise=True)):
        assert len(trim(make_tubes(), options)) == 0
    nothing = trim(make_tubes([0.1] * 30), TrimOptions(penalty=1))
    assert (len(nothing), nothing.boxes.shape, nothing.offset.tolist()) == (0, (0, 4), [0])


def test_the_provenance_tells_the_constants():
    trimmed = trim(replace(make_tubes([0.9]), provenance={"x": "y"}), TrimOptions(penalty=2))
    assert trimmed.provenance["x"] == "y"
    assert trimmed.provenance["trim.penalty"] == "2"


@pytest.mark.parametrize(
    "options",
    [{"penalty": -1}, {"penalty": np.nan}, {"penalty": np.inf}, {"min_run": 0}, {"top_frames": 0}],
    ids=str,
)
def test_constants_that_mean_nothing_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} is"):
        TrimOptions(**{"penalty": 1} | options)
