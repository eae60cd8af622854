"""The native annotation format: one JSON file, described in docs/annotations.md.

The reader is strict: an unknown key, class or version is an error that names the video and the
tube, because a misspelt key that is silently ignored costs a training run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.errors import InputError
from step_jax.replacing import replacing

FORMAT = "step_jax.annotations"
VERSION = 1

_FILE_KEYS = {
    "format": str,
    "version": int,
    "name": str,
    "frame_index_base": int,
    "classes": list,
    "videos": list,
}
_VIDEO_KEYS = {
    "id": str,
    "path": str,
    "split": str,
    "fps": float,
    "num_frames": int,
    "width": int,
    "height": int,
    "tubes": list,
}
_TUBE_KEYS = {"classes": list, "start": int, "boxes": list}
_KINDS = {str: "a text", int: "a whole number", float: "a number", list: "a list"}

_NUMBERS = {int, float}  # and not bool, which a subclass test would let in

_OnError = Callable[[InputError], None]


def read_native(path: str | os.PathLike, *, allow_absolute: bool = False) -> Annotations:
    """Reads a native annotation file; the videos' paths are relative to its folder.

    Args:
      path: the JSON file.
      allow_absolute: let `video_path` give absolute paths. Off, because a file from someone else
        could then name any file of this machine; what does not open videos needs no permission.

    Raises InputError for the first thing wrong, naming the file, the video, the tube and the frame.
    """

    def stop(error: InputError) -> NoReturn:
        raise error

    path = pathlib.Path(path)
    return _Reader(path, allow_absolute=allow_absolute, on_error=stop).read(_load(path))


def find_problems(
    path: str | os.PathLike, *, allow_absolute: bool = False
) -> tuple[Annotations | None, list[str]]:
    """Reads what can be read and lists every problem, one line each.

    A tube or a video that is wrong is left out of the annotations returned; they are None where the
    file as a whole cannot be understood.
    """
    path = pathlib.Path(path)
    errors: list[InputError] = []
    annotations = None
    try:
        reader = _Reader(path, allow_absolute=allow_absolute, on_error=errors.append)
        annotations = reader.read(_load(path))
    except InputError as error:
        errors.append(error)
    return annotations, [str(error) for error in errors]


def write_native(path: str | os.PathLike, annotations: Annotations):
    """Writes a native annotation file: complete or not at all, and bit-exact in float32.

    The videos' paths are written as they are; they mean the same files when read again only if
    `annotations.root` is the folder of `path`.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(_pieces(annotations))


class _Reader:
    """Turns the parsed JSON into annotations; each problem goes to `on_error` with its place."""

    def __init__(self, path: pathlib.Path, *, allow_absolute: bool, on_error: _OnError):
        self._path = path
        self._allow_absolute = allow_absolute
        self._on_error = on_error

    def read(self, document: Any) -> Annotations:
        where = str(self._path)
        _check_header(document, where)
        _check_keys(document, _FILE_KEYS, where)
        with _place(where):
            self._labels = _label_of_class(document["classes"])
            empty = Annotations(
                document["name"],
                document["classes"],
                videos=(),
                root=self._path.parent,
                allow_absolute=self._allow_absolute,
            )
        self._base = document["frame_index_base"]
        if self._base not in (0, 1):
            raise InputError(f"{where}: frame_index_base is {self._base}; expected 0 or 1")
        return dataclasses.replace(empty, videos=self._videos(document["videos"]))

    def _videos(self, records: list) -> list[Video]:
        videos: dict[str, Video] = {}
        for number, record in enumerate(records):
            with self._reporting():
                video = self._video(record, f"{self._path}: videos[{number}]")
                if video.id in videos:
                    raise InputError(
                        f"{self._path}: videos[{number}]: video id {video.id!r} occurs twice; "
                        "give each video its own"
                    )
                videos[video.id] = video
        return list(videos.values())

    def _video(self, record: Any, where: str) -> Video:
        if isinstance(record, dict) and isinstance(record.get("id"), str):
            where = f"{self._path}: video {record['id']!r}"
        _check_keys(record, _VIDEO_KEYS, where)
        facts = {key: value for key, value in record.items() if key != "tubes"}
        with _place(where):
            _check_path(record["path"])
            empty = Video(**facts, tubes=())
        return dataclasses.replace(empty, tubes=self._tubes(record["tubes"], empty, where))

    def _tubes(self, records: list, video: Video, where: str) -> Iterator[Tube]:
        for number, record in enumerate(records):
            with self._reporting():
                yield self._tube(record, video, f"{where}: tube {number}")

    def _tube(self, record: Any, video: Video, where: str) -> Tube:
        _check_keys(record, _TUBE_KEYS, where)
        start, boxes = record["start"] - self._base, record["boxes"]
        if start < 0:
            raise InputError(
                f"{where}: start is {record['start']}, before the file's first frame number "
                f"(frame_index_base {self._base})"
            )
        if (surplus := start + len(boxes) - video.num_frames) > 0:
            one_off = "; does the file count frames from 1 (frame_index_base)?"
            raise InputError(
                f"{where}: start {record['start']} and {len(boxes)} boxes reach beyond the video's "
                f"{video.num_frames} frames" + (one_off if surplus == 1 and not self._base else "")
            )
        present = [offset for offset, box in enumerate(boxes) if box is not None]
        with _place(where):
            labels = [self._label(name) for name in record["classes"]]
            numbers = _box_array([boxes[offset] for offset in present], record["start"], present)
            return Tube(labels, np.array(present, np.int32) + start, numbers)

    def _label(self, name: Any) -> int:
        if not isinstance(name, str) or name not in self._labels:
            raise InputError(f"unknown class {name!r}; {_suggest(name, self._labels)}")
        return self._labels[name]

    @contextlib.contextmanager
    def _reporting(self):
        try:
            yield
        except InputError as error:
            self._on_error(error)


