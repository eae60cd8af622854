"""Writes the tubelet table from rows in any order: windows are evaluated in that of the shards."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.storage import as_path, folder_beside
from step_jax.tubelet_table import (
    TubeletHeader,
    TubeletRows,
    check_values,
    from_record_batch,
    iter_tubelet_videos,
    read_tubelet_header,
    sorted_unique,
    to_record_batch,
)

BUCKETS = 64  # videos are sorted a bucket at a time
PENDING_BYTES = 32 << 20


class TubeletWriter:
    """Writes a table piece by piece: `with TubeletWriter(...) as writer: writer.append(columns)`.

    Rows wait in files beside the table until the block ends; then the table appears, the videos one
    after the other. Where the block ends with an error nothing is left. Memory: twice 32 MiB, and
    at the end 1/64 of the table, or its longest video if that is more.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        classes: Sequence[str],
        clip_frames: int,
        stride: int,
        num_steps: int,
        num_boxes: int,
        steps: Sequence[int] = (),
        provenance: Mapping[str, str] | None = None,
    ):
        """The arguments are those of `TubeletHeader`."""
        self.path = as_path(path)
        self.header = TubeletHeader(
            classes=tuple(classes),
            clip_frames=int(clip_frames),
            stride=int(stride),
            num_steps=int(num_steps),
            num_boxes=int(num_boxes),
            steps=tuple(map(int, steps)),
            provenance=dict(provenance or {}),
        )
        self._schema = self.header.schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> TubeletWriter:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            # On the disk that has room for the table.
            folder = folder_beside(temporary, prefix=f".{self.path.stem}.")
            self._buckets = _Buckets(stack.enter_context(folder), self._schema)
            stack.callback(self._buckets.close)
            stack.push(lambda kind, *_: self._finish(temporary) if kind is None else None)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> bool | None:
        return self._stack.__exit__(*exception)

    def append(self, columns: Mapping[str, Any]) -> None:
        """Adds rows: the columns of `TubeletRows`, `video` as any sequence of names.

        Raises InputError for a value that `iter_tubelet_videos` would refuse.
        """
        batch = to_record_batch(columns, self._schema)
        check_values(from_record_batch(batch, self.header), where=self.path)
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes >= PENDING_BYTES:
            self._flush()

    def append_rows(self, rows: TubeletRows) -> None:
        """Adds rows that are in memory."""
        columns = {name: getattr(rows, name) for name in self._schema.names if name != "video"}
        self.append({"video": np.asarray(rows.videos, object)[rows.video], **columns})

    def _flush(self) -> None:
        if self._pending:
            self._buckets.add(pa.Table.from_batches(self._pending).unify_dictionaries())
        self._pending, self._pending_bytes = [], 0

    def _finish(self, temporary: pathlib.Path) -> None:
        self._flush()
        self._buckets.close()
        with pq.ParquetWriter(
            temporary, self._schema, compression="zstd", use_dictionary=["video"]
        ) as parquet:
            for rows in self._buckets.videos(self.header, where=self.path):
                table = pa.Table.from_batches([_batch_of(rows, self._schema)])
                parquet.write_table(table, row_group_size=len(table))


def write_tubelets(path: str | os.PathLike, rows: TubeletRows) -> None:
    """Writes a table that is in memory."""
    with TubeletWriter(path, **vars(rows.header)) as writer:
        for start in range(0, len(rows), 2**14):
            writer.append_rows(rows.take(slice(start, start + 2**14)))


def merge_tubelets(paths: Sequence[str | os.PathLike], output: str | os.PathLike) -> None:
    """Joins the tables of several processes into one, whatever their order.

    Raises InputError where their headers differ or where two hold the same tubelet.
    """
    if not paths:
        raise InputError(f"{output}: no tubelet tables to merge into it; expected one or more")
    headers = [read_tubelet_header(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        if header != headers[0]:
            raise InputError(
                f"{path} and {paths[0]}: tubelet tables of different detectors or windows; "
                "expected parts of one evaluation"
            )
    with TubeletWriter(output, **vars(headers[0])) as writer:
        for path in paths:
            for rows in iter_tubelet_videos(path):
                writer.append_rows(rows)


class _Buckets:
    """Rows on disk, those of a video in one of `BUCKETS` files."""

    def __init__(self, folder: pathlib.Path, schema: pa.Schema):
        self._folder = folder
        self._schema = schema
        self._files: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def add(self, table: pa.Table) -> None:
        batch = table.combine_chunks().to_batches()[0]
        names = batch["video"].dictionary.to_pylist()
        buckets = np.array([zlib.crc32(name.encode()) % BUCKETS for name in names])
        bucket = buckets[batch["video"].indices.to_numpy()]
        for number in np.unique(bucket):
            self._file(int(number)).write_batch(
                batch.take(pa.array(np.flatnonzero(bucket == number)))
            )

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def videos(self, header: TubeletHeader, *, where: pathlib.Path) -> Iterator[TubeletRows]:
        """One video after the other, each sorted."""
        for number in sorted(self._files):
            with pa.ipc.open_stream(self._path(number)) as stream:
                table = stream.read_all().unify_dictionaries().combine_chunks()
            rows = from_record_batch(table.to_batches()[0], header)
            for video in sorted(set(rows.video.tolist()), key=rows.videos.__getitem__):
                yield sorted_unique(rows.take(rows.video == video), where=where)

    def _file(self, number: int) -> pa.ipc.RecordBatchStreamWriter:
        if number not in self._files:
            self._files[number] = pa.ipc.new_stream(self._path(number), self._schema)
        return self._files[number]

    def _path(self, number: int) -> str:
        return os.fspath(self._folder / f"{number:02d}.arrows")


def _batch_of(rows: TubeletRows, schema: pa.Schema) -> pa.RecordBatch:
    columns = {name: getattr(rows, name) for name in schema.names if name != "video"}
    return to_record_batch(
        {"video": np.asarray(rows.videos, object)[rows.video], **columns}, schema
    )
