"""AVA's CSV files: annotations, detections, and lists of keyframes.

No file has a header. A row is one label of one box: `video, timestamp, x1, y1, x2, y2, action_id`
and then a person's id (annotations) or a score (detections), or nothing. The timestamp is in whole
seconds of the full movie, with or without zeros before it; boxes are shares of the frame. Rows of
one keyframe need not be adjacent. Annotations may hold rows `video, timestamp`, a keyframe without
people; lists of keyframes, such as the excluded ones, hold only such rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from pyarrow import csv

from step_jax.annotations.csv_rows import Column, Rows, read_rows
from step_jax.errors import InputError
from step_jax.replacing import replacing

FIRST_KEYFRAME, LAST_KEYFRAME = 902, 1798  # seconds of the movie
NUM_ACTIONS = 80  # ids from 1
LAST_SECOND = 99_999  # of a movie of 27 hours: what is later cannot be a timestamp
NO_PERSON = -1

_KEYFRAME = (Column("video", "text"), Column("timestamp", "whole"))
_BOX = tuple(Column(name, "real") for name in ("x1", "y1", "x2", "y2"))
_BOX_ROW = (*_KEYFRAME, *_BOX, Column("action_id", "whole"))
_LABEL_LAYOUTS = {
    2: _KEYFRAME,
    7: _BOX_ROW,
    8: (*_BOX_ROW, Column("person_id", "whole")),
}
_DETECTION_LAYOUTS = {7: _BOX_ROW, 8: (*_BOX_ROW, Column("score", "real"))}


@dataclass(frozen=True, eq=False)
class Keyframes:
    """A list of N keyframes; the arrays of all classes here are columns, one item a row.

    videos: names, sorted, each once; may hold some without a row.
    video: int32 [N] index into `videos`.
    timestamp: int32 [N], seconds.
    """

    videos: tuple[str, ...]
    video: np.ndarray
    timestamp: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def take(self, rows: np.ndarray | slice):
        """The rows at an index array, under a mask or of a slice."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays = {name: c[rows] for name, c in columns.items() if isinstance(c, np.ndarray)}
        return replace(self, **arrays)


@dataclass(frozen=True, eq=False)
class AvaLabels(Keyframes):
    """Annotations, N rows.

    boxes: float64 [N, 4], x1 y1 x2 y2 in [0, 1].
    action_id: int16 [N], 1 to 80.
    person_id: int32 [N]; NO_PERSON in a row of 7 columns.
    empty: the rows of 2 columns, keyframes without people; the same `videos`.
    """

    boxes: np.ndarray
    action_id: np.ndarray
    person_id: np.ndarray
    empty: Keyframes


@dataclass(frozen=True, eq=False)
class AvaDetections(Keyframes):
    """Detections, N rows.

    boxes: float64 or float32 [N, 4], x1 y1 x2 y2; may reach out of the frame.
    action_id: int16 [N], 1 to 80.
    score: float64 or float32 [N].
    """

    boxes: np.ndarray
    action_id: np.ndarray
    score: np.ndarray


def read_labels(path: str | os.PathLike) -> AvaLabels:
    """Reads annotations, rows in the file's order.

    Raises InputError with file and line for a row of another number of columns than 8, 7 or 2, a
    value that is no number, a fractional or impossible timestamp or action, a box outside [0, 1].
    """
    kinds = read_rows(path, _LABEL_LAYOUTS)
    bare, unnamed, named = kinds[2], kinds[7], kinds[8]
    for rows in kinds.values():
        _check_timestamps(rows, FIRST_KEYFRAME, LAST_KEYFRAME)
    for rows in (unnamed, named):
        _check_actions(rows)
        _check_boxes(rows, 0, 1, "a share of the frame in [0, 1]")
    person = named.values["person_id"]
    outside = (person < 0) | (person > np.iinfo(np.int32).max)
    named.check("person_id", outside, "a number that an int32 holds, not negative")
    unnamed.values["person_id"] = np.full(len(unnamed), NO_PERSON)
    videos = _common_videos(kinds.values())
    return AvaLabels(
        videos=videos,
        **_box_columns([unnamed, named]),
        person_id=_joined([unnamed, named], "person_id").astype(np.int32),
        empty=Keyframes(videos, **_keyframe_columns([bare])),
    )


def read_keyframes(path: str | os.PathLike) -> Keyframes:
    """Reads a list of keyframes, such as the excluded ones. Raises InputError as `read_labels`."""
    rows = read_rows(path, {2: _KEYFRAME})[2]
    _check_timestamps(rows, FIRST_KEYFRAME, LAST_KEYFRAME)
    return Keyframes(_common_videos([rows]), **_keyframe_columns([rows]))


