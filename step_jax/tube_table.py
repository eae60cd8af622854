"""The table of tubes: what linking makes of tubelets, in memory and as one Parquet file.

One row is one frame of one tube. Boxes are in pixels of the annotation's frame, where the
detections tables hold shares of its sides: a tube is compared with ground truth, and in pixels is
how benchmarks compare. The file's metadata hold the classes and a free `provenance` (what the tubes
were linked from, with which constants).
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from step_jax import table_header
from step_jax.errors import InputError
from step_jax.row_groups import RowGroupWriter

FORMAT = "step_jax.tubes"
VERSION = 1

_CLASS_SCORES = "class_scores"
_ROW_COLUMNS = ("frame", "boxes", "frame_score", "class_scores")
_TABLE, _MADE_BY = "a table of tubes", "step_jax.metrics.ucf101_24.link"

SCHEMA = pa.schema(
    [
        ("video", pa.dictionary(pa.int32(), pa.string())),
        ("tube", pa.int32()),  # 0, 1, 2, ... in the file's order
        ("class", pa.int16()),  # 0-based, without the background
        ("tube_score", pa.float64()),
        ("frame", pa.int32()),  # 0-based
        ("score", pa.float32()),  # of the frame
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
    ]
)
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
ROW_GROUP_ROWS = 2**20


@dataclass(frozen=True)
class TubeHeader:
    """What a table says about itself: the classes and a free provenance."""

    classes: tuple[str, ...]
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Tubes:
    """N tubes of R rows together, the rows of tube i at `offset[i]` to `offset[i + 1]`.

    classes: the action classes, which `label` counts from 0.
    videos: names of the videos; may hold some without a tube.
    video: int32 [N] index into `videos`; label: int32 [N]; score: float64 [N].
    offset: int64 [N + 1], from 0 to R.
    frame: int32 [R], 0-based, one after the other within a tube, without gaps.
    boxes: float32 [R, 4], pixels of the annotation's frame; frame_score: float32 [R].
    provenance: texts that say what made the tubes; nothing here reads them.
    class_scores: float32 [R, C], the scores of all classes in each frame, or None.
    """

    classes: tuple[str, ...]
    videos: tuple[str, ...]
    video: np.ndarray
    label: np.ndarray
    score: np.ndarray
    offset: np.ndarray
    frame: np.ndarray
    boxes: np.ndarray
    frame_score: np.ndarray
    provenance: dict[str, str] = field(default_factory=dict)
    class_scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.score)

    def tube(self, index: int) -> slice:
        """Where the rows of a tube are."""
        return slice(int(self.offset[index]), int(self.offset[index + 1]))

    @property
    def length(self) -> np.ndarray:
        """int64 [N], frames."""
        return np.diff(self.offset)

    @property
    def first(self) -> np.ndarray:
        """int32 [N], the first frame."""
        return self.frame[self.offset[:-1]]

    @property
    def row_tube(self) -> np.ndarray:
        """int64 [R], whose row it is."""
        return np.repeat(np.arange(len(self)), self.length)

    def take(self, indices: np.ndarray | slice) -> Tubes:
        """The tubes at an index array, under a mask or of a slice, in that order."""
        length = self.length[indices]
        offset = np.concatenate([[0], np.cumsum(length)])
        rows = np.repeat(self.offset[:-1][indices] - offset[:-1], length) + np.arange(offset[-1])
        return replace(
            self.take_rows(rows),
            **{name: getattr(self, name)[indices] for name in ("video", "label", "score")},
            offset=offset,
        )

    def take_rows(self, rows: np.ndarray) -> Tubes:
        """With these rows; those who ask say what tubes they make."""
        columns = {name: getattr(self, name) for name in _ROW_COLUMNS}
        return replace(self, **{n: None if c is None else c[rows] for n, c in columns.items()})


def no_tubes(classes: Sequence[str], videos: Sequence[str] = ()) -> Tubes:
    """Tubes of which there are none."""
    return Tubes(
        classes=tuple(classes),
        videos=tuple(videos),
        video=np.zeros(0, np.int32),
        label=np.zeros(0, np.int32),
        score=np.zeros(0, np.float64),
        offset=np.zeros(1, np.int64),
        frame=np.zeros(0, np.int32),
        boxes=np.zeros((0, 4), np.float32),
        frame_score=np.zeros(0, np.float32),
    )


def join_tubes(parts: Sequence[Tubes]) -> Tubes:
    """The tubes of several parts, one part after the other; classes and provenance of the first.

    Videos are known by their names. Raises InputError where there is no part, and where a part has
    other classes.
    """
    if not parts:
        raise InputError("no tubes to join; expected those of one video or more")
    index: dict[str, int] = {}
    for part in parts:
        if part.classes != parts[0].classes:
            raise InputError(f"tubes of classes {part.classes} beside some of {parts[0].classes}")
        for name in part.videos:
            index.setdefault(name, len(index))
    names = [np.array([index[name] for name in part.videos], np.int32) for part in parts]
    columns = ["label", "score", "frame", "boxes", "frame_score"]
    if any(part.class_scores is not None for part in parts):
        parts = [_with_class_scores(part) for part in parts]
        columns.append("class_scores")
    length = np.concatenate([part.length for part in parts])
    return replace(
        parts[0],
        videos=tuple(index),
        video=np.concatenate([own[p.video] for own, p in zip(names, parts, strict=True)]),
        offset=np.concatenate([[0], np.cumsum(length)]),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
    )


def _with_class_scores(tubes: Tubes) -> Tubes:
    """The same tubes; with the column of all classes' scores if there are none."""
    if tubes.class_scores is None and len(tubes):
        raise InputError("tubes with the scores of all classes beside some without; link again")
    if tubes.class_scores is None:
        return replace(tubes, class_scores=np.zeros((0, len(tubes.classes)), np.float32))
    return tubes


