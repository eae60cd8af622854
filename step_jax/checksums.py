"""Checksums of arrays and texts: whether what is read is what was written."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

import numpy as np


class Fingerprint(NamedTuple):
    """What identifies an array: its shape, its dtype's name and the CRC-32 of its bytes."""

    shape: tuple[int, ...]
    dtype: str
    crc32: int

    @classmethod
    def of(cls, array: np.ndarray) -> Fingerprint:
        """Of an array of any dtype, those that numpy itself does not know among them."""
        array = np.asarray(array)
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return cls(tuple(array.shape), str(array.dtype), zlib.crc32(data))

    @classmethod
    def from_json(cls, value: Any) -> Fingerprint:
        """Of what JSON makes of one, a list."""
        shape, dtype, crc32 = value
        return cls(tuple(shape), dtype, crc32)


def json_checksum(value: Any) -> int:
    """CRC-32 of a JSON value; the same before it is written and after it is read."""
    value = json.loads(json.dumps(value))  # keys become texts, by which they are sorted
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
