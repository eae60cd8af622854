"""Whether JPEGs are all of one size, told by their headers without decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # markers among those of frame headers that are none


def with_alike(function: Callable[..., np.ndarray], count: int) -> Callable[..., np.ndarray]:
    """`function` with `count` more arguments before its own, JPEGs [n] each.

    It fails where those of an argument differ in size: a crop would be another part of each. (In
    TensorFlow's graph a call of its own would take as long as this, and its reading of headers ten
    times as long.)
    """

    def checked(*arguments: np.ndarray) -> np.ndarray:
        for jpegs in arguments[:count]:
            check_alike(jpegs)
        return function(*arguments[count:])

    return checked


def check_alike(jpegs: Sequence[bytes]):
    """Raises ValueError for JPEGs of different sizes."""
    first = jpegs[0]
    place = _place_of_size(first)
    header, size = first[: place + 4], first[place : place + 4]
    for jpeg in jpegs:
        # Of one encoder they mostly have one header.
        if not jpeg.startswith(header):
            place = _place_of_size(jpeg)
            if jpeg[place : place + 4] != size:
                raise ValueError("JPEGs of different sizes")


def _place_of_size(jpeg: bytes) -> int:
    """Where height and width are, two bytes each (ITU-T T.81, B.2.2). Raises ValueError."""
    place = 2
    while place + 9 <= len(jpeg) and jpeg[place] == 0xFF:
        marker = jpeg[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            return place + 5
        filled = marker == 0xFF  # any number of these may come before a marker
        place += 1 if filled else 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    raise ValueError("no JPEG, or one without a size")
