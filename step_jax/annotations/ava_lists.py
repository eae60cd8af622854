"""AVA's lists: the movies' file names and the timestamps that have annotations."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from step_jax.annotations.ava_csv import LAST_SECOND
from step_jax.errors import InputError


def read_file_names(path: str | os.PathLike) -> dict[str, str]:
    """The movies of a list, one file name a line: {video id: file name}, in the list's order.

    The id is the name without its suffix; lists without suffixes give ids as names. Raises
    InputError with the line for a name that is a path, and for a video that occurs twice.
    """
    names: dict[str, str] = {}
    for line, name in _lines(path):
        if "/" in name or "\\" in name or name.startswith("."):
            raise InputError(f"{path}:{line}: {name!r}; expected a file's name without a folder")
        video = pathlib.PurePosixPath(name).stem
        if video in names:
            raise InputError(f"{path}:{line}: video {video} occurs twice; expected each once")
        names[video] = name
    if not names:
        raise InputError(f"{path}: has no lines; expected one file name a line")
    return names


def read_timestamps(path: str | os.PathLike) -> np.ndarray:
    """The seconds of a list, one a line: int32 [N] in the list's order.

    Raises InputError with the line for what is no second of a movie.
    """
    seconds = []
    for line, text in _lines(path):
        if not (text.isascii() and text.isdigit()) or int(text) > LAST_SECOND:
            raise InputError(f"{path}:{line}: {text!r}; expected a second of the movie, as 0902")
        seconds.append(int(text))
    return np.array(seconds, np.int32)


def _lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, and their numbers."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read: {reason}") from error
    for line, content in enumerate(text.splitlines(), 1):
        if content.strip():
            yield line, content.strip()
