"""Text labels a frame, as users of YOWO have them: `labels/<Class>/<video>/00001.txt`.

A file's number is the frame's, from 1; its lines are `class x1 y1 x2 y2` with the class from 1 and
the corners in pixels of the original frame. Only frames with an actor have a file.

The labels do not say which box continues which. Tubes are put together again: from frame to frame,
boxes of one class are joined in the order of their generalised IoU (Rezatofighi et al. 2019, which
also ranks boxes that do not touch), the largest first, above a threshold; a tube ends at the first
frame without a continuation. That is a reconstruction: actors who cross may change their tubes, and
a tube that begins where another ended becomes its continuation. Of the 3194 videos of UCF101-24,
written as labels and read again, 3070 get their own tubes back.
"""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from step_jax.annotations.corners import check_corner_base
from step_jax.annotations.foreign import UNASSIGNED, Source, check_class, naming, one_label
from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.annotations.video_names import check_video_name
from step_jax.errors import InputError

Progress = Callable[[Iterable[Any]], Iterable[Any]]

_KIND = "a folder of text labels"
_FILE = re.compile(r"(\d{1,8})\.txt")


def read_frame_labels(
    path: str | os.PathLike,
    *,
    num_frames: Mapping[str, int],
    corner_base: int = 0,
    min_giou: float = -0.5,
    source: Source | None = None,
    progress: Progress = iter,
) -> Annotations:
    """Reads a `labels` folder.

    Args:
      num_frames: of each video, which labels cannot say; only these videos are read.
      corner_base: what the pixels of the first column and row are called in the files, 0 or 1.
      min_giou: of boxes in successive frames that are one actor's, -1 to 1.
      source: the classes and the frame, which the files do not say; default UCF101-24's.
      progress: gives the videos one after the other, and may show how far it is.

    Returns videos of the split `UNASSIGNED`. Raises InputError naming the file and the line.
    """
    path, source = pathlib.Path(path), source or Source()
    check_corner_base(corner_base)
    videos = []
    for name in progress(sorted(num_frames)):
        check_video_name(name)
        rows = [(frame, _rows(file)) for frame, file in _label_files(path / name)]
        with naming(f"{path / name}", _KIND):
            for label in sorted({int(row[0]) for _, found in rows for row in found}):
                check_class(label - 1, name, source.classes)
            tubes = join_boxes(rows, min_giou=min_giou, corner_base=corner_base)
            video = Video(
                name, name, UNASSIGNED, source.fps, num_frames[name], source.width, source.height,
                tubes,
            )  # fmt: skip
        videos.append(video)
    return Annotations(source.name, source.classes, videos, path.parent)


def labelled_videos(path: str | os.PathLike) -> list[str]:
    """The names `<Class>/<video>` of the folders with labels. Raises InputError without any."""
    path = pathlib.Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of labels")
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    names = [
        f"{folder.name}/{video.name}"
        for folder in folders
        for video in sorted(folder.iterdir())
        if video.is_dir()
    ]
    if not names:
        raise InputError(f"{path}: has no labels; expected <Class>/<video>/00001.txt")
    return names


def write_frame_labels(
    path: str | os.PathLike,
    annotations: Annotations,
    *,
    corner_base: int = 0,
    progress: Progress = iter,
):
    """Writes a `labels` folder, which must not be there yet. The arguments are the reader's.

    Lost: which boxes are one tube, the frames' number and size, videos without a tube, the splits.
    Raises InputError for a tube with several classes.
    """
    path = pathlib.Path(path)
    check_corner_base(corner_base)
    if path.exists():
        raise InputError(f"{path}: is there already; choose another folder or remove it")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as unfinished:
        folder = pathlib.Path(unfinished) / "labels"
        folder.mkdir()
        for video in progress(annotations.videos):
            with naming(f"video {video.id!r}", _KIND):
                check_video_name(video.id)
                _write_video(folder / video.id, _lines(video, corner_base))
        folder.rename(path)


