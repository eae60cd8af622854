"""Reading a video file or a folder of images, frame by frame and by timestamp.

Files are decoded from their beginning: seeking by frame number is not exact with FFmpeg, and the
frame count in a container is a guess (re-encoded files carry nonsense there).
"""

from __future__ import annotations

import codecs
import math
import os
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from step_jax.errors import InputError
from step_jax.utf8_paths import check_utf8
from step_jax.video.stderr import held_stderr

DEFAULT_FOLDER_FPS = 25.0
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

_PROBED_FRAMES = 16
_MAX_FPS_DISAGREEMENT = 0.01


@dataclass(frozen=True)
class VideoInfo:
    """What a video is before it is decoded: frames a second and the frames' size in pixels."""

    fps: float
    width: int
    height: int


def probe(path: str | os.PathLike, *, fps: float | None = None) -> VideoInfo:
    """Opens a video and decodes its first frames.

    The rate is the container's if the first timestamps agree with it, else theirs: re-encoded files
    may state one rate and be shown at another.

    Raises InputError for what is missing, unreadable or without frames.
    """
    path = pathlib.Path(path)
    times, shapes = [], []
    for time_s, frame in read_frames(path, fps=fps, stop=_PROBED_FRAMES):
        times.append(time_s)
        shapes.append(frame.shape)
    height, width = shapes[0][:2]
    return VideoInfo(fps=_rate(path, times, fps), width=width, height=height)


def read_frames(
    path: str | os.PathLike, *, fps: float | None = None, start: int = 0, stop: int | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, RGB uint8 [H, W, 3]) of the frames [start, stop) in order.

    Args:
      path: a video file or a folder of .jpg or .png images, which are taken in natural order
        (frame2 before frame10).
      fps: frames a second of a folder (default 25). For a file it replaces the timestamps in it.
      start, stop: frame numbers from 0; `stop` None reads to the end. What comes before `start` is
        decoded and thrown away, since that is the only exact way to reach it.

    Raises InputError for what is missing, unreadable, of mixed sizes or without any frame.
    """
    path = pathlib.Path(path)
    _check_rate(path, fps)
    if path.is_dir():
        return _read_folder(path, fps or DEFAULT_FOLDER_FPS, start, stop)
    return _read_file(path, fps, start, stop)


def count_frames(path: str | os.PathLike) -> int:
    """The number of frames of a file, by decoding all of them, or of the images in a folder.

    Raises InputError as `read_frames` does, but does not look into the images.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return len(image_files(path))
    capture = open_capture(path)
    try:
        count = 0
        while capture.grab():
            count += 1
    finally:
        capture.release()
    if not count:
        raise InputError(f"{path}: has no frame that can be decoded")
    return count


