"""The checksum of record files (CRC-32C, RFC 3720 B.4), in numpy: TensorFlow has none to call.

A CRC is linear over the field of two elements: many rows of the data are worked on at once, four
bytes of each at a time, and their remainders put together by appending zeros to a row.
"""

from __future__ import annotations

import functools

import numpy as np

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
MAX_ROWS = 4096


def crc32c(data: bytes) -> int:
    """Of bytes of any length."""
    if len(data) < 4:
        return _byte_by_byte(data)
    rows = 1 << min(12, max(0, len(data).bit_length() - 9))
    width = -(-len(data) // rows) + 3 & ~3
    # Leading zeros do not change a register that starts at 0, as this one does ...
    padded = np.zeros(rows * width, np.uint8)
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    padded[-len(data) :][:4] ^= 255  # ... with what the standard starts from, put into the data.
    registers = np.zeros(rows, "<u4")
    for words in np.ascontiguousarray(padded.view("<u4").reshape(rows, -1).T):
        registers = _apply(_zeros(4), registers ^ words)
    while len(registers) > 1:
        registers = _apply(_zeros(width), registers[0::2]) ^ registers[1::2]
        width *= 2
    return int(registers[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """As record files store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _byte_by_byte(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = int(_zeros(1)[0, (register ^ byte) & 255]) ^ register >> 8
    return register ^ 0xFFFFFFFF


@functools.lru_cache(64)
def _zeros(count: int) -> np.ndarray:
    """uint32 [4, 256]: what `count` zero bytes make of a register, as the sum (XOR) of what they
    make of its four bytes."""
    if count == 1:
        values = np.arange(256, dtype="<u4")
        low = values
        for _ in range(8):
            low = np.where(low & 1, low >> 1 ^ np.uint32(POLYNOMIAL), low >> 1)
        return np.stack([low, values, values << 8, values << 16])
    half = _zeros(count // 2)
    both = _apply(half, half.ravel())
    return (_apply(_zeros(1), both) if count % 2 else both).reshape(4, 256)


def _apply(operator: np.ndarray, registers: np.ndarray) -> np.ndarray:
    places = np.ascontiguousarray(registers, "<u4").view(np.uint8).reshape(-1, 4)
    result = operator[0][places[:, 0]]
    for place in (1, 2, 3):
        result ^= operator[place][places[:, place]]
    return result