def join_boxes(
    rows: list[tuple[int, np.ndarray]], *, min_giou: float, corner_base: int = 0
) -> list[Tube]:
    """Tubes from (frame from 0, rows [n, 5] of class from 1 and corners) in increasing frames.

    Returns them in the order of their first boxes.
    """
    tubes: list[tuple[int, list[int], list[np.ndarray]]] = []
    live: list[int] = []  # the tube of each row of the frame before
    before, before_rows = -2, np.zeros((0, 5))
    for frame, found in rows:
        joined = _matches(before_rows, found, min_giou) if frame == before + 1 else {}
        current = []
        for number, row in enumerate(found):
            if number in joined:
                current.append(live[joined[number]])
            else:
                current.append(len(tubes))
                tubes.append((int(row[0]) - 1, [], []))
            _, frames, boxes = tubes[current[-1]]
            frames.append(frame)
            boxes.append(row[1:] - corner_base)
        live, before, before_rows = current, frame, found
    return [Tube((label,), frames, np.array(boxes)) for label, frames, boxes in tubes]


def _matches(before: np.ndarray, after: np.ndarray, min_giou: float) -> dict[int, int]:
    """Which row of the frame before each row continues: largest overlap first, then file order."""
    overlaps = [
        (-giou, i, j)
        for i, left in enumerate(before)
        for j, right in enumerate(after)
        if left[0] == right[0] and (giou := _giou(left[1:], right[1:])) >= min_giou
    ]
    matched: dict[int, int] = {}
    for _, i, j in sorted(overlaps):
        if j not in matched and i not in matched.values():
            matched[j] = i
    return matched


def _giou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU less the part of the smallest box around both that neither covers."""
    shared = _area(np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:]))
    union = _area(a[:2], a[2:]) + _area(b[:2], b[2:]) - shared
    around = _area(np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:]))
    return shared / union - (around - union) / around if union > 0 else -1.0


def _area(low: np.ndarray, high: np.ndarray) -> float:
    width, height = (high - low).tolist()
    return max(width, 0.0) * max(height, 0.0)


def _label_files(folder: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
    """(frame from 0, file) in increasing frames; none where the video has no label."""
    if not folder.is_dir():
        return
    found: dict[int, pathlib.Path] = {}
    for file in sorted(folder.iterdir()):
        name = _FILE.fullmatch(file.name)
        if file.name.startswith("."):
            continue
        if not name or int(name[1]) < 1:
            raise InputError(f"{file}: expected names like 00001.txt, the frame's number from 1")
        if int(name[1]) - 1 in found:
            raise InputError(f"{file}: and {found[int(name[1]) - 1].name} are of the same frame")
        found[int(name[1]) - 1] = file
    yield from sorted(found.items())


def _rows(file: pathlib.Path) -> np.ndarray:
    """float64 [n, 5] of a file's lines; an empty file is a frame without an actor."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text: {error}") from error
    rows = [_row(line, f"{file}: line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    return np.array(rows, np.float64).reshape(-1, 5)


def _row(line: str, where: str) -> list[float]:
    try:
        row = [float(text) for text in line.split()]
    except ValueError:
        row = []
    if len(row) != 5 or not np.isfinite(row).all() or row[0] != int(row[0]):
        raise InputError(f"{where}: is {line.strip()!r}; expected 'class x1 y1 x2 y2'")
    return row


def _write_video(folder: pathlib.Path, lines: dict[int, list[str]]):
    if lines:
        folder.mkdir(parents=True)
    for frame, texts in lines.items():
        (folder / f"{frame + 1:05d}.txt").write_text("".join(texts), encoding="ascii")


def _lines(video: Video, corner_base: int) -> dict[int, list[str]]:
    lines: dict[int, list[str]] = {}
    for number, tube in enumerate(video.tubes):
        with naming(f"tube {number}", _KIND):
            label = one_label(tube, _KIND) + 1
        for frame, box in zip(tube.frames.tolist(), tube.boxes + corner_base, strict=True):
            numbers = " ".join(f"{float(value):.9g}" for value in box)
            lines.setdefault(frame, []).append(f"{label} {numbers}\n")
    return lines
