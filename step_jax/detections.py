"""The detections table: what a detector found, as one Parquet file.

One row is one box of one detected tubelet in one frame. The columns are those of `SCHEMA`; boxes
are normalised by the frame's width and height. The file's metadata say what the numbers mean:
classes, clip length, stride, steps, and a free `provenance` (checkpoint, configuration, ...).
Tables of millions of rows stay columns of numpy here, never lists of rows.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from step_jax import table_header
from step_jax.errors import InputError
from step_jax.row_groups import RowGroupWriter
from step_jax.windows import check_frames

FORMAT = "step_jax.detections"
VERSION = 1

SCHEMA = pa.schema(
    [
        ("video", pa.dictionary(pa.int32(), pa.string())),
        ("frame", pa.int32()),  # 0-based
        ("step", pa.int8()),  # 1-based
        ("tubelet", pa.int32()),  # window * proposals + proposal: unique within video and step
        ("class", pa.int16()),  # 0-based, without the background
        ("score", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
    ]
)
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
ROW_GROUP_ROWS = 2**20  # about 35 MB in memory


@dataclass(frozen=True)
class TableHeader:
    """What the numbers of a table mean.

    classes: the action classes, which the column `class` counts from 0.
    clip_frames: K, the frames of a tubelet.
    stride: frames between the windows of a video.
    num_steps: steps of the detector, which the column `step` counts from 1.
    provenance: texts that say what made the table; nothing here reads them.
    frames: which of a window's frames have rows: "all" (also where the file does not say) or its
      "middle" one.
    """

    classes: tuple[str, ...]
    clip_frames: int
    stride: int
    num_steps: int
    provenance: dict[str, str] = field(default_factory=dict)
    frames: str = "all"


@dataclass(frozen=True, eq=False)
class Detections:
    """A table in memory, N rows; the columns are numpy arrays.

    header: see `TableHeader`.
    videos: names of the videos; may hold some without a row.
    video: int32 [N] index into `videos`.
    frame, tubelet: int32 [N]; step: int8 [N]; label: int16 [N], the column `class`.
    score: float32 [N]; boxes: float32 [N, 4], normalised.
    """

    header: TableHeader
    videos: tuple[str, ...]
    video: np.ndarray
    frame: np.ndarray
    step: np.ndarray
    tubelet: np.ndarray
    label: np.ndarray
    score: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.header.classes

    def take(self, rows: np.ndarray | slice) -> Detections:
        """The rows at an index array, under a mask or of a slice."""
        columns = ("video", "frame", "step", "tubelet", "label", "score", "boxes")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def at_step(self, step: int) -> Detections:
        """The rows of one step, 1-based. Raises InputError for a step that the detector lacks."""
        if not 1 <= step <= self.header.num_steps:
            raise InputError(f"step {step}: the detections have steps 1 to {self.header.num_steps}")
        chosen = self.step == step
        return self if chosen.all() else self.take(chosen)


class DetectionsWriter(RowGroupWriter):
    """Writes a table piece by piece: `with DetectionsWriter(...) as writer: writer.append(rows)`.

    Memory is bounded by one row group. The file appears under its name when the block ends without
    an error, and not at all otherwise.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        classes: Sequence[str],
        clip_frames: int,
        stride: int,
        num_steps: int,
        provenance: dict[str, str] | None = None,
        frames: str = "all",
        row_group_rows: int = ROW_GROUP_ROWS,
    ):
        self.header = TableHeader(
            classes=tuple(classes),
            clip_frames=int(clip_frames),
            stride=int(stride),
            num_steps=int(num_steps),
            provenance=dict(provenance or {}),
            frames=frames,
        )
        metadata = table_header.to_metadata(self.header, format=FORMAT, version=VERSION)
        super().__init__(
            path,
            SCHEMA.with_metadata(metadata),
            row_group_rows=row_group_rows,
            most_rows=row_group_rows,
            dictionaries=["video"],
        )

    def append(self, columns: dict):
        """Adds rows: one array for each column of `SCHEMA`; `video` may be any sequence of names.

        Raises InputError for a value that `read_detections` would refuse.
        """
        batch = _record_batch(columns)
        _check_values(_numpy_columns(batch), self.header, where=self.path)
        self._add(batch)


