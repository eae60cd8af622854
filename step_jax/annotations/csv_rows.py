"""CSV files without a header, whose rows may differ in their number of columns.

Large ones, quickly: the lines are sorted by their number of columns, and each kind is parsed as a
whole. What is wrong is still told by its line.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv

from step_jax.errors import InputError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NEWLINE, _COMMA = 10, 44
_WHOLE = re.compile(rb"\s*[+-]?\d{1,18}\s*")
_TYPES = {
    "text": pa.dictionary(pa.int32(), pa.string()),
    "whole": pa.int64(),
    "real": pa.float64(),
}


class Column(NamedTuple):
    """text: any but an empty one; whole: an integer, zeros before it allowed; real: finite."""

    name: str
    kind: Literal["text", "whole", "real"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The N rows of a file that have the same number of columns, in the file's order.

    line: int64 [N], counted from 1; or what else tells where a row is, called by `place`.
    values: by the column's name int64 or float64 [N]; of a text int32 [N], an index into `texts`.
    texts: by the column's name its different values.
    """

    path: pathlib.Path
    line: np.ndarray | range
    values: dict[str, np.ndarray]
    texts: dict[str, list[str]]
    place: str = ":"

    def __len__(self) -> int:
        return len(self.line)

    def check(self, name: str, bad: np.ndarray, expected: str) -> None:
        """Raises InputError with the line of the first value of a column that is `bad` [N]."""
        if bad.any():
            row = int(bad.argmax())
            value = self.values[name][row]
            where = f"{self.path}{self.place}{self.line[row]}"
            raise InputError(f"{where}: {name} is {value}; expected {expected}")


def read_rows(path: str | os.PathLike, layouts: Mapping[int, Sequence[Column]]) -> dict[int, Rows]:
    """Reads a file whose rows have one of the layouts, told apart by their number of columns.

    Blank lines are skipped; quotes have no meaning. Returns the rows of every layout, also of one
    that none has. Raises InputError with the line of a row of another length or of a value that is
    not what its column holds.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    text = np.frombuffer(data, np.uint8)
    starts = _line_starts(text)
    num_columns = _column_counts(data, text, starts)
    _check_lengths(path, layouts, num_columns, data, starts)
    return {
        length: _parse(path, data, text, starts, np.flatnonzero(num_columns == length), columns)
        for length, columns in layouts.items()
    }


def _line_starts(text: np.ndarray) -> np.ndarray:
    """Where each line begins, and at last where the file ends: int64 [lines + 1]."""
    ends = np.flatnonzero(text == _NEWLINE) + 1
    last = [] if len(ends) and ends[-1] == len(text) else [len(text)]
    return np.concatenate([[0], ends, last]).astype(np.int64) if len(text) else np.zeros(1, int)


def _column_counts(data: bytes, text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of each line; 0 of a blank one."""
    commas = np.flatnonzero(text == _COMMA)
    counts = np.diff(np.searchsorted(commas, starts)) + 1
    for line in np.flatnonzero(counts == 1):
        counts[line] = bool(data[starts[line] : starts[line + 1]].strip())
    return counts


def _check_lengths(path, layouts, num_columns, data, starts) -> None:
    wrong = ~np.isin(num_columns, [0, *layouts])
    if not wrong.any():
        return
    line = int(wrong.argmax())
    text = data[starts[line] : starts[line + 1]].decode(errors="replace").strip()
    raise InputError(
        f"{path}:{line + 1}: {_plural(num_columns[line])} ({_shortened(text)!r}); expected "
        + ", or ".join(f"{n} ({', '.join(c.name for c in layouts[n])})" for n in sorted(layouts))
    )


def _parse(path, data, text, starts, lines, columns) -> Rows:
    """The rows on `lines`, which all have these columns."""
    if len(lines) == len(starts) - 1:
        chosen = data
    else:
        mask = np.zeros(len(starts) - 1, bool)
        mask[lines] = True
        chosen = text[np.repeat(mask, np.diff(starts))].tobytes()
    try:
        table = _table(chosen, columns)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        _check_values(path, data, starts, lines, columns)
        raise InputError(
            f"{path}: cannot be read as CSV: {' '.join(str(error).split())}"
        ) from error
    if len(table) != len(lines):
        raise InputError(f"{path}: has line ends other than \\n and \\r\\n; convert them")
    rows = _rows(path, lines + 1, table, columns)
    if any(not np.isfinite(rows.values[c.name]).all() for c in columns if c.kind == "real"):
        _check_values(path, data, starts, lines, columns)
    if any("" in names for names in rows.texts.values()):
        _check_values(path, data, starts, lines, columns)
    return rows


def _table(data: bytes, columns: Sequence[Column]) -> pa.Table:
    types = {column.name: _TYPES[column.kind] for column in columns}
    if not data:
        return pa.schema(types).empty_table()
    return csv.read_csv(
        pa.BufferReader(data),
        csv.ReadOptions(column_names=list(types), use_threads=False),
        csv.ParseOptions(quote_char=False, ignore_empty_lines=True),
        csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )


def _rows(path, line, table: pa.Table, columns: Sequence[Column]) -> Rows:
    values, texts = {}, {}
    for name, kind in columns:
        column = table[name].unify_dictionaries() if kind == "text" else table[name]
        column = column.combine_chunks()
        if kind == "text":
            if isinstance(column, pa.ChunkedArray):  # of an empty table
                column = pa.array([], _TYPES["text"])
            texts[name] = column.dictionary.to_pylist()
            column = column.indices
        values[name] = column.to_numpy(zero_copy_only=False)
    return Rows(path=path, line=line, values=values, texts=texts)


def _check_values(path, data, starts, lines, columns) -> None:
    """Finds the first value that is not of its column's kind, one line after the other."""
    for line in lines:
        fields = data[starts[line] : starts[line + 1]].rstrip(b"\r\n").split(b",")
        wrong = [
            (column, field)
            for column, field in zip(columns, fields, strict=True)
            if not _is_of_kind(field, column.kind)
        ]
        if not wrong:
            continue
        column, field = wrong[0]
        found = _shortened(field.decode(errors="replace").strip())
        numbers = {column for column in columns if column.kind != "text"}
        is_header = line == lines[0] and numbers <= {column for column, _ in wrong}
        expected = {"text": "a name", "whole": "a whole number", "real": "a finite number"}
        raise InputError(
            f"{path}:{line + 1}: {column.name} is {found!r}; expected {expected[column.kind]}"
            + ("; a header? These files have none, delete it" if is_header else "")
        )


def _is_of_kind(field: bytes, kind: str) -> bool:
    try:
        if kind == "text":
            return bool(field.decode())
        if kind == "whole":
            return bool(_WHOLE.fullmatch(field))
        return bool(np.isfinite(float(field)))
    except ValueError:
        return False


def _plural(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
