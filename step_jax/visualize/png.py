"""Writing a picture."""

from __future__ import annotations

import os
import pathlib

import cv2
import numpy as np

from step_jax.errors import InputError
from step_jax.replacing import replacing


def write_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes an RGB picture, uint8 `[H, W, 3]`.

    Raises InputError for another suffix or a folder that is missing.
    """
    check_png(path)
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def check_png(path: str | os.PathLike) -> None:
    """Raises InputError for a name of another kind of file."""
    if pathlib.Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: cannot write this kind of picture; expected .png")
