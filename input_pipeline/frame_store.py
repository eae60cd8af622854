"""The images of one video as JPEG, each encoded once: what record building resumes from.

A store holds the video's frames, or its flow images.

A store is two files, `<name>.jpegs` (the JPEG bytes one after the other) and `<name>.npy` (their
int64 offsets, n + 1 of them). The offsets are written last, under a temporary name and renamed, so
a store that has them is complete. Imports no TensorFlow: the worker processes start quickly.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from step_jax import video
from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.video.reading import image_files

_ALL_COLOURS = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


class FrameStore:
    """Reads slices of a complete store; holds no more than the slice in memory."""

    def __init__(self, path: str | os.PathLike):
        """path: the store's place without suffix."""
        self._jpegs = _jpegs_path(path)
        self._offsets = np.load(_offsets_path(path), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def frames(self, start: int, stop: int) -> list[bytes]:
        """The JPEG bytes of the frames [start, stop)."""
        offsets = self._offsets[start : stop + 1]
        with open(self._jpegs, "rb") as file:
            file.seek(offsets[0])
            data = file.read(offsets[-1] - offsets[0])
        ends = offsets - offsets[0]
        return [data[a:b] for a, b in itertools.pairwise(ends)]


def is_complete(path: str | os.PathLike) -> bool:
    """Whether the store was written to its end."""
    return _offsets_path(path).exists() and _jpegs_path(path).exists()


def write_store(
    path: str | os.PathLike,
    video_path: str | os.PathLike,
    *,
    name: str,
    fps: float,
    num_frames: int,
    short_side: int,
    jpeg_quality: int,
) -> int:
    """Decodes a video in one pass and stores its frames; one frame in memory at a time.

    Args:
      path: the store's place without suffix.
      video_path: a video file or a folder of frames.
      name: the video's name in errors.
      fps: frames a second, for a folder of frames.
      num_frames: how many frames the annotation says that the video has.
      short_side: frames whose shorter side is longer are shrunk to it; 0 keeps their size.
      jpeg_quality: 1 to 100.

    Returns the number of frames. Raises InputError, naming the video, if it cannot be decoded or
    has another number of frames than its annotation; OSError if it cannot be stored.
    """
    frames = _decode(video_path, name=name, fps=fps, num_frames=num_frames)
    _write(path, (_encode(frame, short_side, jpeg_quality) for frame in frames))
    return num_frames


def write_flow_store(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    name: str,
    num_frames: int,
    short_side: int,
    jpeg_quality: int,
) -> int:
    """Stores the flow images of a video, in a folder; the arguments are those of `write_store`.

    A JPEG that keeps its size is stored byte for byte: a second compression would change the flow.
    Others are compressed without subsampling of colours, which are displacements.

    Returns the number of images. Raises InputError, naming the video, for an image that cannot be
    decoded, of another size than the first, or without colours, and for another number of images
    than `num_frames`; OSError if they cannot be stored.
    """
    images = _flow_jpegs(folder, num_frames=num_frames, short_side=short_side, quality=jpeg_quality)
    try:
        _write(path, images)
    except InputError as error:
        raise InputError(f"video {name!r}: flow: {error}") from error
    return num_frames


def _write(path: str | os.PathLike, jpegs: Iterable[bytes]):
    """Writes a complete store, or none where there is an error on the way."""
    offsets = [0]
    try:
        with replacing(_jpegs_path(path)) as temporary, open(temporary, "wb") as file:
            for jpeg in jpegs:
                offsets.append(offsets[-1] + file.write(jpeg))
        with replacing(_offsets_path(path)) as temporary:
            np.save(temporary, np.array(offsets, np.int64))
    except OSError as error:  # a full disk does not say which
        where = error.filename or os.fspath(path)
        raise OSError(error.errno, error.strerror, where) from error


def _decode(path, *, name: str, fps: float, num_frames: int) -> Iterator[np.ndarray]:
    """The RGB frames, one more than expected if there are more, and then the error."""
    count = 0
    try:
        video.check_complete(path)
        for _, frame in video.read_frames(path, fps=fps, stop=num_frames + 1):
            count += 1
            yield frame
    except InputError as error:
        raise InputError(f"video {name!r}: {error}") from error
    _check_count(count, num_frames, name=name, path=path)


def _flow_jpegs(folder, *, num_frames: int, short_side: int, quality: int) -> Iterator[bytes]:
    video.check_complete(folder)
    files = image_files(pathlib.Path(folder))
    if len(files) != num_frames:
        raise InputError(f"{len(files)} images in {folder}, {num_frames} frames; expected as many")
    _check_colours(files[0])
    for file, (_, image) in zip(files, video.read_frames(folder), strict=True):
        if _shrinks(image, short_side) or file.suffix.lower() == ".png":
            yield _encode(image, short_side, quality, *_ALL_COLOURS)
        else:
            yield file.read_bytes()  # decoded too, because a damaged one has to be found here


def _check_colours(file: pathlib.Path):
    image = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is not None and (image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8):
        raise InputError(
            f"{file}: is not an 8-bit colour image; expected x, y and magnitude as red, green, blue"
        )


def _shrinks(frame: np.ndarray, short_side: int) -> bool:
    return 0 < short_side < min(frame.shape[:2])


def _encode(frame: np.ndarray, short_side: int, quality: int, *options: int) -> bytes:
    height, width = frame.shape[:2]
    if _shrinks(frame, short_side):
        scale = short_side / min(height, width)
        frame = video.resize(frame, width=round(width * scale), height=round(height * scale))
    quality_options = [cv2.IMWRITE_JPEG_QUALITY, quality, *options]
    ok, jpeg = cv2.imencode(".jpg", frame[..., ::-1], quality_options)
    assert ok, "OpenCV cannot encode a JPEG"
    return jpeg.tobytes()


def _check_count(found: int, expected: int, *, name: str, path):
    if found == expected:
        return
    found_text = f"{found} frames" if found < expected else f"more than {expected} frames"
    raise InputError(
        f"video {name!r} ({path}): {found_text} can be decoded, its annotation says {expected}; "
        "the file is truncated, or correct num_frames in the annotation"
    )


def _jpegs_path(path) -> pathlib.Path:
    return pathlib.Path(f"{os.fspath(path)}.jpegs")


def _offsets_path(path) -> pathlib.Path:
    return pathlib.Path(f"{os.fspath(path)}.npy")