def check_exists(path: pathlib.Path):
    """Raises InputError if there is neither a file nor a folder of that name."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path of the video")


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """A folder's frames in natural order. Raises InputError if there are none, or of two kinds."""
    files = [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    if not files:
        raise InputError(f"{folder}: has no image; expected frames as .jpg or .png files")
    kinds = sorted({"png" if entry.suffix.lower() == ".png" else "jpg" for entry in files})
    if len(kinds) > 1:
        raise InputError(f"{folder}: has both jpg and png images; expected the frames of one video")
    return sorted(files, key=lambda entry: _natural(entry.name))


def _natural(name: str) -> list:
    """frame2 before frame10; the name itself decides between 1.jpg and 01.jpg."""
    pieces = re.split(r"(\d+)", name)
    return [int(piece) if piece.isdecimal() else piece for piece in pieces] + [name]


def _read_folder(
    folder: pathlib.Path, fps: float, start: int, stop: int | None
) -> Iterator[tuple[float, np.ndarray]]:
    first_shape = None
    for number, file in list(enumerate(image_files(folder)))[start:stop]:
        frame = cv2.cvtColor(read_bgr(file), cv2.COLOR_BGR2RGB)
        first_shape = first_shape or frame.shape
        if frame.shape != first_shape:
            raise InputError(
                f"{file}: is {frame.shape[1]}x{frame.shape[0]} pixels, the frames before it are "
                f"{first_shape[1]}x{first_shape[0]}; expected one size in a folder"
            )
        yield number / fps, frame


def read_bgr(path: pathlib.Path) -> np.ndarray:
    """An image, BGR uint8 [H, W, 3]. Raises InputError for what is damaged or no image."""
    data = path.read_bytes()
    image = None
    if data and not _cut_off(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # more pixels than OpenCV dares to allocate
            image = None
    if image is None:
        raise InputError(f"{path}: cannot be decoded as an image; replace the damaged file")
    return image


def _cut_off(data: bytes) -> bool:
    """OpenCV fills the missing part of a JPEG with grey and says nothing that we could catch."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[max(data.rfind(b"\xff\xda"), 0) :]
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]


def _read_file(
    path: pathlib.Path, fps: float | None, start: int, stop: int | None
) -> Iterator[tuple[float, np.ndarray]]:
    capture = open_capture(path)
    clock = _Clock(fps, capture.get(cv2.CAP_PROP_FPS))
    number = 0
    try:
        while (stop is None or number < stop) and capture.grab():
            time_s = clock.tick(number, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            if number >= start:
                frame = retrieve_bgr(capture, path, number)
                yield time_s, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        capture.release()
    if not number and stop != 0:
        raise InputError(f"{path}: has no frame that can be decoded")


def retrieve_bgr(capture: cv2.VideoCapture, path: pathlib.Path, number: int) -> np.ndarray:
    """The frame grabbed last, BGR uint8 [H, W, 3]; `path` and `number` name it in the error."""
    decoded, frame = capture.retrieve()
    if not decoded:
        raise InputError(f"{path}: frame {number} cannot be decoded; the file is damaged there")
    return frame


class _Clock:
    """Timestamps that increase, whatever the file says.

    After `grab`, OpenCV gives the presentation time of the frame grabbed. Some containers have
    none (all zeros) or repeat one; such a frame comes one frame interval after the one before.
    """

    def __init__(self, fps: float | None, container_fps: float):
        self._fps = fps
        usable = math.isfinite(container_fps) and container_fps > 0
        self._interval_s = 1 / container_fps if usable else 1 / DEFAULT_FOLDER_FPS
        self._last_s = -math.inf

    def tick(self, number: int, stated_s: float) -> float:
        if self._fps:
            return number / self._fps
        if not stated_s > self._last_s:
            stated_s = self._last_s + self._interval_s
        self._last_s = stated_s
        return stated_s


def open_capture(path: pathlib.Path, *, threads: int = 0) -> cv2.VideoCapture:
    """Opens a video file. threads: that decode it; 0 takes the machine's.

    Raises InputError for what is missing or no video, and for a name that is no UTF-8.
    """
    check_exists(path)
    if not path.is_file():
        raise InputError(f"{path}: is neither a file nor a folder of images")
    check_utf8(path)
    _check_binary(path)
    with held_stderr() as held:
        # The absolute path, because FFmpeg takes a name with a colon for a network protocol.
        options = [cv2.CAP_PROP_N_THREADS, threads] if threads else []
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, options)
        if not capture.isOpened():
            held.drop = ""
    if not capture.isOpened():
        raise InputError(f"{path}: cannot be opened as a video; expected a file FFmpeg decodes")
    return capture


def _check_binary(path: pathlib.Path):
    """FFmpeg renders a text file as a video of its letters, and follows playlists elsewhere."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: is empty; expected a video")
    if b"\0" not in head and _is_utf8(head):
        raise InputError(f"{path}: is a text file; expected a video or a folder of images")


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _check_rate(path: pathlib.Path, fps: float | None):
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise InputError(f"{path}: fps is {fps}; expected a positive number of frames a second")


def _rate(path: pathlib.Path, times: list[float], fps: float | None) -> float:
    if fps or path.is_dir():
        return fps or DEFAULT_FOLDER_FPS
    capture = open_capture(path)
    stated = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    if len(times) < 2:
        return stated if stated > 0 else DEFAULT_FOLDER_FPS
    measured = (len(times) - 1) / (times[-1] - times[0])
    return stated if abs(stated / measured - 1) < _MAX_FPS_DISAGREEMENT else measured