def read_detections_csv(path: str | os.PathLike) -> AvaDetections:
    """Reads detections, rows in the file's order; one of 7 columns has score 1.

    Boxes may reach out of the frame, timestamps out of those of the keyframes. Raises InputError
    with file and line for a row of another number of columns, a value that is no number, a
    fractional timestamp or action, and for what can be neither: pixels, an unknown action.
    """
    kinds = read_rows(path, _DETECTION_LAYOUTS)
    blocks = [kinds[7], kinds[8]]
    for rows in blocks:
        check_detections(rows)
    kinds[7].values["score"] = np.ones(len(kinds[7]))
    videos = _common_videos(blocks)
    return AvaDetections(videos, **_box_columns(blocks), score=_joined(blocks, "score"))


def write_detections_csv(path: str | os.PathLike, detections: AvaDetections) -> None:
    """Writes the official form: 8 columns, no header, timestamps of 4 digits.

    Numbers have as many digits as tell them from their neighbours, so reading gives them back.
    Raises InputError for a video's name that such a file cannot hold.
    """
    for name in detections.videos:
        if any(character in name for character in ',"\r\n') or not name:
            raise InputError(f"video {name!r}: no name for a CSV file; expected no comma or quote")
    seconds = pa.array([f"{second:04d}" for second in range(LAST_SECOND + 1)])
    columns = {
        "video": pa.array(detections.videos, pa.string()).take(pa.array(detections.video)),
        "timestamp": seconds.take(pa.array(detections.timestamp)),
        **{c.name: pa.array(x) for c, x in zip(_BOX, detections.boxes.T.copy(), strict=True)},
        "action_id": pa.array(detections.action_id),
        "score": pa.array(detections.score),
    }
    options = csv.WriteOptions(include_header=False, quoting_style="none")
    with replacing(path) as temporary:
        csv.write_csv(pa.table(columns), temporary, options)


def check_detections(rows: Rows) -> None:
    """Raises InputError for a row that no detector of AVA's actions can have found."""
    _check_timestamps(rows, 0, LAST_SECOND)
    _check_actions(rows)
    _check_boxes(rows, -1, 2, "a share of the frame, not pixels")


# --- rows -----------------------------------------------------------------------------------------


def _check_timestamps(rows: Rows, first: int, last: int) -> None:
    timestamp = rows.values["timestamp"]
    outside = (timestamp < first) | (timestamp > last)
    rows.check("timestamp", outside, f"a second of the movie from {first} to {last}")


def _check_actions(rows: Rows) -> None:
    action = rows.values["action_id"]
    known = f"an id from 1 to {NUM_ACTIONS} (ids, not indices from 0)"
    rows.check("action_id", (action < 1) | (action > NUM_ACTIONS), known)


def _check_boxes(rows: Rows, low: float, high: float, expected: str) -> None:
    for column in _BOX:
        values = rows.values[column.name]
        rows.check(column.name, (values < low) | (values > high), expected)


def _common_videos(blocks: Sequence[Rows]) -> tuple[str, ...]:
    """The names of all, sorted; the blocks' column `video` becomes indices into them."""
    names = sorted({name for rows in blocks for name in rows.texts["video"]})
    index = {name: i for i, name in enumerate(names)}
    for rows in blocks:
        ours = np.array([index[name] for name in rows.texts["video"]], np.int32)
        rows.values["video"] = ours[rows.values["video"]]
    return tuple(names)


def _keyframe_columns(blocks: Sequence[Rows]) -> dict[str, np.ndarray]:
    return {name: _joined(blocks, name).astype(np.int32) for name in ("video", "timestamp")}


def _box_columns(blocks: Sequence[Rows]) -> dict[str, np.ndarray]:
    return {
        **_keyframe_columns(blocks),
        "boxes": np.stack([_joined(blocks, column.name) for column in _BOX], axis=-1),
        "action_id": _joined(blocks, "action_id").astype(np.int16),
    }


def _joined(blocks: Sequence[Rows], name: str) -> np.ndarray:
    """A column of all blocks, in the file's order."""
    blocks = [rows for rows in blocks if len(rows)] or blocks[:1]
    values = np.concatenate([rows.values[name] for rows in blocks])
    if len(blocks) == 1:
        return values
    return values[np.argsort(np.concatenate([rows.line for rows in blocks]), kind="stable")]
