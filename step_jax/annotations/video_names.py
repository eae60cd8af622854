"""Names of videos in annotation files, which become paths: `Class/v_Class_g01_c01`."""

from __future__ import annotations

import re

from step_jax.errors import InputError

_GROUP = re.compile(r"_g(\d+)_")


def check_video_name(name: object):
    """Raises InputError for a name that is no relative path below a folder.

    The names come from files of others and are looked for on disk, so none may lead elsewhere.
    """
    text = isinstance(name, str) and name.isprintable() and "\\" not in name
    if not (text and all(part not in ("", ".", "..") for part in name.split("/"))):
        raise InputError(f"video {name!r}: expected a name like 'Class/v_Class_g01_c01'")


def class_folder(name: str) -> str:
    """`Class` of `Class/video`; "" where the name has no folder."""
    return name.rpartition("/")[0].rpartition("/")[2]


def group_of(name: str) -> int | None:
    """1 of `v_Class_g01_c02`: UCF101's videos of one group were cut from one recording."""
    found = _GROUP.search(name)
    return int(found[1]) if found else None
