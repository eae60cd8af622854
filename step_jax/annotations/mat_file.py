"""MATLAB's files of level 5 (`save -v6`, `-v7`): numbers, text and struct arrays, nothing else.

SciPy reads them too, but a damaged file can crash its reader, and Python with it; this one checks
every length before it uses it. The layout is MathWorks' "MAT-File Format", level 5: elements of a
type, a number of bytes and data padded to 8, where an array is an element made of elements.
"""

from __future__ import annotations

import math
import os
import pathlib
import zlib
from typing import Any

import numpy as np

from step_jax.errors import InputError

_NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)
_REFUSED = {
    **{1: "a cell array", 3: "an object", 5: "a sparse matrix"},
    **{16: "a function", 17: "an object"},
}
_COMPLEX = 0x800
_HEADER_BYTES = 128
_MAX_BYTES = 1 << 29  # of a variable, unpacked
_MAX_DEPTH = 8


class _DamagedError(Exception):
    """What does not follow the format."""


def read_mat_variable(path: str | os.PathLike, name: str) -> Any:
    """The variable `name` of a MATLAB file.

    Returns an int64 or float64 array in the shape that MATLAB shows for numbers, a `str` for a line
    of text, and for a struct array the list of its elements in MATLAB's order, each a dictionary of
    fields. Raises InputError for a file that cannot be read, is damaged
    or lacks the variable, and for a variable that holds anything else.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        for found, element in _variables(data):
            if found == name:
                return _read_array(element, 0)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _DamagedError as error:
        raise InputError(f"{path}: is not a MATLAB file, or a damaged one: {error}") from error
    raise InputError(f"{path}: has no variable {name!r}")


class _Elements:
    """The elements in a piece of a file, one after the other."""

    def __init__(self, data: memoryview, order: str):
        self._data = data
        self.order = order

    def __bool__(self) -> bool:
        return len(self._data) > 0

    def __len__(self) -> int:
        return len(self._data)

    def next(self, *kinds: int) -> tuple[int, memoryview]:
        """(type, data) of the next element, which must be of one of these types, if any."""
        if len(self._data) < 8:
            raise _DamagedError(f"an element of {len(self._data)} bytes")
        first, length = np.frombuffer(self._data[:8], self.order + "u4").tolist()
        if first >> 16:  # a small element: its data in the place of its length
            kind, length, start, stop = first & 0xFFFF, first >> 16, 4, 8
        else:
            kind, start = first, 8
            stop = 8 + length + (-length % 8 if kind != _COMPRESSED else 0)
        if start + length > min(stop, len(self._data)):
            raise _DamagedError(f"an element of {length} bytes where {len(self._data)} are left")
        if kinds and kind not in kinds:
            raise _DamagedError(f"an element of type {kind}; expected {kinds[0]}")
        piece, self._data = self._data[start : start + length], self._data[stop:]
        return kind, piece

    def within(self, data: memoryview) -> _Elements:
        return _Elements(data, self.order)


def _variables(data: bytes):
    """(name, elements of the array) of each variable."""
    header, order = data[:_HEADER_BYTES], {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if header.startswith(b"MATLAB 7.3") or data[:4] == b"\x89HDF":
        raise InputError("is a file of MATLAB 7.3 (HDF5); save it again with save('-v7', ...)")
    if len(header) < _HEADER_BYTES or order is None:
        raise _DamagedError("no header of level 5")
    elements = _Elements(memoryview(data)[_HEADER_BYTES:], order)
    while elements:
        kind, piece = elements.next(_MATRIX, _COMPRESSED)
        if kind == _COMPRESSED:
            kind, piece = elements.within(_unpack(piece)).next(_MATRIX)
        yield _name(elements.within(piece)), elements.within(piece)


def _unpack(piece: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(piece, _MAX_BYTES)
    except zlib.error as error:
        raise _DamagedError(str(error)) from error
    if unpacker.unconsumed_tail:
        raise _DamagedError(f"a variable of more than {_MAX_BYTES >> 20} MiB")
    return memoryview(data)


def _name(elements: _Elements) -> str:
    elements.next(_UINT32)
    elements.next(_INT32)
    return _text(*elements.next(_INT8))


def _read_array(elements: _Elements, depth: int) -> Any:
    """The value of an array, from its elements."""
    if not elements:
        return np.zeros((0, 0))  # how MATLAB writes [] in a struct
    flags = _numbers(*elements.next(_UINT32), elements.order)
    shape = _numbers(*elements.next(_INT32), elements.order).tolist()
    elements.next(_INT8)
    if len(flags) != 2 or len(shape) < 2 or min(shape) < 0:
        raise _DamagedError(f"an array of flags {flags.tolist()} and shape {shape}")
    kind = int(flags[0]) & 0xFF
    if kind in _REFUSED or flags[0] & _COMPLEX:
        what = _REFUSED.get(kind, "a complex number")
        raise InputError(f"holds {what}; expected structs, numbers and text alone")
    if kind == _STRUCT:
        return _read_struct(elements, shape, depth)
    if kind == _CHAR:
        if shape[0] > 1:
            raise InputError("holds several lines of text; expected one")
        return _text(*elements.next(*_TEXTS), elements.order)
    if kind not in _NUMERIC:
        raise _DamagedError(f"an array of class {kind}")
    return _read_numbers(elements, shape)


def _read_numbers(elements: _Elements, shape: list[int]) -> np.ndarray:
    """Cast to the widest: they are stored in any type that holds their values."""
    values = _numbers(*elements.next(*_NUMBERS), elements.order)
    if values.size != math.prod(shape):
        raise _DamagedError(f"{values.size} numbers for an array of shape {shape}")
    wide = np.float64 if values.dtype.kind == "f" else np.int64
    return values.astype(wide).reshape(shape, order="F")


def _read_struct(elements: _Elements, shape: list[int], depth: int) -> list[dict[str, Any]]:
    if depth == _MAX_DEPTH:
        raise _DamagedError(f"structs within structs, {depth} deep")
    lengths = _numbers(*elements.next(_INT32), elements.order)
    _, names = elements.next(_INT8)
    if lengths.size != 1 or lengths[0] < 1 or len(names) % lengths[0]:
        raise _DamagedError(f"field names of lengths {lengths.tolist()} in {len(names)} bytes")
    length = int(lengths[0])
    fields = [_text(_INT8, names[i : i + length]) for i in range(0, len(names), length)]
    count = math.prod(shape)
    if 8 * count * max(len(fields), 1) > len(elements):
        raise _DamagedError(f"{count} structs in {len(elements)} bytes")
    return [{name: _read_field(elements, depth) for name in fields} for _ in range(count)]


def _read_field(elements: _Elements, depth: int) -> Any:
    _, data = elements.next(_MATRIX)
    return _read_array(elements.within(data), depth + 1)


def _numbers(kind: int, data: memoryview, order: str) -> np.ndarray:
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(data) % dtype.itemsize:
        raise _DamagedError(f"{len(data)} bytes of numbers of {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype)


def _text(kind: int, data: memoryview, order: str = "<") -> str:
    encoding = _TEXTS[kind]
    if encoding == "utf-16":
        encoding += "-le" if order == "<" else "-be"
    try:
        return bytes(data).decode(encoding).partition("\0")[0]
    except UnicodeDecodeError as error:
        raise _DamagedError(f"a text that is not {encoding}") from error
