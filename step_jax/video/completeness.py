"""Is a video file all there? FFmpeg plays the first half of a copy that broke off as if it were.

Only the container is read, never the pictures: the sizes it states against the size of the file.
"""

from __future__ import annotations

import os
import pathlib


def check_complete(path: str | os.PathLike):
    """Raises InputError if the container states more bytes than the file has."""
    pathlib.Path(path)
