"""The one internal form of spatio-temporal annotation: data sets, videos, tubes.

Every reader produces it and everything else consumes it. What is wrong in itself (a NaN, an empty
box, a tube longer than its video) cannot be constructed, so no consumer has to check again; the
errors say which tube, frame and box, and the readers put the file and the video before them.
"""

from __future__ import annotations

import math
import os
import pathlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from step_jax.errors import InputError


@dataclass(frozen=True, eq=False)
class Tube:
    """One actor doing one or several actions: a box in each of its frames.

    labels: indices into the data set's classes, at least one, no repeats.
    frames: int32 [n], strictly increasing 0-based frame numbers; where numbers are missing the
        actor is not annotated (a gap).
    boxes: float32 [n, 4], corners x1 < x2 and y1 < y2 in pixels of the annotation's frame, each
        [x1, y1, x2, y2].
    """

    labels: tuple[int, ...]
    frames: np.ndarray
    boxes: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(int(label) for label in self.labels))
        object.__setattr__(self, "frames", _frozen(self.frames, np.int32))
        object.__setattr__(self, "boxes", _frozen(self.boxes, np.float32))
        _check_labels(self.labels)
        _check_frames(self.frames)
        _check_boxes(self.frames, self.boxes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tube):
            return NotImplemented
        return (
            self.labels == other.labels
            and np.array_equal(self.frames, other.frames)
            and np.array_equal(self.boxes, other.boxes)
        )


@dataclass(frozen=True)
class Video:
    """One video, its place on disk and its tubes.

    id: unique in the data set; the name used in records, detections and reports.
    path: a video file or a folder of frames, relative to `Annotations.root`, or absolute.
    fps: frames a second, which a folder of frames does not know itself.
    num_frames: of the whole video, annotated or not.
    width, height: pixels of the coordinate frame of the boxes; the file may have another size.
    """

    id: str
    path: str
    split: str
    fps: float
    num_frames: int
    width: int
    height: int
    tubes: tuple[Tube, ...]

    def __post_init__(self):
        object.__setattr__(self, "tubes", tuple(self.tubes))
        for name in ("id", "path", "split"):
            _check_name(name, getattr(self, name))
        if not 0 < self.fps < math.inf:
            raise InputError(f"fps is {self.fps}; expected a positive number of frames a second")
        for name in ("num_frames", "width", "height"):
            if not 1 <= getattr(self, name) < 2**31:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 to 2**31 - 1")
        for number, tube in enumerate(self.tubes):
            self._check_tube(number, tube)

    def _check_tube(self, number: int, tube: Tube):
        first, last = int(tube.frames[0]), int(tube.frames[-1])
        if first < 0 or last >= self.num_frames:
            raise InputError(
                f"tube {number} covers frames {first} to {last} (0-based), but the video has "
                f"{self.num_frames} frames; correct num_frames or the tube's start and boxes"
            )


@dataclass(frozen=True)
class Annotations:
    """A data set: its classes, its videos and the folder that the videos' paths start from.

    allow_absolute: whether a video may lie anywhere; not so for a file that may be someone else's.
    """

    name: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    root: pathlib.Path = field(compare=False)
    allow_absolute: bool = field(default=True, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "videos", tuple(self.videos))
        object.__setattr__(self, "root", pathlib.Path(self.root))
        _check_name("name", self.name)
        if not self.classes:
            raise InputError("the list of classes is empty; expected at least one")
        for label, name in enumerate(self.classes):
            _check_name(f"class {label}", name)
        _check_unique("class", self.classes)
        _check_unique("video id", [video.id for video in self.videos])
        for video in self.videos:
            self._check_labels(video)

    def _check_labels(self, video: Video):
        for number, tube in enumerate(video.tubes):
            if max(tube.labels) >= len(self.classes):
                raise InputError(
                    f"video {video.id!r}, tube {number}: label {max(tube.labels)}, but there are "
                    f"{len(self.classes)} classes (labels count from 0)"
                )

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the order of their first videos."""
        return tuple(dict.fromkeys(video.split for video in self.videos))

    def split(self, name: str) -> tuple[Video, ...]:
        """The videos of one split. Raises InputError where there are none."""
        videos = tuple(video for video in self.videos if video.split == name)
        if not videos:
            known = ", ".join(map(repr, self.splits)) or "none"
            raise InputError(f"{self.name}: no split {name!r}; the splits are: {known}")
        return videos

    def video(self, id: str) -> Video:
        """The video of that id. Raises InputError for an unknown one."""
        if id not in self._by_id:
            raise InputError(f"{self.name}: no video {id!r} among its {len(self.videos)} videos")
        return self._by_id[id]

    def video_path(self, video: Video) -> pathlib.Path:
        """Where the frames are. Raises InputError for an absolute path that is not allowed."""
        if os.path.isabs(video.path) and not self.allow_absolute:
            raise InputError(
                f"video {video.id!r}: path {video.path!r} is absolute, which has to be allowed "
                "(--allow_absolute_paths) if you trust the annotation file; expected one relative "
                f"to {self.root}"
            )
        return self.root / video.path

    @cached_property
    def _by_id(self) -> dict[str, Video]:
        return {video.id: video for video in self.videos}


def _frozen(array, dtype) -> np.ndarray:
    """A read-only copy, so that the frozen dataclass is frozen in depth."""
    array = np.array(array, dtype)
    array.setflags(write=False)
    return array


def _check_name(what: str, name: str):
    if not name or not name.isprintable():
        raise InputError(f"{what} is {name!r}; expected a non-empty text of printable characters")


def _check_unique(what: str, names):
    seen = set()
    for name in names:
        if name in seen:
            raise InputError(f"{what} {name!r} occurs twice; give each its own")
        seen.add(name)


def _check_labels(labels: tuple[int, ...]):
    if not labels or min(labels) < 0 or len(set(labels)) != len(labels):
        raise InputError(
            f"labels are {list(labels)}; expected one or more different classes, counted from 0"
        )


def _check_frames(frames: np.ndarray):
    if frames.ndim != 1 or not len(frames):
        raise InputError("the tube has no box at all; remove it or give it boxes")
    backward = np.flatnonzero(np.diff(frames) <= 0)
    if len(backward):
        before, after = frames[backward[0]], frames[backward[0] + 1]
        raise InputError(f"frame {after} follows frame {before}; expected increasing frames")


def _check_boxes(frames: np.ndarray, boxes: np.ndarray):
    if boxes.shape != (len(frames), 4):
        raise InputError(f"boxes have shape {boxes.shape}; expected ({len(frames)}, 4)")
    finite = np.isfinite(boxes).all(axis=1)
    bad = np.flatnonzero(~(finite & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)))
    if not len(bad):
        return
    kind = "an empty or inverted box" if finite[bad[0]] else "a box that is not finite"
    more = f" (and {len(bad) - 1} more of this tube)" if len(bad) > 1 else ""
    raise InputError(
        f"frame {frames[bad[0]]} has {kind}, {boxes[bad[0]].tolist()}{more}; "
        "expected [x1, y1, x2, y2] in pixels with x1 < x2 and y1 < y2"
    )
