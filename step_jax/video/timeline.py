"""When a movie's first frame is shown, exactly: what OpenCV does not tell, from the container.

OpenCV counts time from the stream's first timestamp, and gives that only to half a frame. Movies
that were cut, remuxed or start with their sound have another first timestamp than 0, and whoever
counts seconds of the movie needs it.
"""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from step_jax.errors import InputError
from step_jax.video.completeness import ebml_element

_SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_TIMESTAMP_SCALE, _TRACK, _TRACK_NUMBER, _TRACK_TYPE = 0x2AD7B1, 0xAE, 0xD7, 0x83
_CLUSTER_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
_VIDEO_TRACK = 1
_EMPTY_EDIT = -1
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Timeline:
    """time_base: seconds a tick. first: the first frame's presentation time, in ticks."""

    time_base: Fraction
    first: int


def read_timeline(path: str | os.PathLike) -> Timeline | None:
    """The timeline of the first video track of a Matroska, WebM or MP4 file.

    None for other containers, and for what is not where these usually have it. Raises InputError
    for a file that cannot be read.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            if head[:4] == b"\x1a\x45\xdf\xa3":
                return _read_matroska(file, size)
            if head[4:] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
                return _read_mp4(file, size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (struct.error, ZeroDivisionError):
        pass
    return None


# --- Matroska -------------------------------------------------------------------------------------


def _read_matroska(file: BinaryIO, size: int) -> Timeline | None:
    nanoseconds, track = 1_000_000, None
    for name, start, stop in _elements(file, 0, size, enter=_SEGMENT):
        if name == _INFO:
            nanoseconds = _number(file, start, stop, _TIMESTAMP_SCALE) or nanoseconds
        elif name == _TRACKS:
            track = _video_track(file, start, stop)
        elif name == _CLUSTER and track is not None:
            first = _first_block(file, start, stop, track)
            if first is not None:
                return Timeline(Fraction(nanoseconds, 10**9), first)
    return None


def _video_track(file: BinaryIO, start: int, stop: int) -> int | None:
    for name, *inside in _elements(file, start, stop):
        if name == _TRACK and _number(file, *inside, _TRACK_TYPE) == _VIDEO_TRACK:
            return _number(file, *inside, _TRACK_NUMBER)
    return None


def _first_block(file: BinaryIO, start: int, stop: int, track: int) -> int | None:
    """The time of a cluster's first frame of a track: the cluster's, and 16 bits relative to it."""
    time = 0
    for name, begin, end in _elements(file, start, stop, enter=_BLOCK_GROUP):
        if name == _CLUSTER:  # the one before was of unknown size
            return None
        if name == _CLUSTER_TIMESTAMP:
            time = int.from_bytes(_read(file, begin, end - begin), "big")
        elif name in (_SIMPLE_BLOCK, _BLOCK):
            head = _read(file, begin, 10)
            width = 9 - head[0].bit_length()
            if int.from_bytes(head[:width], "big") & ((1 << 7 * width) - 1) == track:
                return time + struct.unpack_from(">h", head, width)[0]
    return None


def _number(file: BinaryIO, start: int, stop: int, wanted: int) -> int | None:
    for name, begin, end in _elements(file, start, stop):
        if name == wanted:
            return int.from_bytes(_read(file, begin, end - begin), "big")
    return None


def _elements(
    file: BinaryIO, start: int, stop: int, *, enter: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """(name, first byte, end) of the elements in a range, and of those in elements named `enter`.

    One of unknown size reaches to the end of the range.
    """
    while start < stop:
        name, length, data = ebml_element(_read(file, start, 12), start)
        end = stop if length is None else min(stop, data + length)
        if name == enter:
            start = data
            continue
        yield name, data, end
        start = end


# --- MP4 ------------------------------------------------------------------------------------------


def _read_mp4(file: BinaryIO, size: int) -> Timeline | None:
    """The first frame's time: what an edit list waits, else the first sample's composition time.

    FFmpeg shows what comes after the wait at once, whatever its composition time.
    """
    moov = _box(file, 0, size, b"moov")
    if moov is None:
        return None
    movie_rate = _timescale(file, _box(file, *moov, b"mvhd"))
    for kind, *track in _boxes(file, *moov):
        media = _box(file, *track, b"mdia") if kind == b"trak" else None
        if media is None or not _is_video(file, media):
            continue
        rate = _timescale(file, _box(file, *media, b"mdhd"))
        wait = _edited_start(file, _box(file, *track, b"edts", b"elst"), rate, movie_rate)
        table = _box(file, *media, b"minf", b"stbl")
        if table is None or not _num_entries(file, _box(file, *table, b"stts")):
            return None  # fragmented: the samples are elsewhere
        if wait is None:
            wait = _first_composition_offset(file, _box(file, *table, b"ctts"))
        return Timeline(Fraction(1, rate), wait)
    return None


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte, end) of the boxes in a range."""
    while start + 8 <= stop:
        length, kind = struct.unpack(">I4s", _read(file, start, 8))
        data = start + 8
        if length == 1:
            length, data = int.from_bytes(_read(file, data, 8), "big"), data + 8
        end = stop if length == 0 else min(stop, start + max(length, 8))
        yield kind, data, end
        start = end


def _box(file: BinaryIO, start: int, stop: int, *kinds: bytes) -> tuple[int, int] | None:
    """The range of the first box of a kind, and in it of the next kind, and so on."""
    for kind, begin, end in _boxes(file, start, stop):
        if kind == kinds[0]:
            return _box(file, begin, end, *kinds[1:]) if kinds[1:] else (begin, end)
    return None


def _is_video(file: BinaryIO, media: tuple[int, int]) -> bool:
    handler = _box(file, *media, b"hdlr")
    return handler is not None and _read(file, handler[0] + 8, 4) == b"vide"


def _timescale(file: BinaryIO, header: tuple[int, int] | None) -> int:
    """Ticks a second, of an mvhd or mdhd box."""
    data = b"" if header is None else _read(file, header[0], 24)
    return struct.unpack_from(">I", data, 20 if data[:1] == b"\1" else 12)[0]


def _edited_start(
    file: BinaryIO, edits: tuple[int, int] | None, rate: int, movie_rate: int
) -> int | None:
    """How long the edit list waits before it shows anything, in ticks; None if it shows nothing."""
    if edits is None:
        return None
    data = _read(file, edits[0], min(edits[1] - edits[0], _HEAD_BYTES))
    entry = struct.Struct(">QqI" if data[:1] == b"\1" else ">IiI")
    wait = 0
    for number in range(struct.unpack_from(">I", data, 4)[0]):
        duration, media_time, _ = entry.unpack_from(data, 8 + number * entry.size)
        if media_time != _EMPTY_EDIT:
            return round(Fraction(wait * rate, movie_rate))
        wait += duration
    return None


def _first_composition_offset(file: BinaryIO, offsets: tuple[int, int] | None) -> int:
    if offsets is None or not _num_entries(file, offsets):
        return 0
    return struct.unpack(">i", _read(file, offsets[0] + 12, 4))[0]


def _num_entries(file: BinaryIO, table: tuple[int, int] | None) -> int:
    return 0 if table is None else struct.unpack(">I", _read(file, table[0] + 4, 4))[0]


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)
