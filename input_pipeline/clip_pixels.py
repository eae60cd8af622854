"""The pixels of a training clip, from decoded pictures, by OpenCV.

In 8 bits where nothing is lost by it, picture by picture, so that each stays in the processor's
cache; OpenCV lets go of Python's lock while it works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from input_pipeline import triangle
from input_pipeline.augment import LUMA

# Of the pictures, those that the mean colour is taken of: contrast turns about it, roughly.
MEAN_OF_EVERY = 4
ERASE_VALUE = 128  # grey: 0 in the network's [-1, 1], and a flow image's "no motion"


class Retouch(NamedTuple):
    """What is done to all pictures of one clip.

    flip: mirror left and right.
    colours: float32 [3, 4], `colour' = colours @ (r, g, b, 1)`, of the frames alone; None: nothing.
    covered: rows and columns of the finished picture that are covered with grey; None: nothing.
    """

    flip: bool
    colours: np.ndarray | None
    covered: tuple[slice, slice] | None


def colours_about(colours: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """`Retouch.colours` of `augment.draw_colours`' map [3, 5] and the pictures' mean colour."""
    means = [cv2.mean(picture)[:3] for picture in pictures[::MEAN_OF_EVERY]]
    grey = np.mean(means, axis=0) @ LUMA
    return np.column_stack([colours[:, :3], colours[:, 3] * grey + colours[:, 4]])


def resize(picture: np.ndarray, out: np.ndarray):
    """Resizes uint8 [H, W, 3] into `out` uint8 [S, S, 3]; the aspect is not kept.

    As `pixels.resize` and rounding: another level, by one, has what lies between two of them.
    """
    height, width = out.shape[:2]
    if picture.shape == out.shape:
        np.copyto(out, picture)
    elif picture.shape[0] <= height and picture.shape[1] <= width:
        # OpenCV is faster with float32 than with 8 bits.
        grown = cv2.resize(picture.astype(np.float32), (width, height))
        cv2.convertScaleAbs(grown, dst=out)
    else:
        triangle.resize(picture, out)


def finish(kind: str, picture: np.ndarray, retouch: Retouch, out: np.ndarray):
    """A frame or flow image [H, W, 3] as the network sees it, into `out` [S, S, 3].

    A mirrored flow image moves the other way: its x-displacement v becomes 255 - v.
    """
    if kind == "frames" and retouch.colours is not None:
        picture = cv2.transform(picture, retouch.colours)
    resize(cv2.flip(picture, 1) if retouch.flip else picture, out)
    if kind == "flow" and retouch.flip:
        np.subtract(255, out[..., 0], out=out[..., 0])
    if retouch.covered is not None:
        out[retouch.covered] = ERASE_VALUE


def covered_pixels(rectangle: np.ndarray, side: int) -> tuple[slice, slice] | None:
    """The pixels of [side, side] whose centre is in a normalised rectangle; None if it is empty."""
    if rectangle[2] <= rectangle[0] or rectangle[3] <= rectangle[1]:
        return None
    edges = np.ceil(rectangle * side - 0.5).astype(int).clip(0, side)
    x1, y1, x2, y2 = edges.tolist()
    return slice(y1, y2), slice(x1, x2)


class ClipFinisher:
    """Makes a clip of decoded pictures."""

    def __init__(self, reads: Mapping[str, int], *, side: int):
        """reads: images of each kind that a frame reads, in the order of the channels. side: S."""
        cv2.setNumThreads(0)  # a clip is one thread's work
        self._kinds = tuple(reads)
        self._side = side
        self._channels = 3 * sum(reads.values())
        self._in_order = [number for channel in range(self._channels) for number in [channel] * 2]

    def __call__(
        self, flip: bool, colours: np.ndarray, rectangle: np.ndarray, *more: np.ndarray
    ) -> np.ndarray:
        """uint8 [T, S, S, channels].

        Args:
          flip: that of `Retouch`.
          colours: float32 [3, 5] of `augment.draw_colours`; of [0, 5] they stay.
          rectangle: float32 [4], normalised, is covered; empty: nothing is.
          more: uint8 [n, H, W, 3] for each kind, its pictures; then int [T, F] for each kind, which
            of them the frames read.
        """
        pictures = dict(zip(self._kinds, more, strict=False))
        places = more[len(self._kinds) :]
        changed = len(colours) and "frames" in pictures
        colours = colours_about(colours, pictures["frames"]) if changed else None
        retouch = Retouch(bool(flip), colours, covered_pixels(rectangle, self._side))
        images = [self._finish(kind, own, retouch) for kind, own in pictures.items()]
        if self._channels == 3:
            return images[0] if len(images[0]) == len(places[0]) else images[0][places[0][:, 0]]
        return self._interleave(images, places)

    def _finish(self, kind: str, pictures: np.ndarray, retouch: Retouch) -> np.ndarray:
        finished = np.empty((len(pictures), self._side, self._side, 3), np.uint8)
        for picture, out in zip(pictures, finished, strict=True):
            finish(kind, picture, retouch, out)
        return finished

    def _interleave(self, images: list[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
        num_frames = len(places[0])
        clip = np.empty((num_frames, self._side, self._side, self._channels), np.uint8)
        reads = list(zip(images, places, strict=True))
        for time, frame in enumerate(clip):
            read = [own[place] for own, where in reads for place in where[time].tolist()]
            cv2.mixChannels(read, [frame], self._in_order)
        return clip
