"""Small text files, written completely or not at all."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.storage import make_folder


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes `text` to `path`, making its folder; a reader never sees half of it.

    Raises InputError where that is not possible.
    """
    try:
        make_folder(epath.Path(path).parent)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: epath.PathLike, error: OSError) -> InputError:
    """The one line for a file that the disk did not take."""
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); make room there or choose "
        "another folder"
    )


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")
