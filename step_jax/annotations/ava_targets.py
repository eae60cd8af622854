"""What a detector of AVA's actions learns: who is where on a keyframe, and does what.

AVA annotates one frame a second. A person of keyframe T is looked up again, by the person's id, a
second before and a second after; who is not annotated there has no box there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from step_jax.annotations.ava_csv import NO_PERSON, AvaLabels, Keyframes
from step_jax.annotations.ava_labels import LabelMap
from step_jax.errors import InputError

ABSENT = -1
_PERSON_BITS = 31  # ids are an int32's
_SECOND_BITS = 11  # keyframes end at 1798


@dataclass(frozen=True, eq=False)
class People(Keyframes):
    """The people of all keyframes, N rows, sorted by video, timestamp and person.

    person_id: int32 [N], each once in its keyframe.
    boxes: float32 [N, 4], x1 y1 x2 y2 as shares of the frame.
    labels: bool [N, C], the classes of the label map; none of them for a person whose actions are
      all outside it.
    before, after: int32 [N], the row of the same person a second earlier and later, or ABSENT.
    remarks: what became of the annotations' rows, by reason.
    """

    person_id: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    remarks: dict[str, int]

    def targets(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the people at an index array [n]: boxes float32 [n, 3, 4] at T - 1, T, T + 1, 0 where
        there is none; which of them there are, bool [n, 3]; and the labels at T, bool [n, C]."""
        at = np.stack([self.before[rows], rows, self.after[rows]], axis=1)
        there = at != ABSENT
        return np.where(there[..., None], self.boxes[at], 0), there, self.labels[rows]


def people_of(labels: AvaLabels, label_map: LabelMap) -> People:
    """Joins the rows of each person of a keyframe: one box and the classes of all of them.

    Where rows of one person of a keyframe have different boxes the first in the file counts; rows
    of a box without area are left out. Both are counted in the remarks.

    Raises InputError for rows without a person's id: nobody can be followed by them.
    """
    _check_named(labels)
    has_area = (labels.boxes[:, :2] < labels.boxes[:, 2:]).all(axis=1)
    rows = labels if has_area.all() else labels.take(has_area)
    keys = _keys(rows.video, rows.timestamp, rows.person_id)
    keys, first, person = np.unique(keys, return_index=True, return_inverse=True)
    classes = label_map.classes(rows.action_id)
    multi_hot = np.zeros((len(keys), len(label_map)), bool)
    multi_hot[person[classes >= 0], classes[classes >= 0]] = True
    other_box = (rows.boxes != rows.boxes[first][person]).any(axis=1)
    return People(
        videos=labels.videos,
        video=rows.video[first],
        timestamp=rows.timestamp[first],
        person_id=rows.person_id[first],
        boxes=rows.boxes[first].astype(np.float32),
        labels=multi_hot,
        before=_rows_of(keys, keys - (1 << _PERSON_BITS)),
        after=_rows_of(keys, keys + (1 << _PERSON_BITS)),
        remarks={
            "rows": len(labels),
            "rows of boxes without area, left out": int(np.count_nonzero(~has_area)),
            "rows with another box than the person's first": int(np.count_nonzero(other_box)),
            "people": len(keys),
            "people of no class that counts": int(np.count_nonzero(~multi_hot.any(axis=1))),
        },
    )


def labelled_keyframes(people: People, exclusions: Keyframes | None = None) -> Keyframes:
    """The keyframes with at least one person that are not excluded, by video and timestamp."""
    keys = np.unique(_keys(people.video, people.timestamp))
    if exclusions is not None and len(exclusions):
        index = {name: number for number, name in enumerate(people.videos)}
        ours = np.array([index.get(name, ABSENT) for name in exclusions.videos])[exclusions.video]
        excluded = _keys(ours[ours >= 0], exclusions.timestamp[ours >= 0])
        keys = np.setdiff1d(keys, excluded, assume_unique=False)
    video, timestamp = np.divmod(keys, 1 << _SECOND_BITS)
    return Keyframes(people.videos, video.astype(np.int32), timestamp.astype(np.int32))


def rows_of_keyframes(people: People, keyframes: Keyframes) -> tuple[np.ndarray, np.ndarray]:
    """Which people are of each of Q keyframes, of the same `videos`: the rows [first, first + n).

    Returns first and n, int64 [Q]; n is 0 where there is nobody.
    """
    keys = _keys(people.video, people.timestamp)
    wanted = _keys(keyframes.video, keyframes.timestamp)
    first, stop = (np.searchsorted(keys, wanted, side=side) for side in ("left", "right"))
    return first, stop - first


def _check_named(labels: AvaLabels) -> None:
    unnamed = np.flatnonzero(labels.person_id == NO_PERSON)
    if len(unnamed):
        row = unnamed[0]
        raise InputError(
            f"{len(unnamed):,} of {len(labels):,} rows have no person id, first that of video "
            f"{labels.videos[labels.video[row]]!r} at {labels.timestamp[row]} s: 7 columns do for "
            "the metric alone; expected 8 columns, the last one the person's id"
        )


def _keys(video: np.ndarray, timestamp: np.ndarray, person: np.ndarray | None = None) -> np.ndarray:
    """int64 [N], ascending by video, timestamp and, if given, person."""
    keys = (video.astype(np.int64) << _SECOND_BITS) + timestamp
    return keys if person is None else (keys << _PERSON_BITS) + person


def _rows_of(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where in sorted, unique keys the wanted ones are, int32; ABSENT for those that are not."""
    if not len(keys):
        return np.zeros(0, np.int32)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, ABSENT).astype(np.int32)
