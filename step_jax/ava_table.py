"""Detections on AVA's keyframes in a file: as Parquet, or in the official CSV form.

Text is for other people's tools. A detector's full output has millions of rows: those are a Parquet
file with the same columns, 28 bytes a row in memory. The tables that `evaluate.py` writes are read
too, where a label map says which action a class is.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from step_jax import detections as detections_table
from step_jax import table_header, tubelet_table
from step_jax.annotations.ava_csv import (
    AvaDetections,
    check_detections,
    read_detections_csv,
    write_detections_csv,
)
from step_jax.annotations.ava_labels import LabelMap
from step_jax.annotations.csv_rows import Rows
from step_jax.detected_keyframes import (
    KeyframeLimits,
    read_detected_keyframes,
    read_tubelet_keyframes,
)
from step_jax.errors import InputError
from step_jax.replacing import replacing

BOX_COLUMNS = ("x1", "y1", "x2", "y2")
SCHEMA = pa.schema(
    [
        ("video", pa.dictionary(pa.int32(), pa.string())),
        ("timestamp", pa.int32()),  # seconds of the movie
        *((name, pa.float32()) for name in BOX_COLUMNS),  # shares of the frame
        ("action_id", pa.int16()),  # 1 to 80
        ("score", pa.float32()),
    ]
)
_MAGIC = b"PAR1"
_ROW_GROUP_ROWS = 2**20


def read_ava_detections(
    paths: Sequence[str | os.PathLike],
    label_map: LabelMap | None = None,
    *,
    step: int | None = None,
    limits: KeyframeLimits | None = None,
) -> AvaDetections:
    """Reads the shards of one table, told apart by what they hold.

    Args:
      paths: each a file in the official form, Parquet with the same columns, or a detector's table
        of detections on keyframes or of tubelets.
      label_map: which action a class of the detector's tables is.
      step: of the detector; the last by default.
      limits: of a tubelet table's detections.

    Rows are in the order of the files. Raises InputError as the readers of one file, and where two
    shards hold rows of the same keyframe.
    """
    shards = [_read(pathlib.Path(path), label_map, step, limits) for path in paths]
    if len(shards) == 1:
        return shards[0]
    videos = sorted({name for shard in shards for name in shard.videos})
    index = {name: i for i, name in enumerate(videos)}
    translated = [np.array([index[name] for name in s.videos], np.int32)[s.video] for s in shards]
    _check_disjoint(paths, videos, translated, [shard.timestamp for shard in shards])
    columns = ("timestamp", "boxes", "action_id", "score")
    return AvaDetections(
        videos=tuple(videos),
        video=np.concatenate(translated),
        **{name: np.concatenate([getattr(s, name) for s in shards]) for name in columns},
    )


def read_parquet(path: str | os.PathLike) -> AvaDetections:
    """Reads a Parquet file with the columns of `SCHEMA`; numbers may be wider than there.

    Raises InputError with the row, from 0, for what `read_detections_csv` refuses.
    """
    path = pathlib.Path(path)
    try:
        _check_columns(path, pq.read_schema(path))
        table = pq.read_table(path, columns=SCHEMA.names, read_dictionary=["video"])
        videos, video = _videos(path, table["video"])
        columns = {name: _numbers(path, name, table[name]) for name in SCHEMA.names[1:]}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a Parquet table: {error}") from error
    del table
    rows = Rows(path, range(len(video)), columns, texts={}, place=": row ")
    for name in (*BOX_COLUMNS, "score"):
        rows.check(name, ~np.isfinite(columns[name]), "a finite number")
    check_detections(rows)
    return AvaDetections(
        videos=videos,
        video=video,
        timestamp=columns["timestamp"].astype(np.int32, copy=False),
        boxes=np.stack([columns.pop(name) for name in BOX_COLUMNS], axis=-1),
        action_id=columns["action_id"].astype(np.int16, copy=False),
        score=columns["score"],
    )


def write_ava_detections(path: str | os.PathLike, detections: AvaDetections) -> None:
    """Writes Parquet, or the official CSV form where the path ends in .csv.

    Parquet keeps float32. Raises InputError as `write_detections_csv`.
    """
    if pathlib.Path(path).suffix == ".csv":
        write_detections_csv(path, detections)
        return
    names = pa.array(detections.videos, pa.string())
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(detections.video, pa.int32()), names),
        pa.array(detections.timestamp, pa.int32()),
        *(pa.array(column.astype(np.float32)) for column in detections.boxes.T),
        pa.array(detections.action_id, pa.int16()),
        pa.array(detections.score.astype(np.float32)),
    ]
    table = pa.table(columns, schema=SCHEMA)
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=["video", "timestamp"],
            row_group_size=_ROW_GROUP_ROWS,
        )


def _read(
    path: pathlib.Path,
    label_map: LabelMap | None,
    step: int | None,
    limits: KeyframeLimits | None,
) -> AvaDetections:
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not is_parquet:
        return read_detections_csv(path)
    metadata = table_header.read_schema(path, table="a Parquet table").metadata
    kind = table_header.format_of(metadata)
    if kind not in (detections_table.FORMAT, tubelet_table.FORMAT):
        return read_parquet(path)
    if label_map is None:
        raise InputError(f"{path}: is a detector's table; reading it needs the label map")
    if kind == detections_table.FORMAT:
        return read_detected_keyframes(path, label_map, step=step)
    return read_tubelet_keyframes(path, label_map, step=step, limits=limits)


def _check_columns(path: pathlib.Path, schema: pa.Schema) -> None:
    missing = [name for name in SCHEMA.names if name not in schema.names]
    if missing:
        raise InputError(
            f"{path}: has no column {missing[0]!r} (it has {', '.join(schema.names)}); expected "
            f"{', '.join(SCHEMA.names)}"
        )
    kinds = {"timestamp": pa.types.is_integer, "action_id": pa.types.is_integer}
    for name in SCHEMA.names[1:]:
        found = schema.field(name).type
        if not kinds.get(name, pa.types.is_floating)(found):
            raise InputError(
                f"{path}: column {name!r} is {found}; expected {SCHEMA.field(name).type}"
            )


def _videos(path: pathlib.Path, column: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """The names, sorted, and int32 [N] indices into them."""
    _check_filled(path, "video", column)
    column = column.cast(SCHEMA.field("video").type).unify_dictionaries()
    if not len(column):
        return (), np.zeros(0, np.int32)
    column = column.combine_chunks()
    found = column.dictionary.to_pylist()
    names = sorted(set(found))
    index = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([index[name] for name in found], np.int32)[column.indices]


def _numbers(path: pathlib.Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    _check_filled(path, name, column)
    return column.to_numpy()


def _check_filled(path: pathlib.Path, name: str, column: pa.ChunkedArray) -> None:
    if column.null_count:
        raise InputError(f"{path}: column {name} has empty values; expected one in each row")


def _check_disjoint(
    paths: Sequence[str | os.PathLike],
    videos: Sequence[str],
    video: Sequence[np.ndarray],
    timestamp: Sequence[np.ndarray],
) -> None:
    """Each keyframe belongs to one shard: else its rows would have no order, or stand twice."""
    seen: dict[int, int] = {}
    for i, (v, t) in enumerate(zip(video, timestamp, strict=True)):
        for key in np.unique(v.astype(np.int64) << 32 | t).tolist():
            if key in seen:
                raise InputError(
                    f"{paths[i]}: has rows of {videos[key >> 32]!r} at {key & 0xFFFFFFFF} s, and "
                    f"so has {paths[seen[key]]}; expected each keyframe in one shard"
                )
            seen[key] = i
