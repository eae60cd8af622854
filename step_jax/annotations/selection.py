"""Some videos of a data set, chosen by a glob over their ids: "Diving/*", "*_g0[12]_*"."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

import numpy as np

from step_jax.annotations.model import Annotations
from step_jax.errors import InputError


def matching(ids: Sequence[str], pattern: str) -> np.ndarray:
    """bool, for each id: whether the glob matches all of it; "" matches every one.

    `*` stands for any characters, "/" among them. Raises InputError where it matches none.
    """
    found = matches(ids, pattern)
    if not found.any():
        some = ", ".join(map(repr, map(str, ids[:3])))
        raise InputError(f"no video matches {pattern!r}; ids are such as {some}")
    return found


def matches(ids: Sequence[str], pattern: str) -> np.ndarray:
    """The same, of ids that may all be others."""
    return np.array([not pattern or fnmatch.fnmatchcase(str(id), pattern) for id in ids], bool)


def select_videos(annotations: Annotations, pattern: str, *, split: str) -> Annotations:
    """The data set with those videos of one split alone whose ids the glob matches.

    Classes stay, also those without a tube. Raises InputError for an unknown split, and where there
    is no such video in it.
    """
    videos = annotations.split(split)
    found = matching([video.id for video in videos], pattern)
    chosen = tuple(video for video, kept in zip(videos, found, strict=True) if kept)
    return dataclasses.replace(annotations, videos=chosen)
