"""A folder of flow images, 00001.jpg and so on, that is there completely or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from step_jax.errors import InputError


@dataclass(frozen=True)
class ImageFormat:
    """png: lossless. jpeg_quality: 1 to 100, no matter for PNG."""

    png: bool = False
    jpeg_quality: int = 95

    def __post_init__(self):
        if not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"--jpeg_quality {self.jpeg_quality}: expected 1 to 100")

    @property
    def suffix(self) -> str:
        return ".png" if self.png else ".jpg"

    def encode(self, image: np.ndarray) -> bytes:
        """A file's content from uint8 RGB [H, W, 3]."""
        flags = [] if self.png else [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality]
        encoded, data = cv2.imencode(self.suffix, image[..., ::-1], flags)
        assert encoded, "OpenCV cannot encode an image"
        return data.tobytes()

    def describe(self) -> dict[str, object]:
        return {"format": "png"} if self.png else {"format": "jpg", "quality": self.jpeg_quality}


def write_images(
    folder: str | os.PathLike, images: Iterable[np.ndarray], *, image_format: ImageFormat
) -> int:
    """Writes the images under a temporary name and renames the folder at the end.

    Whatever ends it before, a folder of that name holds all images. Returns their number. Raises
    OSError if they cannot be written, and what the images raise.
    """
    folder = pathlib.Path(folder)
    temporary = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    temporary.mkdir(parents=True)
    count = 0
    try:
        for count, image in enumerate(images, start=1):
            name = f"{count:05d}{image_format.suffix}"
            (temporary / name).write_bytes(image_format.encode(image))
        temporary.rename(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    return count
