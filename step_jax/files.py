"""Small text files, written completely or not at all."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from etils import epath

from step_jax.errors import InputError
from step_jax.replacing import replacing


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes `text` to `path`, making its folder; a reader never sees half of it.

    Raises InputError where that is not possible.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_written(path, error) from error


def check_folder(path: epath.PathLike, *, flag: str) -> None:
    """Raises InputError for an object store's URL, which would make a folder named `gs:` here."""
    if "://" in str(path):
        raise InputError(
            f"{flag} {path}: object stores cannot append to files or rename them, as runs do; "
            "mount the bucket and give the folder (docs/pods.md)"
        )


def not_written(path: epath.PathLike, error: OSError) -> InputError:
    """The one line for a file that the disk did not take."""
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); make room there or choose "
        "another folder"
    )


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")