def sort_tubes(tubes: Tubes) -> Tubes:
    """The same tubes in an order that depends on nothing else.

    By video, class, first frame, then the higher score in it, then the box in it, then the length.
    Linking begins the tubes of a window in descending score, so this is the order in which a
    class's tubes began, except where scores are equal.
    """
    first = tubes.offset[:-1]
    x1, y1, x2, y2 = tubes.boxes[first].T
    keys = (tubes.length, y2, x2, y1, x1, -tubes.frame_score[first], tubes.first)
    return tubes.take(np.lexsort((*keys, tubes.label, tubes.video)))


class TubeWriter(RowGroupWriter):
    """Writes a table piece by piece: `with TubeWriter(...) as writer: writer.append(tubes)`.

    Memory is bounded by one row group. The file appears under its name when the block ends without
    an error, and not at all otherwise.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        classes: Sequence[str],
        provenance: dict[str, str] | None = None,
        class_scores: bool = False,
        row_group_rows: int = ROW_GROUP_ROWS,
    ):
        self.header = TubeHeader(tuple(classes), dict(provenance or {}))
        super().__init__(
            path,
            _schema(self.header, class_scores=class_scores),
            row_group_rows=row_group_rows,
            most_rows=2 * row_group_rows,  # of whole tubes
            dictionaries=["video", "tube", "tube_score"],
        )
        self._class_scores = class_scores
        self.num_tubes = 0

    def append(self, tubes: Tubes):
        """Adds tubes. Raises InputError for what `read_tubes` would refuse."""
        if tubes.classes != self.header.classes:
            raise InputError(
                f"{self.path}: tubes of classes {tubes.classes}; not {self.header.classes}"
            )
        if self._class_scores:
            tubes = _with_class_scores(tubes)
        for rows in _pieces(tubes.offset, self._row_group_rows):
            self._append(tubes.take(rows))

    def _append(self, tubes: Tubes):
        batch = _record_batch(tubes, self._schema, first_tube=self.num_tubes)
        _check_tubes(tubes, where=self.path)
        self.num_tubes += len(tubes)
        self._add(batch)


def write_tubes(path: str | os.PathLike, tubes: Tubes):
    """Writes tubes that are in memory. Raises InputError as `TubeWriter.append`."""
    with TubeWriter(
        path,
        classes=tubes.classes,
        provenance=tubes.provenance,
        class_scores=tubes.class_scores is not None,
    ) as writer:
        writer.append(tubes)


def read_tubes(path: str | os.PathLike) -> Tubes:
    """Reads a table. Its tubes are in the file's order.

    Raises InputError for a file that is no table of tubes or of another version, for values that
    mean nothing (not finite, a class out of range, a negative frame), for a tube whose rows are
    apart, have gaps or differ in video, class or score, and for rows that occur twice.
    """
    path = pathlib.Path(path)
    header, schema = _read_header(path)
    try:
        table = pq.read_table(path, columns=schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table of tubes: {error}") from error
    table_header.check_no_nulls(table, schema.names, path=path)
    table = table.unify_dictionaries().combine_chunks()
    columns = {name: _one_chunk(table[name]) for name in schema.names}
    video, class_scores = columns.pop("video"), columns.pop(_CLASS_SCORES, None)
    columns = {name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()}
    columns["video"] = video.indices.to_numpy()
    offset = _tube_offsets(columns, where=path)
    tubes = Tubes(
        classes=header.classes,
        videos=tuple(video.dictionary.to_pylist()),
        video=columns["video"][offset[:-1]],
        label=columns["class"][offset[:-1]].astype(np.int32),
        score=columns["tube_score"][offset[:-1]],
        offset=offset,
        frame=columns["frame"],
        boxes=np.stack([columns[name] for name in BOX_COLUMNS], axis=-1),
        frame_score=columns["score"],
        provenance=header.provenance,
        class_scores=None if class_scores is None else _matrix(class_scores),
    )
    _check_tubes(tubes, where=path)
    return tubes


# --- the file -------------------------------------------------------------------------------------


def _schema(header: TubeHeader, *, class_scores: bool) -> pa.Schema:
    """The columns, with or without the scores of all classes in each frame."""
    metadata = table_header.to_metadata(header, format=FORMAT, version=VERSION)
    schema = SCHEMA.with_metadata(metadata)
    if not class_scores:
        return schema
    return schema.append(pa.field(_CLASS_SCORES, pa.list_(pa.float32(), len(header.classes))))


def _read_header(path: pathlib.Path) -> tuple[TubeHeader, pa.Schema]:
    """What the table says about itself, and its columns, which are checked."""
    schema = table_header.read_schema(path, table=_TABLE)
    header = table_header.from_metadata(
        TubeHeader,
        schema.metadata,
        path=path,
        format=FORMAT,
        version=VERSION,
        table=_TABLE,
        made_by=_MADE_BY,
    )
    expected = _schema(header, class_scores=_CLASS_SCORES in schema.names)
    table_header.check_columns(schema, expected, path=path)
    return header, expected


def _record_batch(tubes: Tubes, schema: pa.Schema, *, first_tube: int) -> pa.RecordBatch:
    tube = tubes.row_tube
    used, video = np.unique(tubes.video, return_inverse=True)
    names = pa.array([tubes.videos[i] for i in used], pa.string())
    indices = pa.array(video.astype(np.int32)[tube])
    columns = {
        "tube": tube + first_tube,
        "class": tubes.label[tube],
        "tube_score": tubes.score[tube],
        "frame": tubes.frame,
        "score": tubes.frame_score,
        **dict(zip(BOX_COLUMNS, tubes.boxes.T, strict=True)),
    }
    types = {column.name: column.type for column in SCHEMA}
    arrays = [pa.array(column, types[name]) for name, column in columns.items()]
    if _CLASS_SCORES in schema.names:
        values = pa.array(np.ascontiguousarray(tubes.class_scores, np.float32).reshape(-1))
        arrays.append(pa.FixedSizeListArray.from_arrays(values, len(tubes.classes)))
    video = pa.DictionaryArray.from_arrays(indices, names)
    return pa.record_batch([video, *arrays], schema=schema)


def _matrix(column: pa.FixedSizeListArray) -> np.ndarray:
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def _pieces(offset: np.ndarray, rows: int) -> Iterable[slice]:
    """Runs of whole tubes of about so many rows each."""
    piece = offset[:-1] // rows
    starts = np.flatnonzero(np.diff(piece, prepend=-1))
    stops = np.append(starts, len(piece))[1:]
    for start, stop in zip(starts, stops, strict=True):
        yield slice(start, stop)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _tube_offsets(columns: dict[str, np.ndarray], *, where) -> np.ndarray:
    """Where the tubes begin, and the number of rows. Raises InputError for broken ones."""
    tube = columns["tube"]
    begins = np.diff(tube, prepend=-1) != 0
    starts = np.flatnonzero(begins)
    wrong = np.flatnonzero(tube[starts] != np.arange(len(starts)))
    if len(wrong):
        row = starts[wrong[0]]
        raise InputError(
            f"{where}: row {row} is of tube {tube[row]}; expected tube {wrong[0]}: tubes come in "
            "order, each in one piece (was a file joined to itself?)"
        )
    for name in ("video", "class", "tube_score"):
        values = columns[name]
        bad = np.flatnonzero(~begins[1:] & (values[1:] != values[:-1]))
        if len(bad):
            raise InputError(
                f"{where}: row {bad[0] + 1}: the {name} changes within tube {tube[bad[0]]}"
            )
    return np.append(starts, len(tube))


def _check_tubes(tubes: Tubes, *, where):
    row_tube = tubes.row_tube
    _check_none(tubes.length < 1, tubes, "it has no frames", where=where)
    bad = (tubes.label < 0) | (tubes.label >= len(tubes.classes))
    _check_none(bad, tubes, f"its class is not 0 to {len(tubes.classes) - 1}", where=where)
    _check_none(~np.isfinite(tubes.score), tubes, "its score is not a finite number", where=where)
    _check_none(tubes.first < 0, tubes, "its first frame is negative", where=where)
    gap = np.diff(tubes.frame, prepend=0) != 1
    gap[tubes.offset[:-1]] = False
    _check_none(row_tube[gap], tubes, "its frames do not follow one another", where=where)
    finite = np.isfinite(tubes.boxes).all(axis=1) & np.isfinite(tubes.frame_score)
    if tubes.class_scores is not None:
        finite &= np.isfinite(tubes.class_scores).all(axis=1)
    bad = ~finite
    message = "a box or the score of a frame is not finite"
    _check_none(row_tube[bad], tubes, message, where=where)


def _check_none(bad: np.ndarray, tubes: Tubes, message: str, *, where):
    """Raises InputError if `bad`, a mask of tubes or their indices, has any."""
    tubes_of_it = np.flatnonzero(bad) if bad.dtype == bool else np.unique(bad)
    if len(tubes_of_it):
        first = tubes_of_it[0]
        raise InputError(
            f"{where}: tube {first} (video {tubes.videos[tubes.video[first]]!r}): {message} "
            f"({len(tubes_of_it)} such tubes)"
        )
