"""`finalAnnots.mat`: the corrected UCF101-24 annotations (Singh et al. 2017) for MATLAB.

The file has `annot (1, 3194)` of {num_imgs, name, tubes: (1, n) of {sf, ef, class, boxes}}; sf and
ef count from 1 and are inclusive, class counts from 1, boxes are x y w h with x and y from 1. Every
number is a uint8 or uint16 array, whichever its value fits.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from step_jax.annotations.foreign import UNASSIGNED, Source, check_class, naming, whole
from step_jax.annotations.mat_file import read_mat_variable
from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.annotations.pyannot import corners_of_sizes
from step_jax.annotations.video_names import check_video_name
from step_jax.errors import InputError

_KIND = "finalAnnots.mat"
_VIDEO_FIELDS = ("num_imgs", "name", "tubes")
_TUBE_FIELDS = ("sf", "ef", "class", "boxes")


def read_final_annots(path: str | os.PathLike, *, source: Source | None = None) -> Annotations:
    """Reads `finalAnnots.mat`; the videos are of the split `UNASSIGNED`.

    source: the classes and the frame, which the file does not say; default UCF101-24's.

    Raises InputError naming the file, the video and the tube.
    """
    path, source = pathlib.Path(path), source or Source()
    records = _structs(read_mat_variable(path, "annot"), _VIDEO_FIELDS, f"{path}: annot")
    videos = []
    for number, record in enumerate(records):
        with naming(f"{path}: annot {number + 1}", _KIND):
            name = record["name"]
            check_video_name(name)
        with naming(f"{path}: video {name!r}", _KIND):
            videos.append(_video(name, record, source))
    with naming(str(path), _KIND):
        return Annotations(source.name, source.classes, videos, path.parent)


def _structs(value: Any, fields: tuple[str, ...], where: str) -> list[dict[str, Any]]:
    """The elements of a struct array that has these fields."""
    if not (isinstance(value, list) and all(set(fields) <= set(record) for record in value)):
        raise InputError(f"{where}: expected a struct array with the fields {', '.join(fields)}")
    return value


def _video(name: str, record: dict[str, Any], source: Source) -> Video:
    num_frames = _number(record["num_imgs"], "num_imgs")
    tubes = []
    for number, tube in enumerate(_structs(record["tubes"], _TUBE_FIELDS, "tubes")):
        with naming(f"tube {number}", _KIND):
            tubes.append(_tube(tube, name, source.classes))
    return Video(name, name, UNASSIGNED, source.fps, num_frames, source.width, source.height, tubes)


def _tube(record: dict[str, Any], name: str, classes: tuple[str, ...]) -> Tube:
    first, last = _number(record["sf"], "sf"), _number(record["ef"], "ef")
    label = _number(record["class"], "class") - 1
    boxes = _numeric(record["boxes"], "boxes")
    if boxes.shape != (last - first + 1, 4):
        raise InputError(
            f"boxes have shape {boxes.shape}, but sf {first} and ef {last} (inclusive) "
            f"need {(last - first + 1, 4)}"
        )
    check_class(label, name, classes)
    return Tube((label,), np.arange(first - 1, last), corners_of_sizes(boxes))


def _number(value: Any, what: str) -> int:
    """A 1 x 1 array, as a Python number before anything is computed with it."""
    array = _numeric(value, what)
    if array.size != 1:
        raise InputError(f"{what} has shape {array.shape}; expected one number")
    return whole(array.item(), what)


def _numeric(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise InputError(f"{what} is {type(value).__name__}; expected numbers")
    return value
