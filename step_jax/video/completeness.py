"""Is a video all there? FFmpeg plays what is left of a copy that broke off as if it were the whole.

Only the container is read, never the pictures: the sizes that it states against the file's own.
"""

from __future__ import annotations

import os
import pathlib
import re
import struct
from itertools import pairwise
from typing import BinaryIO

from step_jax.errors import InputError
from step_jax.video.reading import check_exists, image_files

_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_EBML_HEADER, _EBML_SEGMENT = 0x1A45DFA3, 0x18538067
_HDRL_SEARCHED_BYTES = 1 << 16


def check_complete(path: str | os.PathLike):
    """Raises InputError if a part of a video is missing, by what its container states.

    MP4 and MOV: the boxes, and that there are both an index and pictures. AVI: the RIFF chunks and
    the OpenDML index. WebM and Matroska: the segment, or its clusters where a live recording left
    its size open. A folder of images: no number missing in a sequence. Other formats (MPEG streams)
    state nothing and pass: for them only the count of the frames can tell.
    """
    path = pathlib.Path(path)
    check_exists(path)
    if path.is_dir():
        _check_numbering(image_files(path))
        return
    try:
        with path.open("rb") as file:
            _check_container(file, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _check_container(file: BinaryIO, path: pathlib.Path):
    size = os.fstat(file.fileno()).st_size
    head = file.read(12)
    if head[4:8] in _MP4_FIRST_BOXES:
        _check_mp4(file, size, path)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        _check_avi(file, size, path)
    elif head[:4] == _EBML_HEADER.to_bytes(4, "big"):
        _check_matroska(file, size, path)


def _check_mp4(file: BinaryIO, size: int, path: pathlib.Path):
    position, kinds = 0, set()
    while position + 8 <= size:
        length, kind = struct.unpack(">I4s", _read(file, position, 8))
        if not kind.isalnum() and kinds >= {b"moov"}:
            return  # what some cameras append is not a box
        if length == 1:
            _check_end(path, stated=position + 16, size=size)
            length = int.from_bytes(_read(file, position + 8, 8), "big")
        kinds.add(kind)
        position = size if length == 0 else position + max(length, 8)
    if position < size and any(_read(file, position, 8)):  # zeros are padding, this is a box
        position += 8
    _check_end(path, stated=position, size=size)
    if b"moov" not in kinds:
        raise _truncated(path, "it has no index (MP4 'moov' box)")
    if not kinds & {b"mdat", b"moof"}:
        raise _truncated(path, "it has an index but no pictures (MP4 'mdat' box)")


def _check_avi(file: BinaryIO, size: int, path: pathlib.Path):
    """An AVI is a RIFF chunk, followed by 'AVIX' ones where it is longer than 1 or 2 GB."""
    position = 0
    while (header := _read(file, position, 8))[:4] == b"RIFF" and len(header) == 8:
        length = int.from_bytes(header[4:], "little")
        if length == 0:
            raise _truncated(path, "its writer did not fill in the size (AVI 'RIFF' chunk)")
        _check_end(path, stated=position + 8 + length, size=size)
        position += 8 + length + length % 2
    _check_end(path, stated=_opendml_end(_read(file, 0, _HDRL_SEARCHED_BYTES)), size=size)


def _opendml_end(head: bytes) -> int:
    """The last byte that the OpenDML super index of the first stream points to (0: no such index).

    Layout of 'indx': length, entry size / 4, sub type, type (0: an index of indices), number of
    entries, chunk name, 12 bytes, then entries of offset, size, duration.
    """
    position = head.find(b"indx")
    if position < 0 or len(head) < position + 32 or head[position + 11] != 0:
        return 0
    count = int.from_bytes(head[position + 12 : position + 16], "little")
    entries = head[position + 32 : position + 32 + 16 * count]
    entries = entries[: len(entries) // 16 * 16]
    return max(
        (offset + length for offset, length, _ in struct.iter_unpack("<QII", entries)), default=0
    )


def _check_matroska(file: BinaryIO, size: int, path: pathlib.Path):
    """Walks the elements; one of unknown size (a live recording) is entered instead of skipped."""
    position = 0
    while position < size:
        name, length, data = ebml_element(_read(file, position, 12), position)
        if data > size:
            raise _truncated(path, f"it ends inside an element's header at byte {position}")
        if length is not None:
            _check_end(path, stated=data + length, size=size)
            if name == _EBML_SEGMENT:
                return
        position = data + (length or 0)


def ebml_element(header: bytes, position: int) -> tuple[int, int | None, int]:
    """Name, length (None: unknown) and first byte of the data of the element at `position`.

    Both numbers start with as many zero bits as bytes follow the first; only the length's marker
    bit does not count, and a length of all ones means unknown.
    """
    name_bytes = _ebml_width(header, 0)
    length_bytes = _ebml_width(header, name_bytes)
    length = int.from_bytes(header[name_bytes : name_bytes + length_bytes], "big")
    unknown = (1 << 7 * length_bytes) - 1
    length &= unknown
    return (
        int.from_bytes(header[:name_bytes], "big"),
        None if length == unknown else length,
        position + name_bytes + length_bytes,
    )


def _ebml_width(header: bytes, offset: int) -> int:
    first = header[offset] if offset < len(header) else 0
    return 9 - first.bit_length()


def _check_numbering(files: list[pathlib.Path]):
    """A missing number in 1, 2, 4 is a lost frame; every fifth of 5, 10, 15 was chosen so."""
    numbers = [re.findall(r"\d+", file.stem) for file in files]
    if not all(numbers):
        return
    last = [int(found[-1]) for found in numbers]
    steps = [after - before for before, after in pairwise(last)]
    if not steps or min(steps) != 1 or max(steps) == 1:
        return
    hole = next(index for index, step in enumerate(steps) if step > 1)
    raise InputError(
        f"{files[hole].parent}: the frames between {files[hole].name} and {files[hole + 1].name} "
        "are missing; expected consecutive numbers"
    )


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def _check_end(path: pathlib.Path, *, stated: int, size: int):
    if stated > size:
        raise _truncated(path, f"its container needs {stated} bytes and the file has {size}")


def _truncated(path: pathlib.Path, why: str) -> InputError:
    return InputError(f"{path}: is truncated: {why}; copy or record it again")
