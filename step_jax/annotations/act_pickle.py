"""`UCF101v2-GT.pkl` and `JHMDB-GT.pkl`: the ground truth files of ACT (Kalogeiton et al. 2017).

A Python 2 pickle of {labels: [name], gttubes: {video: {label: [float array (n, 5)]}}, nframes:
{video: n}, resolution: {video: (height, width)}, train_videos: [[name]], test_videos: [[name]]}.
A row is frame (from 1), x1, y1, x2, y2; the lists of videos are one for each split of the data set.

Whether the corners count from 0 or 1 could not be examined on a real file: `corner_base` says it,
and `corners.doubt_corner_base` what a file's own numbers suggest.
"""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

import numpy as np

from step_jax.annotations.corners import check_corner_base
from step_jax.annotations.foreign import (
    Source,
    check_class,
    naming,
    one_label,
    split_names,
    whole,
)
from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.annotations.restricted_pickle import load_restricted
from step_jax.annotations.splits import assign_splits
from step_jax.annotations.video_names import check_video_name
from step_jax.errors import InputError
from step_jax.replacing import replacing

_KIND = "ACT's ground truth"
_KEYS = ("labels", "gttubes", "nframes", "resolution", "train_videos", "test_videos")


def read_act(
    path: str | os.PathLike, *, split: int = 1, corner_base: int = 0, source: Source | None = None
) -> Annotations:
    """Reads ACT's ground truth; runs nothing that is in it.

    Args:
      split: which of the file's pairs of lists, from 1, gives 'train' and 'test'.
      corner_base: what the pixels of the first column and row are called in the file, 0 or 1.
      source: the name and the frames a second, which the file does not say; the rest it does.

    Returns the videos of the two lists that the file has frame counts of. Raises InputError naming
    the file, the video and the tube.
    """
    path, source = pathlib.Path(path), source or Source()
    check_corner_base(corner_base)
    content = load_restricted(path)
    if not (isinstance(content, dict) and all(key in content for key in _KEYS)):
        raise InputError(f"{path}: is not {_KIND}; expected a dictionary with {', '.join(_KEYS)}")
    with naming(str(path), _KIND):
        classes = tuple(str(name) for name in content["labels"])
        train, test = (_names(content[key], split, key) for key in _KEYS[-2:])
        listed, counted = {*train, *test}, set(content["nframes"])
        _check_counted(listed & set(content["gttubes"]) - counted)
    videos = []
    for name in sorted(listed & counted):
        with naming(f"{path}: video {name!r}", _KIND):
            videos.append(_video(name, content, classes, corner_base, source.fps))
    with naming(str(path), _KIND):
        annotations = Annotations(source.name, classes, videos, path.parent)
        return assign_splits(annotations, train=train, test=test)


def write_act(path: str | os.PathLike, annotations: Annotations, *, corner_base: int = 0):
    """Writes ACT's ground truth, with one pair of lists: 'test' and all other splits.

    The file is a pickle that Python 2 and numpy 1 read, too. Raises InputError for a tube with
    several classes.
    """
    check_corner_base(corner_base)
    tubes = {}
    for video in annotations.videos:
        with naming(f"video {video.id!r}", _KIND):
            tubes[video.id] = _tube_arrays(video, corner_base)
    train, test = split_names(annotations)
    content = {
        "labels": list(annotations.classes),
        "gttubes": tubes,
        "nframes": {video.id: video.num_frames for video in annotations.videos},
        "resolution": {video.id: (video.height, video.width) for video in annotations.videos},
        "train_videos": [train],
        "test_videos": [test],
    }
    # numpy 2 writes the name of a module that numpy 1 does not have. In protocol 2 such a name is
    # a line of its own, which no video name (printable) can contain.
    data = pickle.dumps(content, protocol=2)
    data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _names(lists: Any, split: int, key: str) -> list[str]:
    if not 1 <= split <= len(lists):
        raise InputError(f"{key} has {len(lists)} splits; found no split {split} (from 1)")
    names = [str(name) for name in lists[split - 1]]
    for name in names:
        check_video_name(name)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{key}, split {split}: video {twice!r} occurs twice")
    return names


def _check_counted(uncounted: set[str]):
    """Raises InputError for tubes of videos without a frame count, which would be lost."""
    if uncounted:
        raise InputError(
            f"video {min(uncounted)!r} has tubes, but nframes does not say its frames "
            f"({len(uncounted)} such videos)"
        )


def _video(
    name: str, content: dict, classes: tuple[str, ...], corner_base: int, fps: float
) -> Video:
    height, width = (whole(length, "resolution") for length in content["resolution"][name])
    num_frames = whole(content["nframes"][name], "nframes")
    tubes = []
    for label, arrays in content["gttubes"].get(name, {}).items():
        check_class(whole(label, "label"), name, classes)
        for rows in arrays:
            with naming(f"tube {len(tubes)}", _KIND):
                tubes.append(_tube(int(label), np.asarray(rows), corner_base))
    return Video(name, name, "all", fps, num_frames, width, height, tubes)


def _tube(label: int, rows: np.ndarray, corner_base: int) -> Tube:
    if rows.ndim != 2 or rows.shape[1] != 5 or not len(rows):
        raise InputError(f"has shape {rows.shape}; expected (n, 5): frame, x1, y1, x2, y2")
    frames = rows[:, 0]
    if not np.array_equal(frames, np.floor(frames)):
        raise InputError("has a frame number that is not whole")
    return Tube((label,), frames.astype(np.int64) - 1, rows[:, 1:].astype(np.float32) - corner_base)


def _tube_arrays(video: Video, corner_base: int) -> dict[int, list[np.ndarray]]:
    arrays: dict[int, list[np.ndarray]] = {}
    for number, tube in enumerate(video.tubes):
        with naming(f"tube {number}", _KIND):
            label = one_label(tube, _KIND)
        rows = np.column_stack([tube.frames + 1, tube.boxes + corner_base]).astype(np.float32)
        arrays.setdefault(label, []).append(rows)
    return arrays