def write_detections(path: str | os.PathLike, detections: Detections):
    """Writes a table that is in memory."""
    header = {item.name: getattr(detections.header, item.name) for item in fields(TableHeader)}
    names = np.asarray(detections.videos, object)
    with DetectionsWriter(path, **header) as writer:
        for start in range(0, len(detections), ROW_GROUP_ROWS):
            rows = detections.take(slice(start, start + ROW_GROUP_ROWS))
            writer.append(
                {
                    "video": names[rows.video],
                    "frame": rows.frame,
                    "step": rows.step,
                    "tubelet": rows.tubelet,
                    "class": rows.label,
                    "score": rows.score,
                    **dict(zip(BOX_COLUMNS, rows.boxes.T, strict=True)),
                }
            )


def read_header(path: str | os.PathLike) -> TableHeader:
    """What a table is about, without its rows. Raises InputError as `read_detections`."""
    path = pathlib.Path(path)
    schema = table_header.read_schema(path, table="a detections table")
    header = table_header.from_metadata(
        TableHeader,
        schema.metadata,
        path=path,
        format=FORMAT,
        version=VERSION,
        table="a detections table",
        made_by="evaluate.py",
    )
    check_frames(header.frames, where=f"{path}: frames")
    table_header.check_columns(schema, SCHEMA, path=path)
    return header


def read_detections(path: str | os.PathLike, *, step: int | None = None) -> Detections:
    """Reads a table, or the rows of one step of it.

    Raises InputError for a file that is no table or of another version, for values that mean
    nothing (a score or box that is not finite, a class or step out of range, a negative frame or
    tubelet) and for rows that occur twice.
    """
    path = pathlib.Path(path)
    header = read_header(path)
    names: dict[str, int] = {}
    pieces: dict[str, list[np.ndarray]] = {}
    for columns in _row_groups(path, header):
        own = [names.setdefault(name, len(names)) for name in columns.pop("videos")]
        columns["video"] = np.array(own, np.int32)[columns["video"]]
        rows = slice(None) if step is None else columns["step"] == step
        for name, values in columns.items():
            pieces.setdefault(name, []).append(values[rows])
    # A column at a time, whose pieces are then forgotten: tables take much of a machine's memory.
    boxes = [np.stack(group, axis=-1) for group in zip(*map(pieces.pop, BOX_COLUMNS), strict=True)]
    detections = Detections(
        header=header,
        videos=tuple(names),
        boxes=np.concatenate(boxes),
        **{
            field_name: np.concatenate(pieces.pop(column))
            for field_name, column in (
                ("video", "video"),
                ("frame", "frame"),
                ("step", "step"),
                ("tubelet", "tubelet"),
                ("label", "class"),
                ("score", "score"),
            )
        },
    )
    _unique_order(detections, where=path)
    return detections


