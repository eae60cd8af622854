"""What the numbers of a Parquet table mean, kept in the file's own metadata as JSON texts.

A header is a frozen dataclass; this module writes one into a table and reads it back.
"""

from __future__ import annotations

import json
import os
import pathlib
import typing
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from step_jax.errors import InputError

Header = TypeVar("Header")

_MOST = 2**16  # of a number: frames, steps, boxes


def to_metadata(header: Any, *, format: str, version: int) -> dict[str, str]:
    """The metadata of a table of that format and version."""
    values = {item.name: json.dumps(getattr(header, item.name)) for item in fields(header)}
    return {"format": format, "version": str(version), **values}


def format_of(metadata: dict[bytes, bytes] | None) -> str | None:
    """The format that a file's metadata name; None where they name none."""
    found = (metadata or {}).get(b"format")
    return None if found is None else found.decode(errors="replace")


def from_metadata(
    kind: type[Header],
    metadata: dict[bytes, bytes] | None,
    *,
    path: pathlib.Path,
    format: str,
    version: int,
    table: str,
    made_by: str,
) -> Header:
    """The header of a table; a key that the file lacks has its default, lists become tuples.

    Args:
      kind: the dataclass.
      table: what such a file is called, "a detections table".
      made_by: where such a file comes from.

    Raises InputError for another kind of file, another version or broken metadata.
    """
    if format_of(metadata) != format:
        found = format_of(metadata)
        what = f"it is {found}" if found else f"its metadata lack format={format}"
        raise InputError(f"{path}: not {table} ({what}); expected a file written by {made_by}")
    texts = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in metadata.items()}
    if texts.get("version") != str(version):
        raise InputError(
            f"{path}: {table} of version {texts.get('version')}; this program reads version "
            f"{version}: make it again with {made_by}"
        )
    try:
        hints = typing.get_type_hints(kind)
        return kind(**{item.name: _value(item, hints, texts) for item in fields(kind)})
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: its metadata are broken at {error}") from error


def read_schema(path: str | os.PathLike, *, table: str) -> pa.Schema:
    """A Parquet file's schema. Raises InputError where there is no such file."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as {table}: {error}") from error


def check_columns(schema: pa.Schema, expected: pa.Schema, *, path: str | os.PathLike) -> None:
    """Raises InputError for a column that is missing or of another type."""
    for column in expected:
        index = schema.get_field_index(column.name)
        found = schema.field(index).type if index >= 0 else "missing"
        if found != column.type:
            raise InputError(f"{path}: column {column.name!r} is {found}; expected {column.type}")


def check_no_nulls(table: pa.Table, names: Iterable[str], *, path: str | os.PathLike) -> None:
    """Raises InputError where a row lacks a value of these columns, or a number of its list."""
    for name in names:
        column = table[name]
        nulls = column.null_count
        if pa.types.is_fixed_size_list(column.type):
            nulls += sum(chunk.flatten().null_count for chunk in column.chunks)
        if nulls:
            raise InputError(f"{path}: column {name!r} has empty values; expected one in each row")


def _value(item: Any, hints: dict[str, Any], texts: dict[str, str]) -> Any:
    """What the metadata say of a field. Raises KeyError or ValueError where that means nothing."""
    if item.name not in texts and item.default is not MISSING:
        return item.default
    value = json.loads(texts[item.name])
    if not _is_a(value, hints[item.name]):
        raise ValueError(f"{item.name!r}: {texts[item.name][:60]}")
    return tuple(value) if isinstance(value, list) else value


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value from JSON may stand for a field of this type; numbers count from 1."""
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list) and all(_is_a(one, kinds[0]) for one in value)
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict) and all(_is_a(one, kinds[1]) for one in value.values())
    return type(value) is hint and (hint is not int or 1 <= value <= _MOST)
