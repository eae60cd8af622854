"""The tubelet table: everything a detector says of a window, before any threshold or NMS.

One row is one tubelet, a proposal after a step: the scores of all classes and a box a frame, for
each class or for all. Detections in frames, action tubes and the fusion of several models start
from it. The file is Parquet, one row group a video, so that a reader holds one video at a time.
`tubelet_writer` writes it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from step_jax import table_header
from step_jax.errors import InputError

FORMAT = "step_jax.tubelets"
VERSION = 1

_TABLE, _MADE_BY = "a tubelet table", "evaluate.py with eval.tubes, or step_jax.fusion"


@dataclass(frozen=True)
class TubeletHeader:
    """What the numbers of a table mean.

    classes: the C action classes, without the background.
    clip_frames: K, the frames of a tubelet.
    stride: frames between the windows of a video.
    num_steps: steps of the detector.
    num_boxes: R, boxes of a tubelet in a frame: C, one for each class, or 1 for all.
    steps: those that the table has rows of, 1-based; all if it does not say.
    provenance: texts that say what made the table; nothing here reads them.
    """

    classes: tuple[str, ...]
    clip_frames: int
    stride: int
    num_steps: int
    num_boxes: int
    steps: tuple[int, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        steps = tuple(self.steps) or tuple(range(1, self.num_steps + 1))
        object.__setattr__(self, "steps", steps)
        if self.num_boxes not in (1, len(self.classes)):
            raise InputError(
                f"num_boxes is {self.num_boxes}; expected 1 or as many as classes, "
                f"{len(self.classes)}"
            )

    @property
    def schema(self) -> pa.Schema:
        """The columns; `tubes` holds [R, K, 4] in that order."""
        boxes = self.num_boxes * self.clip_frames * 4
        columns = [
            ("video", pa.dictionary(pa.int32(), pa.string())),
            ("start", pa.int32()),
            ("step", pa.int8()),
            ("proposal", pa.int32()),
            ("scores", pa.list_(pa.float32(), len(self.classes))),
            ("tubes", pa.list_(pa.float32(), boxes)),
        ]
        metadata = table_header.to_metadata(self, format=FORMAT, version=VERSION)
        return pa.schema(columns, metadata=metadata)


@dataclass(frozen=True, eq=False)
class TubeletRows:
    """N tubelets in memory; the columns are numpy arrays.

    header: see `TubeletHeader`.
    videos: names; may hold some without a row.
    video: int32 [N], index into `videos`.
    start: int32 [N], the window's first frame, from 0; it covers [start, start + K).
    step: int8 [N], 1-based.
    proposal: int32 [N]; unique in its window and step.
    scores: float32 [N, C].
    tubes: float32 [N, R, K, 4], shares of the frame's sides, not clipped.
    """

    header: TubeletHeader
    videos: tuple[str, ...]
    video: np.ndarray
    start: np.ndarray
    step: np.ndarray
    proposal: np.ndarray
    scores: np.ndarray
    tubes: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def take(self, rows: np.ndarray | slice) -> TubeletRows:
        """The rows at an index array, under a mask or of a slice."""
        names = ("video", "start", "step", "proposal", "scores", "tubes")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def at_step(self, step: int) -> TubeletRows:
        """The rows of one step, 1-based. Raises InputError for one that the table lacks."""
        _check_step(self.header, step)
        chosen = self.step == step
        return self if chosen.all() else self.take(chosen)


def is_tubelet_table(path: str | os.PathLike) -> bool:
    """Whether a Parquet file is one. Raises InputError for what is no Parquet file."""
    schema = table_header.read_schema(path, table="a detections table or a tubelet table")
    return table_header.format_of(schema.metadata) == FORMAT


def read_tubelet_header(path: str | os.PathLike) -> TubeletHeader:
    """What a table is about, without its rows. Raises InputError for another kind of file."""
    path = pathlib.Path(path)
    schema = table_header.read_schema(path, table=_TABLE)
    header = table_header.from_metadata(
        TubeletHeader,
        schema.metadata,
        path=path,
        format=FORMAT,
        version=VERSION,
        table=_TABLE,
        made_by=_MADE_BY,
    )
    table_header.check_columns(schema, header.schema, path=path)
    return header


def iter_tubelet_videos(
    path: str | os.PathLike, *, step: int | None = None
) -> Iterator[TubeletRows]:
    """One video's rows after the other, sorted by step, start and proposal.

    Args:
      path: of the table.
      step: only the rows of this one; a video without any is left out.

    Raises InputError as `read_tubelet_header`, for a step that the table lacks, for values that
    mean nothing (not finite, out of range), for rows that occur twice and for a file whose videos
    do not lie one after the other.
    """
    header = read_tubelet_header(path)
    if step is not None:
        _check_step(header, step)
    seen = set()
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            rows = _read_group(file, number, header, path)
            if len(rows.videos) != 1 or rows.videos[0] in seen:
                raise InputError(
                    f"{path}: row group {number} does not hold one whole video; expected a file "
                    f"written by {_MADE_BY}"
                )
            seen.add(rows.videos[0])
            rows = sorted_unique(rows, where=path)
            if step is not None:
                rows = rows.at_step(step)
            if len(rows):
                yield rows


def read_tubelets(path: str | os.PathLike, *, step: int | None = None) -> TubeletRows:
    """All rows of a table, or of one step. Raises InputError as `iter_tubelet_videos`."""
    header = read_tubelet_header(path)
    return concatenate(header, list(iter_tubelet_videos(path, step=step)))


def concatenate(header: TubeletHeader, parts: list[TubeletRows]) -> TubeletRows:
    """Rows of different videos as one."""
    names = [name for part in parts for name in part.videos]
    first = np.cumsum([0, *(len(part.videos) for part in parts)])
    columns = {
        name: np.concatenate([empty, *(getattr(part, name) for part in parts)])
        for name, empty in _empty_columns(header).items()
        if name != "video"
    }
    video = [part.video + offset for part, offset in zip(parts, first[:-1], strict=True)]
    video = np.concatenate([np.zeros(0, np.int32), *video]).astype(np.int32)
    return TubeletRows(header=header, videos=tuple(names), video=video, **columns)


def to_record_batch(columns: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    """Columns as those of `TubeletRows`, `video` any sequence of names, in the file's form."""
    if set(columns) != set(schema.names):
        raise ValueError(f"the columns are {sorted(columns)}; expected {schema.names}")
    arrays = [pa.array(columns["video"], pa.string()).dictionary_encode()]
    for column in list(schema)[1:]:
        values = np.asarray(columns[column.name])
        if pa.types.is_fixed_size_list(column.type):
            flat = np.ascontiguousarray(values, np.float32).reshape(-1)
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), column.type.list_size))
        else:
            arrays.append(pa.array(values, column.type))
    return pa.record_batch(arrays, schema=schema)


