"""One page of annotated frames: a few tubes of each class at their first, middle and last frame."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

import cv2
import numpy as np

from step_jax.annotations import Annotations, Tube, Video
from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.video import read_frames, resize

MAX_STRIPS = 48

_COLUMNS = 3
_MAX_TUBES_PER_CLASS = 4
_THUMBNAIL_WIDTH, _THUMBNAIL_HEIGHT = 176, 132
_CAPTION_HEIGHT = 36
_MARGIN = 8
_FAR_OUTSIDE_PX = 10_000  # OpenCV draws with 32-bit coordinates
_BACKGROUND, _INK, _TUBE_COLOR, _OTHER_COLOR = 255, (0, 0, 0), (255, 40, 40), (160, 160, 160)


@dataclass(frozen=True)
class _Strip:
    """A tube to draw and the class it is drawn for."""

    name: str
    video: Video
    tube: Tube

    @property
    def frames(self) -> list[int]:
        present = self.tube.frames.tolist()
        return [present[0], present[len(present) // 2], present[-1]]


def write_contact_sheet(path: str | os.PathLike, annotations: Annotations) -> str:
    """Writes a PNG page of at most MAX_STRIPS tubes and returns a line that says what is on it.

    Videos that cannot be read are left out: `validate` reports them. Raises InputError if nothing
    can be drawn, or the file not be written.
    """
    path = pathlib.Path(path)
    images, names = [], []
    for strip in _choose(annotations):
        try:
            images.append(_draw(annotations, strip))
            names.append(strip.name)
        except (InputError, OSError):
            continue
    if not images:
        raise InputError(f"{path}: not written: no tube's video can be read")
    encoded, png = cv2.imencode(".png", cv2.cvtColor(_page(images), cv2.COLOR_RGB2BGR))
    assert encoded
    with replacing(path) as temporary:
        temporary.write_bytes(png.tobytes())
    return (
        f"{path}: {len(images)} tubes of {len(set(names))} classes "
        f"(of {len(annotations.classes)}), each at its first, middle and last frame"
    )


def _choose(annotations: Annotations) -> list[_Strip]:
    """Tubes of every class in order, of different videos as far as there are; a page at most."""
    of_class: dict[str, list[_Strip]] = {name: [] for name in annotations.classes}
    for video in annotations.videos:
        for tube in video.tubes:
            for label in tube.labels:
                name = annotations.classes[label]
                of_class[name].append(_Strip(name, video, tube))
    present = {name: strips for name, strips in of_class.items() if strips}
    each = min(max(MAX_STRIPS // max(len(present), 1), 1), _MAX_TUBES_PER_CLASS)
    chosen = [strip for strips in present.values() for strip in _spread(strips, each)]
    return chosen[:MAX_STRIPS]


def _spread(strips: list[_Strip], count: int) -> list[_Strip]:
    """`count` strips: first of all one tube a video, evenly over the videos."""
    first_of: dict[str, _Strip] = {}
    for strip in strips:
        first_of.setdefault(strip.video.id, strip)
    first = list(first_of.values())
    if len(first) >= count:
        return [first[i * len(first) // count] for i in range(count)]
    rest = [strip for strip in strips if strip is not first_of[strip.video.id]]
    return first + rest[: count - len(first)]


def _draw(annotations: Annotations, strip: _Strip) -> np.ndarray:
    """A caption over three frames with the tube's box, uint8 [h, w, 3]."""
    wanted = strip.frames
    path = annotations.video_path(strip.video)
    frames = read_frames(path, fps=strip.video.fps, start=wanted[0], stop=wanted[-1] + 1)
    pictures = {
        number: _thumbnail(frame, strip, number)
        for number, (_, frame) in enumerate(frames, start=wanted[0])
        if number in wanted
    }
    if not pictures.keys() >= set(wanted):
        raise InputError(f"{path}: ends before frame {wanted[-1]}")
    row = np.concatenate([pictures[number] for number in wanted], axis=1)
    caption = np.full((_CAPTION_HEIGHT, row.shape[1], 3), _BACKGROUND, np.uint8)
    _text(caption, strip.name, y=14, scale=0.5)
    numbers = " ".join(map(str, wanted))
    _text(caption, f"frames {numbers}  {strip.video.id}", y=30, scale=0.36)
    return np.concatenate([caption, row])


def _thumbnail(frame: np.ndarray, strip: _Strip, number: int) -> np.ndarray:
    """The frame fitted into a thumbnail; the tube's box in red, other tubes' in grey."""
    scale = min(_THUMBNAIL_WIDTH / frame.shape[1], _THUMBNAIL_HEIGHT / frame.shape[0])
    width, height = (max(1, round(side * scale)) for side in (frame.shape[1], frame.shape[0]))
    picture = np.full((_THUMBNAIL_HEIGHT, _THUMBNAIL_WIDTH, 3), _BACKGROUND, np.uint8)
    picture[:height, :width] = resize(frame, width=width, height=height)
    to_picture = np.array([width / strip.video.width, height / strip.video.height] * 2)
    others = [tube for tube in strip.video.tubes if tube is not strip.tube]
    for tube in (*others, strip.tube):
        index = np.flatnonzero(tube.frames == number)
        if len(index):
            box = np.clip(tube.boxes[index[0]] * to_picture, -_FAR_OUTSIDE_PX, _FAR_OUTSIDE_PX)
            x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
            color, width_px = (_TUBE_COLOR, 2) if tube is strip.tube else (_OTHER_COLOR, 1)
            cv2.rectangle(picture, (x1, y1), (x2, y2), color, width_px)
    return picture


def _text(image: np.ndarray, text: str, *, y: int, scale: float):
    text = text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, text, (2, y), font, scale, _INK, 1, cv2.LINE_AA)


def _page(strips: list[np.ndarray]) -> np.ndarray:
    height, width = strips[0].shape[:2]
    columns = min(_COLUMNS, len(strips))
    rows = -(-len(strips) // columns)
    shape = (rows * (height + _MARGIN) + _MARGIN, columns * (width + _MARGIN) + _MARGIN, 3)
    page = np.full(shape, _BACKGROUND, np.uint8)
    for index, strip in enumerate(strips):
        top = _MARGIN + index // columns * (height + _MARGIN)
        left = _MARGIN + index % columns * (width + _MARGIN)
        page[top : top + height, left : left + width] = strip
    return page
