"""Writing a long Parquet table piece by piece, in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from step_jax.replacing import replacing
from step_jax.storage import as_path
from step_jax.utf8_paths import check_utf8

_MOST_WAITING = 256  # batches; many of a few rows each take far more than their rows


class RowGroupWriter:
    """Record batches into one file; the writers of tables extend it by checks of their values.

    Memory is bounded by one row group. The file appears under its name when the block ends without
    an error, and not at all otherwise.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        schema: pa.Schema,
        *,
        row_group_rows: int,
        most_rows: int,
        dictionaries: Sequence[str],
    ):
        """
        Args:
          path: of the table.
          schema: with the metadata.
          row_group_rows: rows that are written together, as soon as there are so many.
          most_rows: of a row group.
          dictionaries: columns that repeat few values.

        Raises InputError for a name that is no UTF-8, which Arrow does not take.
        """
        self.path = as_path(path)
        check_utf8(self.path)
        self._schema = schema
        self._row_group_rows, self._most_rows = row_group_rows, most_rows
        self._dictionaries = list(dictionaries)
        self._combined: list[pa.RecordBatch] = []  # older than those waiting
        self._waiting: list[pa.RecordBatch] = []
        self._num_rows = 0  # that are in either
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            self._parquet = stack.enter_context(
                pq.ParquetWriter(
                    temporary,
                    self._schema,
                    compression="zstd",
                    use_dictionary=self._dictionaries,
                )
            )
            stack.callback(self._flush)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> bool | None:
        return self._stack.__exit__(*exception)

    def _add(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return  # which would wait as long as the rows, in no bounded number
        self._waiting.append(batch)
        self._num_rows += len(batch)
        if self._num_rows >= self._row_group_rows:
            self._flush()
        elif len(self._waiting) == _MOST_WAITING:
            self._combined.append(_in_one(self._waiting))
            self._waiting = []

    def _flush(self) -> None:
        if self._num_rows:
            table = pa.Table.from_batches([*self._combined, *self._waiting]).unify_dictionaries()
            self._parquet.write_table(table, row_group_size=self._most_rows)
        self._combined, self._waiting, self._num_rows = [], [], 0


def _in_one(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]
