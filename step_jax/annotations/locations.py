"""Where the videos of a data set are under a folder: files, or folders of frames."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence

from step_jax.annotations.model import Annotations
from step_jax.errors import InputError

VIDEO_SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov")


def locate_videos(
    annotations: Annotations, root: str | os.PathLike, *, present_only: bool = False
) -> Annotations:
    """The same videos with their paths below `root`, as `<Class>/<video>` or `<video>`.

    present_only: leave out the videos that the folder lacks, which is else an error.

    Raises InputError for missing videos, and for one that is there more than once.
    """
    root = pathlib.Path(root)
    names = [video.id for video in annotations.videos]
    places = find_places(names, root, present_only=present_only)
    videos = [
        dataclasses.replace(video, path=places[video.id])
        for video in annotations.videos
        if video.id in places
    ]
    return dataclasses.replace(annotations, videos=videos, root=root)


def find_places(
    names: Sequence[str], root: pathlib.Path, *, present_only: bool = False
) -> dict[str, str]:
    """The path of each video below `root`; see `locate_videos`."""
    places = present_places(names, root)
    missing = [name for name in names if name not in places]
    if missing and not places:
        raise InputError(
            f"{root}: has none of the {len(names)} videos, such as {missing[0]!r}; expected files "
            "or folders of frames named <Class>/<video> or <video>"
        )
    if missing and not present_only:
        raise InputError(
            f"{root}: {len(missing)} of {len(names)} videos are missing, such as {missing[0]!r}; "
            "complete the folder, or take only those present (--present_only)"
        )
    return places


def present_places(names: Iterable[str], root: pathlib.Path) -> dict[str, str]:
    """The paths below `root` of the videos that are there, perhaps of none."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of videos")
    places = {}
    for name in names:
        forms = dict.fromkeys((name, name.rpartition("/")[2]))
        found = [f"{form}{suffix}" for form in forms for suffix in VIDEO_SUFFIXES]
        found = [file for file in found if (root / file).is_file()]
        found += [form for form in forms if (root / form).is_dir()]
        if len(found) > 1:
            raise InputError(
                f"{root}: video {name!r} is there more than once: {', '.join(found)}; keep one"
            )
        if found:
            places[name] = found[0]
    _check_distinct(places, root)
    return places


def _check_distinct(places: dict[str, str], root: pathlib.Path):
    """`a/x` and `b/x` are not both the file `x`."""
    owners: dict[str, str] = {}
    for name, place in places.items():
        if place in owners:
            raise InputError(
                f"{root}: {place} could be video {owners[place]!r} or {name!r}; put the videos "
                "into folders of their classes"
            )
        owners[place] = name
