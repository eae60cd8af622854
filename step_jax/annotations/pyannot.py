"""`pyannot.pkl`: the corrected UCF101-24 annotations of Singh et al. (2017) as they give them.

The file is {video: {label, numf, annotations: [{label, sf, ef, boxes}]}}, with boxes x y w h whose
x and y count from 1, a first frame `sf` that counts from 0 and a last one `ef` exclusive.
`pyannot_with_class_names.pkl` is {db: that, trainvideos, classes}.
"""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

import numpy as np

from step_jax.annotations.foreign import (
    UNASSIGNED,
    Source,
    check_class,
    naming,
    one_label,
    split_names,
    whole,
)
from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.annotations.restricted_pickle import load_restricted
from step_jax.annotations.video_names import check_video_name
from step_jax.errors import InputError
from step_jax.replacing import replacing

_KIND = "a pyannot file"


def read_pyannot(path: str | os.PathLike, *, source: Source | None = None) -> Annotations:
    """Reads `pyannot.pkl` or `pyannot_with_class_names.pkl`; runs nothing that is in it.

    source: the frame and, for the file without class names, the classes; default UCF101-24's.

    Returns the videos by name, with the splits 'train' and 'test' where the file lists its training
    videos, else `UNASSIGNED`. Raises InputError naming the file, the video and the tube.
    """
    path, source = pathlib.Path(path), source or Source()
    database, classes, train = _unwrap(load_restricted(path), path, source)
    videos = []
    for name in sorted(database):
        split = UNASSIGNED if train is None else "train" if name in train else "test"
        with naming(f"{path}: video {name!r}", _KIND):
            videos.append(_video(name, database[name], classes, split, source))
    return Annotations(source.name, classes, videos, path.parent)


def write_pyannot(path: str | os.PathLike, annotations: Annotations):
    """Writes the form with class names; videos of any split but 'test' are for training.

    Raises InputError for what the format cannot hold: a tube with gaps or several classes, videos
    of different frame sizes (the file states none).
    """
    sizes = {(video.width, video.height) for video in annotations.videos}
    if len(sizes) > 1:
        raise InputError(f"{path}: {_KIND} has one frame size for all videos; found {sizes}")
    database = {}
    for video in annotations.videos:
        with naming(f"video {video.id!r}", _KIND):
            database[video.id] = _record(video)
    train, _ = split_names(annotations)
    content = {"db": database, "trainvideos": train, "classes": list(annotations.classes)}
    with replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps(content, protocol=2))


def _unwrap(
    content: Any, path: pathlib.Path, source: Source
) -> tuple[dict, tuple[str, ...], set[str] | None]:
    """The videos, the classes and, where the file has them, the names of the training videos."""
    database, classes, train = content, source.classes, None
    if isinstance(content, dict) and "db" in content:
        with naming(str(path), _KIND):
            database = content["db"]
            classes = tuple(map(str, content.get("classes", classes)))
            train = {str(name) for name in content["trainvideos"]}
    if not (isinstance(database, dict) and all(isinstance(v, dict) for v in database.values())):
        raise InputError(f"{path}: is not a pyannot file; expected a dictionary of videos")
    if not database:
        raise InputError(f"{path}: has no video")
    with naming(str(path), _KIND):
        for name in database:
            check_video_name(name)
    return database, classes, train


def _video(name: str, record: dict, classes: tuple[str, ...], split: str, source: Source) -> Video:
    num_frames = whole(record["numf"], "numf")
    tubes = []
    for number, tube in enumerate(record["annotations"]):
        with naming(f"tube {number}", _KIND):
            tubes.append(_tube(tube, name, classes))
    return Video(name, name, split, source.fps, num_frames, source.width, source.height, tubes)


def _tube(record: dict, name: str, classes: tuple[str, ...]) -> Tube:
    label, first, end = (whole(record[key], key) for key in ("label", "sf", "ef"))
    boxes = np.asarray(record["boxes"])
    if boxes.shape != (end - first, 4):
        raise InputError(
            f"boxes have shape {boxes.shape}, but sf {first} and ef {end} (exclusive) "
            f"need {(end - first, 4)}"
        )
    check_class(label, name, classes)
    return Tube((label,), np.arange(first, end), corners_of_sizes(boxes))


def corners_of_sizes(boxes: np.ndarray) -> np.ndarray:
    """x y w h, x and y from 1, to 0-based corners, float32 [n, 4].

    Cast first: the boxes are uint8 or uint16, and x + w overflows in a tenth of them.
    """
    x, y, width, height = boxes.astype(np.float32).T
    return np.stack([x - 1, y - 1, x - 1 + width, y - 1 + height], axis=1)


def _record(video: Video) -> dict[str, Any]:
    tubes = []
    for number, tube in enumerate(video.tubes):
        with naming(f"tube {number}", _KIND):
            tubes.append(_tube_record(tube))
    label = tubes[0]["label"] if tubes else 0
    return {"label": label, "numf": video.num_frames, "annotations": tubes}


def _tube_record(tube: Tube) -> dict[str, Any]:
    first, end = int(tube.frames[0]), int(tube.frames[-1]) + 1
    if len(tube.frames) != end - first:
        raise InputError(
            f"has gaps between its frames {first} and {end - 1}; {_KIND} has a box for every frame"
        )
    low, high = tube.boxes[:, :2], tube.boxes[:, 2:]
    boxes = np.concatenate([low + 1, high - low], axis=1)
    whole_boxes = boxes.astype(np.int32)
    return {
        "label": one_label(tube, _KIND),
        "sf": first,
        "ef": end,
        "boxes": whole_boxes if np.array_equal(whole_boxes, boxes) else boxes,
    }
