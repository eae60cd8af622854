"""Paths for libraries that take them as UTF-8 text, which a file's name need not be."""

from __future__ import annotations

import os

from step_jax.errors import InputError


def check_utf8(path: str | os.PathLike) -> None:
    """Raises InputError for a path that is no UTF-8, where OpenCV would crash the process.

    Python reads such names, of old disks and archives mostly, as text with lone surrogates.
    """
    try:
        os.path.abspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        name = os.fsencode(path).decode("utf-8", errors="backslashreplace")
        raise InputError(
            f"{name}: its name, or that of a folder above it, is not UTF-8; rename it"
        ) from error