def merge_detections(paths: Sequence[str | os.PathLike], output: str | os.PathLike):
    """Joins the tables of several processes or shards into one, whatever their order.

    The rows are sorted by video name, step, tubelet (so by window), class and frame. Holds all of
    them in memory, about 100 bytes a row. Raises InputError where the headers differ or where two
    tables hold the same row.
    """
    if not paths:
        raise InputError(f"{output}: no detections tables to merge into it; expected one or more")
    tables = [read_detections(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        _check_same_header(table.header, tables[0].header, path, paths[0])
    videos = sorted({name for table in tables for name in table.videos})
    index = {name: i for i, name in enumerate(videos)}
    translated = [np.array([index[name] for name in t.videos], np.int32)[t.video] for t in tables]
    columns = ("frame", "step", "tubelet", "label", "score", "boxes")
    merged = Detections(
        header=tables[0].header,
        videos=tuple(videos),
        video=np.concatenate(translated),
        **{name: np.concatenate([getattr(t, name) for t in tables]) for name in columns},
    )
    order = _unique_order(merged, where=" and ".join(map(str, paths)))
    write_detections(output, merged.take(order))


# --- rows -----------------------------------------------------------------------------------------


def _record_batch(columns: dict) -> pa.RecordBatch:
    if set(columns) != set(SCHEMA.names):
        raise ValueError(f"the columns are {sorted(columns)}; expected {SCHEMA.names}")
    arrays = [
        pa.array(columns["video"], pa.string()).dictionary_encode(),
        *(pa.array(np.asarray(columns[c.name]), c.type) for c in list(SCHEMA)[1:]),
    ]
    return pa.record_batch(arrays, schema=SCHEMA)


def _numpy_columns(table: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
    """Columns as numpy arrays; `video` as indices into the array of names, `videos`."""
    columns = {name: table[name] for name in SCHEMA.names}
    if isinstance(table, pa.Table):
        columns = {name: column.combine_chunks() for name, column in columns.items()}
    video = columns.pop("video")
    arrays = {name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()}
    return {"videos": video.dictionary.to_pylist(), "video": video.indices.to_numpy(), **arrays}


def _row_groups(path: pathlib.Path, header: TableHeader) -> Iterator[dict[str, np.ndarray]]:
    """The checked columns of one row group after the other; of none if there are no rows."""
    yield _numpy_columns(SCHEMA.empty_table())
    first_row = 0
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=SCHEMA.names)
                table_header.check_no_nulls(table, SCHEMA.names, path=path)
                columns = _numpy_columns(table.unify_dictionaries().combine_chunks())
                _check_values(columns, header, where=path, first_row=first_row)
                first_row += len(table)
                yield columns
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as a detections table: {error}") from error


def _check_values(
    columns: dict[str, np.ndarray], header: TableHeader, *, where, first_row: int = 0
):
    limits = {
        "frame": (0, None),
        "tubelet": (0, None),
        "step": (1, header.num_steps),
        "class": (0, len(header.classes) - 1),
    }
    for name, (low, high) in limits.items():
        values = columns[name]
        bad = values < low if high is None else (values < low) | (values > high)
        expected = f"{low} or more" if high is None else f"{low} to {high}"
        _check_none(bad, columns, name, f"expected {expected}", where=where, first_row=first_row)
    for name in ("score", *BOX_COLUMNS):
        bad = ~np.isfinite(columns[name])
        _check_none(
            bad, columns, name, "expected a finite number", where=where, first_row=first_row
        )


def _check_none(bad: np.ndarray, columns: dict, name: str, expected: str, *, where, first_row: int):
    if not bad.any():
        return
    row = int(bad.argmax())
    video = columns["videos"][columns["video"][row]]
    raise InputError(
        f"{where}: row {first_row + row} (video {video!r}, frame {columns['frame'][row]}): "
        f"{name} is {columns[name][row]}; {expected} ({np.count_nonzero(bad)} such rows)"
    )


def _keys(detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """What identifies a row, as two int64 [N]: (video, step, tubelet) and (class, frame)."""
    video, step = detections.video.astype(np.int64), detections.step.astype(np.int64)
    owner = ((video << 8) + step << 31) + detections.tubelet
    return owner, (detections.label.astype(np.int64) << 31) + detections.frame


def _unique_order(detections: Detections, *, where) -> np.ndarray | slice:
    """What sorts by video index, step, tubelet, class, frame: indices, or all if it is sorted.

    Raises InputError where a row occurs twice.
    """
    owner, place = _keys(detections)
    in_order = (owner[1:] > owner[:-1]) | ((owner[1:] == owner[:-1]) & (place[1:] >= place[:-1]))
    order = slice(None) if in_order.all() else np.lexsort((place, owner))
    owner, place = owner[order], place[order]
    same = np.flatnonzero((owner[1:] == owner[:-1]) & (place[1:] == place[:-1]))
    if len(same):
        d, row = detections.take(order), same[0]
        raise InputError(
            f"{where}: {len(same)} rows occur twice, first video {d.videos[d.video[row]]!r}, "
            f"step {d.step[row]}, tubelet {d.tubelet[row]}, class {d.label[row]}, frame "
            f"{d.frame[row]}; was a part of the data evaluated twice?"
        )
    return order


def _check_same_header(header: TableHeader, first: TableHeader, path, first_path):
    for item in fields(TableHeader):
        ours, theirs = getattr(header, item.name), getattr(first, item.name)
        if ours != theirs:
            raise InputError(
                f"{path}: {item.name} is {ours}, but {theirs} in {first_path}; "
                "only tables of one evaluation can be merged"
            )
