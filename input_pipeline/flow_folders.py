"""Where the flow images of a data set's videos lie.

A flow folder mirrors the videos: one folder for each, with as many images as the video has frames
(`step_jax.flow` says how they are encoded). Imports no TensorFlow.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from step_jax import video as videos
from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError

TOLD = "flow.json"  # what `python -m step_jax.flow` says of its images


def describe_flow(root: str | os.PathLike) -> dict[str, Any]:
    """How the flow was computed: what `flow.json` tells, else the folder's name as its "method".

    "short_side" is that of the frames that it was computed of, 0 where they kept their size.
    Versions of programs are left out: the same flow may come of two.

    Raises InputError for a folder that is not there, or a `flow.json` that tells no method.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise InputError(f"--flow {root}: no such folder; `python -m step_jax.flow` makes one")
    path = root / TOLD
    if not path.exists():
        return {"method": root.resolve().name, "short_side": 0}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        method = told["method"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: tells no method ({error!r}); expected JSON with a key 'method', or no such "
            "file beside images that another program made"
        ) from error
    if not isinstance(method, str) or not method:
        raise InputError(f"{path}: method is {method!r}; expected a name, e.g. 'brox'")
    if type(told.setdefault("short_side", 0)) is not int or told["short_side"] < 0:
        raise InputError(f"{path}: short_side is {told['short_side']!r}; expected pixels, or 0")
    return {key: value for key, value in told.items() if key != "versions"}


def find_flow(root: str | os.PathLike, annotations: Annotations) -> dict[str, pathlib.Path]:
    """The folder of each video's flow images, by the video's id.

    ROOT/ID, ROOT/PATH without suffix, or ROOT/NAME, the last part of the id: the first that is
    there.

    Raises InputError, naming video and folder, where there is none, or one with another number of
    images than the video has frames, or one that is another video's.
    """
    found, owners = {}, {}
    for video in annotations.videos:
        folder = _flow_folder(pathlib.Path(root), video)
        owner = owners.setdefault(folder, video)
        if owner.path != video.path:
            raise InputError(
                f"{folder}: is the flow of {owner.id!r} and of {video.id!r}, which are different "
                "videos; name the folders by the ids"
            )
        _check_count(folder, video)
        found[video.id] = folder
    return found


def _flow_folder(root: pathlib.Path, video: Video) -> pathlib.Path:
    candidates = list(_candidates(video))
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    tried = ", ".join(str(root / candidate) for candidate in candidates) or "none below it"
    raise InputError(
        f"video {video.id!r}: has no folder of flow images; looked for {tried}: compute its flow, "
        "or build the records without --flow"
    )


def _candidates(video: Video) -> Iterator[pathlib.PurePath]:
    """Relative folders; an id or a path that would lead out of the flow folder is no candidate."""
    names = [video.id, os.path.splitext(video.path)[0], video.path, pathlib.PurePath(video.id).name]
    for name in dict.fromkeys(names):
        path = pathlib.PurePath(name)
        if path.parts and not path.is_absolute() and ".." not in path.parts:
            yield path


def _check_count(folder: pathlib.Path, video: Video):
    try:
        count = videos.count_frames(folder)
        if count == video.num_frames:
            videos.check_complete(folder)
    except InputError as error:
        raise InputError(f"video {video.id!r}: flow: {error}") from error
    if count != video.num_frames:
        raise InputError(
            f"video {video.id!r}: {count} flow images in {folder}, {video.num_frames} frames; "
            "expected as many: compute the flow of this video again"
        )