def _load(path: pathlib.Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file in UTF-8; expected JSON") from error
    try:
        return json.loads(text, object_pairs_hook=_object)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """json would silently keep the last of two equal keys."""
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"key {twice!r} occurs twice in one object, with keys {sorted(record)}")
    return record


def _check_header(document: Any, where: str):
    """Format and version come first: another program's file has other keys altogether."""
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{where}: is not a native annotation file: its 'format' is {found!r}; "
            f"expected {FORMAT!r} (docs/annotations.md)"
        )
    version = document.get("version")
    if version != VERSION:
        raise InputError(f"{where}: version {version!r} of the format; this reader knows {VERSION}")


def _check_keys(record: Any, keys: Mapping[str, type], where: str):
    if not isinstance(record, dict):
        raise InputError(f"{where}: found {_show(record)}; expected an object with {list(keys)}")
    for key in record:
        if key not in keys:
            raise InputError(f"{where}: unknown key {key!r}; {_suggest(key, keys)}")
    for key, kind in keys.items():
        if key not in record:
            raise InputError(f"{where}: the key {key!r} is missing; expected {_KINDS[kind]}")
        value = record[key]
        if not _is_a(value, kind):
            raise InputError(f"{where}: {key!r} is {_show(value)}; expected {_KINDS[kind]}")


def _is_a(value: Any, kind: type) -> bool:
    return type(value) in _NUMBERS if kind is float else type(value) is kind


def _label_of_class(names: list) -> dict[str, int]:
    for label, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"class {label} is {_show(name)}; expected {_KINDS[str]}")
    return {name: label for label, name in enumerate(names)}


def _check_path(path: str):
    """A file from someone else must not reach outside its own folder.

    Symbolic links inside the folder are followed: whoever made them decided that. Absolute paths
    are `Annotations.video_path`'s to refuse.
    """
    if ".." in pathlib.PurePath(path).parts:
        raise InputError(
            f"path {path!r} leaves the annotation file's folder by '..'; move the file beside or "
            "above the videos, or put a symbolic link to them there"
        )


def _box_array(boxes: list, start: int, offsets: list[int]) -> np.ndarray:
    """float32 [n, 4] from JSON lists; anything but four numbers is an error naming its frame."""
    for box, offset in zip(boxes, offsets, strict=True):
        if not (isinstance(box, list) and len(box) == 4 and _NUMBERS.issuperset(map(type, box))):
            raise InputError(
                f"frame {start + offset} has the box {_show(box)}; "
                "expected four numbers [x1, y1, x2, y2], or null for a gap"
            )
    try:
        numbers = np.array(boxes, np.float64).reshape(-1, 4)
    except OverflowError as error:
        raise InputError("a box has a number too large for floating point") from error
    with np.errstate(over="ignore"):  # infinity in float32 is refused with the other infinities
        return numbers.astype(np.float32)


def _suggest(name: Any, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextlib.contextmanager
def _place(where: str):
    """Puts the place before the errors of the model, which does not know it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _pieces(annotations: Annotations) -> Iterator[str]:
    """The file's text, one tube a line: readable, and a diff shows what changed."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": annotations.name,
        "frame_index_base": 0,
        "classes": list(annotations.classes),
    }
    yield json.dumps(header, ensure_ascii=False)[:-1] + ',\n "videos": ['
    for number, video in enumerate(annotations.videos):
        yield ",\n  " if number else "\n  "
        facts = {key: getattr(video, key) for key in _VIDEO_KEYS if key != "tubes"}
        yield json.dumps(facts, ensure_ascii=False)[:-1] + ',\n   "tubes": ['
        tubes = [_tube_text(tube, annotations.classes) for tube in video.tubes]
        yield ",".join(f"\n    {text}" for text in tubes) + "]}"
    yield "\n ]}\n"


def _tube_text(tube: Tube, classes: tuple[str, ...]) -> str:
    start = int(tube.frames[0])
    boxes: list[list[float] | None] = [None] * (int(tube.frames[-1]) + 1 - start)
    for frame, box in zip(tube.frames.tolist(), _shortest(tube.boxes), strict=True):
        boxes[frame - start] = box
    names = [classes[label] for label in tube.labels]
    return json.dumps({"classes": names, "start": start, "boxes": boxes}, ensure_ascii=False)


def _shortest(boxes: np.ndarray) -> list[list[float]]:
    """The numbers with the fewest digits that are read back as the same float32."""
    return boxes.astype("U").astype(np.float64).tolist()
