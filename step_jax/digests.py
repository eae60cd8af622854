"""A few letters in place of files and trees of arrays, where these are to be compared."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import jax
import numpy as np


def digest(*parts: Any) -> str:
    """16 letters that differ where files or trees of arrays differ.

    Args:
      parts: paths, whose bytes count, and pytrees of arrays.
    """
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, (str, os.PathLike)):
            with open(part, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    state.update(block)
            continue
        for path, leaf in jax.tree_util.tree_leaves_with_path(part):
            array = np.ascontiguousarray(leaf)
            state.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            state.update(array.tobytes())
    return state.hexdigest()[:16]