def from_record_batch(batch: pa.RecordBatch, header: TubeletHeader) -> TubeletRows:
    """The inverse of `to_record_batch`."""
    video = batch["video"]
    count, num_classes = len(batch), len(header.classes)
    box_shape = (count, header.num_boxes, header.clip_frames, 4)
    return TubeletRows(
        header=header,
        videos=tuple(video.dictionary.to_pylist()),
        video=video.indices.to_numpy(),
        start=batch["start"].to_numpy(),
        step=batch["step"].to_numpy(),
        proposal=batch["proposal"].to_numpy(),
        scores=batch["scores"].flatten().to_numpy().reshape(count, num_classes),
        tubes=batch["tubes"].flatten().to_numpy().reshape(box_shape),
    )


def check_values(rows: TubeletRows, *, where: str | os.PathLike) -> None:
    """Raises InputError for values that mean nothing."""
    allowed = np.isin(rows.step, rows.header.steps)
    _check_all(allowed, rows, "step", f"expected one of {list(rows.header.steps)}", where)
    for name in ("start", "proposal"):
        _check_all(getattr(rows, name) >= 0, rows, name, "expected 0 or more", where)
    for name in ("scores", "tubes"):
        values = getattr(rows, name)
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        _check_all(finite, rows, name, "expected finite numbers", where)


def sorted_unique(rows: TubeletRows, *, where: str | os.PathLike) -> TubeletRows:
    """One video's rows by step, start and proposal. Raises InputError where one occurs twice."""
    keys = np.stack([rows.step, rows.start, rows.proposal])
    order = np.lexsort(keys[::-1])
    if not np.array_equal(order, np.arange(len(order))):
        rows, keys = rows.take(order), keys[:, order]
    same = np.flatnonzero((keys[:, 1:] == keys[:, :-1]).all(axis=0))
    if len(same):
        at = same[0]
        raise InputError(
            f"{where}: video {rows.videos[rows.video[at]]!r}, step {rows.step[at]}, window at "
            f"{rows.start[at]}, proposal {rows.proposal[at]} occurs twice ({len(same)} such rows); "
            "expected every tubelet once: was a part merged twice?"
        )
    return rows


def _read_group(
    file: pq.ParquetFile, number: int, header: TubeletHeader, path: str | os.PathLike
) -> TubeletRows:
    try:
        table = file.read_row_group(number, columns=header.schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: row group {number} cannot be read: {error}") from error
    table_header.check_no_nulls(table, table.column_names, path=path)
    (batch,) = table.unify_dictionaries().combine_chunks().to_batches() or [None]
    if batch is None:
        raise InputError(f"{path}: row group {number} is empty; expected the rows of a video")
    rows = from_record_batch(batch, header)
    check_values(rows, where=path)
    return rows


def _check_step(header: TubeletHeader, step: int) -> None:
    if step not in header.steps:
        raise InputError(f"step {step}: the tubelet table has steps {list(header.steps)}")


def _check_all(
    good: np.ndarray, rows: TubeletRows, name: str, expected: str, where: str | os.PathLike
) -> None:
    if good.all():
        return
    row = int(good.argmin())
    value = getattr(rows, name)[row]
    found = f"is {value}" if np.ndim(value) == 0 else "is not finite"
    raise InputError(
        f"{where}: row {row} (video {rows.videos[rows.video[row]]!r}, window at "
        f"{rows.start[row]}): {name} {found}; {expected} ({np.count_nonzero(~good)} such rows)"
    )


def _empty_columns(header: TubeletHeader) -> dict[str, np.ndarray]:
    return {
        "video": np.zeros(0, np.int32),
        "start": np.zeros(0, np.int32),
        "step": np.zeros(0, np.int8),
        "proposal": np.zeros(0, np.int32),
        "scores": np.zeros((0, len(header.classes)), np.float32),
        "tubes": np.zeros((0, header.num_boxes, header.clip_frames, 4), np.float32),
    }
