"""The videos below a folder, and the name that each one's flow gets."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

from step_jax.errors import InputError
from step_jax.streaming.video_sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES

RECORD = "flow.json"


@dataclass(frozen=True)
class Source:
    """A video to compute the flow of.

    path: a video file or a folder of frames. name: the folder of its flow images, relative to the
    output, with forward slashes.
    """

    path: pathlib.Path
    name: str


def find_sources(path: str | os.PathLike, *, output: str | os.PathLike) -> list[Source]:
    """A video file, a folder of frames, or all of both kinds anywhere below a folder, in order.

    A folder that holds images is the frames of one video. Hidden files and folders, `output` and
    folders of flow images that this program wrote are left out. Links are followed.

    Raises InputError if there is none, if two would share a folder of flow images, and if all of
    `path` is the output.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check --input")
    if not path.is_dir():
        return [Source(path, path.stem)]
    if path.resolve() == pathlib.Path(output).resolve():
        raise InputError(f"{path}: is the input, too; give another folder as --output")
    found = list(_walk(path, output=pathlib.Path(output).resolve()))
    if not found:
        raise InputError(
            f"{path}: has neither folders of images nor video files "
            f"({' '.join(VIDEO_SUFFIXES)}) below it"
        )
    _check_names(found)
    if found[0].path == path:
        return [Source(path, path.resolve().name)]
    return sorted(found, key=lambda source: source.name)


def _walk(root: pathlib.Path, *, output: pathlib.Path) -> Iterator[Source]:
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = pathlib.Path(folder)
        real = here.resolve()
        if real in seen or real == output or RECORD in files:
            subfolders.clear()
            continue
        seen.add(real)  # a link to a folder above would never end
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = [here / name for name in files if not name.startswith(".")]
        if any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
            yield Source(here, here.relative_to(root).as_posix())
        for file in files:
            if file.suffix.lower() in VIDEO_SUFFIXES:
                yield Source(file, file.relative_to(root).with_suffix("").as_posix())


def _check_names(sources: list[Source]) -> None:
    """No two of the same folder, and none inside of another's: images would mix."""
    by_name: dict[str, Source] = {}
    for source in sources:
        other = by_name.setdefault(source.name, source)
        if other is not source:
            raise _clash(other, source)
    for source in sources:
        for parent in pathlib.PurePosixPath(source.name).parents:
            if str(parent) in by_name:
                raise _clash(by_name[str(parent)], source)


def _clash(one: Source, other: Source) -> InputError:
    return InputError(
        f"{one.path} and {other.path}: the flow of both would go to the same folder; rename or "
        "move one"
    )
