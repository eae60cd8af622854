"""A video as AVA's users have it: the movie's file, a folder a second, or a folder of frames.

DIR/VIDEO.mkv                 the movie, or a piece of it that starts at a known second
DIR/VIDEO/0902/*.jpg          the frames of each second in a folder
DIR/VIDEO/VIDEO_000001.jpg    frames at a constant rate, usually of 30 fps from second 900 on
"""

from __future__ import annotations

import collections
import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from input_pipeline.ava.seconds import FIRST_SECOND
from step_jax import video as videos
from step_jax.errors import InputError
from step_jax.video.reading import image_files, read_bgr

MOVIE_SUFFIXES = (".mkv", ".mp4", ".webm", ".avi", ".mov", ".m4v")
FOLDER_FPS = 30

Picture = Callable[[], np.ndarray]  # gives BGR uint8 [H, W, 3], or raises InputError


@dataclass(frozen=True)
class Timing:
    """Where the files' time 0 lies in the movie, and how fast folders of frames are.

    start_second: None is 0 for files of movies and 900 for folders of frames, as they are usually
        distributed. folder_fps: of folders of frames.
    """

    start_second: Fraction | None = None
    folder_fps: Fraction = Fraction(FOLDER_FPS)


@dataclass(frozen=True)
class Source:
    """An opened video. frames: (seconds of the movie, picture), in order; once.

    kind: "movie", "seconds" or "frames". fps: frames a second, as stated or as most seconds have.
    first: time of the first frame in the file's own time, seconds, None for folders.
    is_exact: whether `first` is known exactly. start_second: the movie's second at the file's 0.
    """

    path: pathlib.Path
    kind: str
    fps: float
    first: Fraction | None
    is_exact: bool
    start_second: Fraction
    frames: Iterator[tuple[Fraction, Picture]]


def find_source(folder: pathlib.Path, video: str, names: Mapping[str, str]) -> pathlib.Path:
    """The file or folder of a video.

    names: {video: file name} where a list tells them; others are found by their suffix.

    Raises InputError if there is none, or more than one.
    """
    listed = folder / names.get(video, video)
    if listed.is_file():
        return listed
    found = [folder / (video + suffix) for suffix in MOVIE_SUFFIXES]
    found = [path for path in (*found, folder / video) if path.exists()]
    if not found:
        kinds = ", ".join(MOVIE_SUFFIXES[:3])
        raise InputError(f"{folder}: has no {video} ({kinds}, or a folder of frames)")
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise InputError(f"{folder}: has {both}; leave only one of them")
    return found[0]


@contextlib.contextmanager
def open_source(path: pathlib.Path, timing: Timing) -> Iterator[Source]:
    """Opens a video from a little before AVA's first second on.

    Raises InputError for what is missing, truncated, unreadable or not of one of the three kinds.
    """
    if path.is_dir():
        folders = _second_folders(path)
        yield _open_seconds(path, folders) if folders else _open_frames(path, timing)
        return
    videos.check_complete(path)
    start = timing.start_second or Fraction(0)
    with videos.TimedVideo(path) as movie:
        frames = movie.frames(start=FIRST_SECOND - start)
        shifted = ((time + start, picture) for time, picture in frames)
        yield Source(path, "movie", movie.fps, movie.first, movie.is_exact, start, shifted)


def _second_folders(path: pathlib.Path) -> dict[int, pathlib.Path]:
    """The folders of seconds, in order."""
    found = {}
    for folder in path.iterdir():
        if folder.name.isascii() and folder.name.isdigit() and folder.is_dir():
            second = int(folder.name)
            if second in found:
                raise InputError(f"{path}: both {found[second].name} and {folder.name} are there")
            found[second] = folder
    return dict(sorted(found.items()))


def _open_seconds(path: pathlib.Path, folders: Mapping[int, pathlib.Path]) -> Source:
    files = {second: _images_or_none(folder) for second, folder in folders.items()}
    counts = collections.Counter(len(images) for images in files.values() if images)
    fps = counts.most_common(1)[0][0] if counts else 0

    def frames() -> Iterator[tuple[Fraction, Picture]]:
        for second, images in files.items():
            for number, image in enumerate(images):
                yield second + Fraction(number, len(images)), _picture(image)

    return Source(path, "seconds", float(fps), None, True, Fraction(0), frames())


def _images_or_none(folder: pathlib.Path) -> list[pathlib.Path]:
    return image_files(folder) if any(folder.iterdir()) else []


def _open_frames(path: pathlib.Path, timing: Timing) -> Source:
    """Frames whose numbers count from 1, or from 0 if there is such; a hole is a hole in time."""
    files = image_files(path)
    numbers = [_frame_number(file) for file in files]
    base = min(numbers[0], 1)
    start = Fraction(FIRST_SECOND) if timing.start_second is None else timing.start_second
    frames = (
        (start + (number - base) / timing.folder_fps, _picture(file))
        for number, file in zip(numbers, files, strict=True)
    )
    return Source(path, "frames", float(timing.folder_fps), None, True, start, frames)


def _frame_number(file: pathlib.Path) -> int:
    digits = re.findall(r"\d+", file.stem)
    if not digits:
        raise InputError(f"{file}: has no frame number; expected names as VIDEO_000001.jpg")
    return int(digits[-1])


def _picture(file: pathlib.Path) -> Picture:
    return lambda: read_bgr(file)


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture [H, W, 3] at (width, height)."""
    return videos.resize(picture, width=size[0], height=size[1])


def shrunk_size(picture: np.ndarray, short_side: int) -> tuple[int, int]:
    """(width, height) with a shorter side of `short_side` at most; 0 keeps the size."""
    height, width = picture.shape[:2]
    if not 0 < short_side < min(height, width):
        return width, height
    scale = short_side / min(height, width)
    return round(width * scale), round(height * scale)


def encode(picture: np.ndarray, jpeg_quality: int) -> bytes:
    """A picture, BGR, as JPEG."""
    ok, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    assert ok, "OpenCV cannot encode a JPEG"
    return jpeg.tobytes()
