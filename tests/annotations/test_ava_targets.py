"""Targets of AVA's keyframes against loops over dictionaries."""

import time

import numpy as np
import pytest

from step_jax.annotations.ava_csv import NO_PERSON, AvaLabels, Keyframes, read_labels
from step_jax.annotations.ava_labels import LabelMap
from step_jax.annotations.ava_targets import (
    labelled_keyframes,
    people_of,
    rows_of_keyframes,
)
from step_jax.errors import InputError

LABEL_MAP = LabelMap(ids=(3, 12, 79), names=("a", "b", "c"), kinds=("pose",) * 3)


def read(folder, text):
    path = folder / "labels.csv"
    path.write_text(text)
    return read_labels(path)


def random_labels(seed, rows=400):
    """Few videos, seconds and people: much is repeated, much is adjacent, some rows disagree."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 5, (rows, 2)) / 10
    seconds = rng.choice([902, 903, 904, 905, 1000, 1001, 1797, 1798], rows)
    return AvaLabels(
        videos=("u", "v", "w"),
        video=rng.integers(0, 3, rows).astype(np.int32),
        timestamp=seconds.astype(np.int32),
        boxes=np.concatenate([corner, corner + rng.integers(0, 3, (rows, 2)) / 10], axis=1),
        action_id=rng.choice([1, 3, 12, 13, 79, 80], rows).astype(np.int16),
        person_id=rng.integers(0, 4, rows).astype(np.int32),
        empty=Keyframes(("u", "v", "w"), np.zeros(0, np.int32), np.zeros(0, np.int32)),
    )


def by_loops(labels):
    """{(video, second, person): (box, classes)}, and in how many rows the box was another."""
    found, others = {}, 0
    for video, second, person, box, action in zip(
        labels.video, labels.timestamp, labels.person_id, labels.boxes, labels.action_id,
        strict=True,
    ):  # fmt: skip
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        key = labels.videos[video], int(second), int(person)
        first, classes = found.setdefault(key, (tuple(box), set()))
        others += first != tuple(box)
        if action in LABEL_MAP.ids:
            classes.add(LABEL_MAP.ids.index(action))
    return found, others


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_loops(seed):
    labels = random_labels(seed)
    expected, others = by_loops(labels)
    people = people_of(labels, LABEL_MAP)
    assert others
    assert people.remarks["rows with another box than the person's first"] == others
    keys = [
        (people.videos[v], int(t), int(p))
        for v, t, p in zip(people.video, people.timestamp, people.person_id, strict=True)
    ]
    assert keys == sorted(expected)
    boxes, there, multi_hot = people.targets(np.arange(len(people)))
    for key, box, known, classes in zip(keys, boxes, there, multi_hot, strict=True):
        video, second, person = key
        assert set(np.flatnonzero(classes)) == expected[key][1]
        for place, t in enumerate((second - 1, second, second + 1)):
            neighbour = expected.get((video, t, person))
            assert known[place] == (neighbour is not None)
            wanted = np.zeros(4) if neighbour is None else neighbour[0]
            np.testing.assert_array_equal(box[place], np.float32(wanted))
    for rows, offset in ((people.before, -1), (people.after, 1)):
        for key, row in zip(keys, rows, strict=True):
            neighbour = key[0], key[1] + offset, key[2]
            assert (keys[row] if row >= 0 else None) == (neighbour if neighbour in keys else None)


@pytest.mark.parametrize("seed", range(3))
def test_keyframes_that_train(seed):
    labels = random_labels(seed, rows=30)
    labels.person_id[:] = 0
    expected, _ = by_loops(labels)
    people = people_of(labels, LABEL_MAP)
    # One that has people, one that has none, one of another video; the list has its own order.
    excluded = Keyframes(("v", "x", "w"), np.array([0, 0, 1, 2]), np.array([902, 950, 902, 1798]))
    found = labelled_keyframes(people, excluded)
    wanted = {(video, second) for video, second, _ in expected} - {("v", 902), ("w", 1798)}
    assert [(found.videos[v], t) for v, t in zip(found.video, found.timestamp, strict=True)] == (
        sorted(wanted)
    )
    assert len(labelled_keyframes(people)) == len({key[:2] for key in expected})
    first, count = rows_of_keyframes(people, found)
    for video, second, start, n in zip(found.video, found.timestamp, first, count, strict=True):
        rows = np.flatnonzero((people.video == video) & (people.timestamp == second))
        assert list(range(start, start + n)) == rows.tolist()
    nobody = Keyframes(people.videos, np.array([0]), np.array([950]))
    assert rows_of_keyframes(people, nobody)[1].tolist() == [0]


ROWS = """\
v,0902,.1,.1,.2,.2,12,5
v,902,.1,.1,.2,.2,3,5
v,902,.1,.1,.2,.2,3,5
v,0903,.3,.3,.4,.4,13,5
v,0905,.3,.3,.4,.4,12,5
w,0904,.3,.3,.4,.4,12,5
v,1000
"""


def test_by_hand(tmp_path):
    """Repeated rows count once; classes outside the map leave a person without any; a gap, another
    video and a keyframe without people give no neighbour."""
    people = people_of(read(tmp_path, ROWS), LABEL_MAP)
    assert people.timestamp.tolist() == [902, 903, 905, 904]
    assert people.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert people.before.tolist() == [-1, 0, -1, -1]
    assert people.after.tolist() == [1, -1, -1, -1]
    assert people.remarks["people of no class that counts"] == 1
    assert len(labelled_keyframes(people)) == 4  # that of the unlisted class trains too


def test_nothing_at_all(tmp_path):
    people = people_of(read(tmp_path, ""), LABEL_MAP)
    assert len(people) == 0
    assert len(labelled_keyframes(people)) == 0
    assert people.targets(np.arange(len(people)))[0].shape == (0, 3, 4)


def test_rows_without_a_person(tmp_path):
    labels = read(tmp_path, "v,0902,0,0,1,1,12,3\nv,0903,0,0,1,1,12\n")
    with pytest.raises(InputError, match=r"1 of 2 rows have no person id.*'v' at 903 s.*8 columns"):
        people_of(labels, LABEL_MAP)


def test_size_of_the_real_thing():
    """1.6 million rows: seconds, not minutes."""
    rows, videos = 1_600_000, tuple(f"video{i}" for i in range(299))
    rng = np.random.default_rng(0)
    person = np.sort(rng.integers(0, 600_000, rows))
    labels = AvaLabels(
        videos=videos,
        video=(person // 2010).astype(np.int32),
        timestamp=(902 + person % 897).astype(np.int32),
        boxes=np.tile([0.1, 0.2, 0.5, 0.9], (rows, 1)),
        action_id=rng.integers(1, 81, rows).astype(np.int16),
        person_id=(person // 897 % 3).astype(np.int32),
        empty=Keyframes(videos, np.zeros(0, np.int32), np.zeros(0, np.int32)),
    )
    start = time.process_time()
    people = people_of(labels, LABEL_MAP)
    labelled_keyframes(people)
    assert len(people) > 300_000
    assert (people.person_id != NO_PERSON).all()
    assert time.process_time() - start < 10
