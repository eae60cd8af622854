"""What a folder of UCF101-24 holds: annotations, lists of the split, videos, flow images.

Downloads differ: rgb-images/ and brox-images/ beside splitfiles/ (Singh et al.), Frames/ and
FlowBrox04/ beside a pickle (ACT), UCF-101/ with .avi files (the original). Where several of a kind
are there the first of the lists below is taken, and `Layout.lines` says so.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from step_jax.annotations import Annotations
from step_jax.annotations.locations import present_places
from step_jax.annotations.restricted_pickle import load_restricted
from step_jax.errors import InputError

# The first says its split itself; the third says the same as the second; of ACT's file the base of
# the corners is unsure; text labels have lost which box continues which.
ANNOTATIONS = (
    "pyannot_with_class_names.pkl",
    "pyannot.pkl",
    "finalAnnots.mat",
    "UCF101v2-GT.pkl",
    "labels",
)
VIDEOS = ("rgb-images", "Frames", "UCF-101", "videos", ".")
FLOW = ("brox-images", "FlowBrox04")


@dataclass(frozen=True)
class Choice:
    """What was taken of one kind, and what else there was."""

    path: pathlib.Path | None
    others: tuple[pathlib.Path, ...] = ()

    def line(self, what: str) -> str:
        """`what: path (not used: ...)`, for the command to print."""
        unused = f" (there, too, but not used: {', '.join(map(str, self.others))})"
        return f"{what}: {self.path or 'none'}" + (unused if self.others else "")


def find_annotations(source: pathlib.Path) -> Choice:
    """The annotation file or folder in `source` or a folder right in it. InputError without any."""
    found = [path for name in ANNOTATIONS for path in _named(source, name)]
    if not found:
        raise InputError(
            f"{source}: has no annotations; expected one of {', '.join(ANNOTATIONS)} in it or in a "
            "folder in it, or --annotations_file"
        )
    return Choice(found[0], tuple(found[1:]))


def kind_of(path: pathlib.Path) -> str:
    """Which reader an annotation file needs, by its content. See `convert_annotations.READABLE`."""
    if path.is_dir():
        return "yowo"
    if path.suffix == ".mat":
        return "mat"
    content = load_restricted(path)
    return "act" if isinstance(content, dict) and "gttubes" in content else "pyannot"


def find_list(source: pathlib.Path, part: str, number: int) -> Choice:
    """`testlist01.txt` of part 'test' and number 1, or a form without number; perhaps none."""
    names = [f"{part}list{number:02d}.txt"]
    if number == 1:
        names += [f"{part}list_video.txt", f"{part}list.txt"]
    found = [path for name in names for path in _named(source, name)]
    return Choice(found[0], tuple(found[1:])) if found else Choice(None)


def find_videos(source: pathlib.Path, annotations: Annotations) -> Choice:
    """The first folder that has one of the videos, as a file or a folder of frames.

    Raises InputError if none has.
    """
    names = [video.id for video in annotations.videos]
    found = [root for root in _folders(source, VIDEOS) if _has_any(names, root)]
    if not found:
        raise InputError(
            f"{source}: has none of the {len(names)} videos, such as {names[0]!r}; expected .avi "
            "or .mp4 files or folders of frames, as <Class>/<video> or <video>, in "
            f"{', '.join(VIDEOS[:-1])} or in it, or --videos"
        )
    return Choice(found[0], tuple(found[1:]))


def find_flow_images(source: pathlib.Path) -> Choice:
    """The folder of flow images, if there is one."""
    found = list(_folders(source, FLOW))
    return Choice(found[0], tuple(found[1:])) if found else Choice(None)


def _folders(source: pathlib.Path, names: Iterable[str]) -> Iterator[pathlib.Path]:
    return (source / name for name in names if (source / name).is_dir())


def _named(source: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The files or folders of a name in `source` and right below it, `source`'s own first."""
    try:
        with os.scandir(source) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    places = [source, *(source / folder for folder in below if folder not in (*VIDEOS, *FLOW))]
    return [place / name for place in places if (place / name).exists()]


def _has_any(names: Iterable[str], root: pathlib.Path) -> bool:
    return any(present_places([name], root) for name in names)
