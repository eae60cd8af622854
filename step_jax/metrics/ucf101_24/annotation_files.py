"""Annotations as the commands take them: native, or as they are distributed."""

from __future__ import annotations

import pathlib

from step_jax.annotations import Annotations, read_native, select_videos
from step_jax.annotations.pyannot import read_pyannot
from step_jax.annotations.splits import assign_splits, read_video_list
from step_jax.errors import InputError


def read_annotations(path: str, split_file: str | None = None) -> Annotations:
    """Native JSON, or `pyannot.pkl` with a list of its test videos.

    Raises InputError for another kind of file, and as the readers.
    """
    suffix = pathlib.Path(path).suffix
    if suffix == ".pkl":
        annotations = read_pyannot(path)
        test = read_video_list(split_file) if split_file else None
        return assign_splits(annotations, test=test) if test else annotations
    if suffix == ".mat":
        raise InputError(
            f"{path}: expected native annotations (JSON) or pyannot.pkl; convert it by "
            "`python -m input_pipeline.convert_annotations`"
        )
    return read_native(path)


def read_chosen(
    path: str, split_file: str | None = None, *, split: str, videos: str
) -> tuple[Annotations, frozenset[str]]:
    """The videos of a split whose ids match the glob `videos`, and the ids of its other videos.

    Rows of the latter may be in a table and do not count. Raises InputError as `read_annotations`
    and `select_videos`.
    """
    annotations = read_annotations(path, split_file)
    chosen = select_videos(annotations, videos, split=split)
    every = {video.id for video in annotations.split(split)}
    return chosen, frozenset(every - {video.id for video in chosen.videos})
