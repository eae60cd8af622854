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
    records = _structs(_load(path), _VIDEO_FIELDS, f"{path}: annot")
    videos = []
    for number, record in enumerate(records):
        where = f"{path}: annot {number + 1}"
        with naming(where, _KIND):
            name = _text(record["name"])
            check_video_name(name)
        with naming(f"{path}: video {name!r}", _KIND):
            videos.append(_video(name, record, source))
    with naming(str(path), _KIND):
        return Annotations(source.name, source.classes, videos, path.parent)


def _load(path: pathlib.Path) -> Any:
    import scipy.io  # takes a quarter of a second, for one format

    try:
        with path.open("rb") as file:
            content = scipy.io.loadmat(file, variable_names=["annot"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except NotImplementedError as error:
        raise InputError(
            f"{path}: is a MATLAB 7.3 file; save it again with save('-v7', ...)"
        ) from error
    except Exception as error:  # a damaged file raises anything at all
        raise InputError(f"{path}: is not a MATLAB file, or a damaged one: {error!r}") from error
    if "annot" not in content:
        raise InputError(f"{path}: is not {_KIND}: it has no variable 'annot'")
    return content["annot"]


def _structs(array: Any, fields: tuple[str, ...], where: str) -> np.ndarray:
    """The elements of a struct array. MATLAB's objects and functions are arrays of other fields."""
    names = getattr(getattr(array, "dtype", None), "names", None) or ()
    if not set(fields) <= set(names):
        raise InputError(f"{where}: expected a struct array with the fields {', '.join(fields)}")
    return array.reshape(-1)


def _video(name: str, record: np.void, source: Source) -> Video:
    num_frames = _number(record["num_imgs"], "num_imgs")
    tubes = []
    for number, tube in enumerate(_structs(record["tubes"], _TUBE_FIELDS, "tubes")):
        with naming(f"tube {number}", _KIND):
            tubes.append(_tube(tube, name, source.classes))
    return Video(name, name, UNASSIGNED, source.fps, num_frames, source.width, source.height, tubes)


def _tube(record: np.void, name: str, classes: tuple[str, ...]) -> Tube:
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
    array = np.asarray(value)
    if array.dtype.kind not in "uif":
        raise InputError(f"{what} is of type {array.dtype}; expected numbers")
    return array


def _text(value: Any) -> str:
    array = np.asarray(value)
    if array.dtype.kind != "U" or array.size != 1:
        raise InputError(f"name is of type {array.dtype}, shape {array.shape}; expected a text")
    return str(array.item())
