"""UCF101-24 from the files as they are downloaded, for building its records.

    python -m input_pipeline.prepare ucf101_24 --source DIR --output DIR

Finds annotations, split lists, videos and flow images in the source folder (`ucf101_24_layout`),
checks the number of frames of all videos before the first is decoded, and writes `annotations.json`
beside the records. The videos are reached by a link, `OUTPUT/videos`, so that the file's paths stay
inside its folder and any command may open them.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re

import tqdm

from input_pipeline import flow_folders, ucf101_24_layout
from input_pipeline.convert_annotations import read_foreign, split_lines, with_lists
from step_jax import video as videos
from step_jax.annotations import Annotations, Video
from step_jax.annotations.corners import doubt_corner_base
from step_jax.annotations.locations import locate_videos
from step_jax.annotations.splits import hold_out_groups, is_assigned
from step_jax.errors import InputError

ANNOTATIONS_FILE = "annotations.json"
VIDEOS_LINK = "videos"

_SHOWN_PROBLEMS = 5


def make_parser() -> argparse.ArgumentParser:
    """Flags for `read_download`; those of the records come from `prepare`."""
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.prepare ucf101_24",
        description="Build UCF101-24's clip records from the files as they are downloaded.",
    )
    add = parser.add_argument
    names = ", ".join(ucf101_24_layout.ANNOTATIONS)
    add("--source", required=True, help="folder of the download")
    add("--output", required=True, help="folder of the records and annotations.json")
    add("--annotations_file", metavar="FILE", help=f"else the first found of {names}")
    add("--split_file", metavar="FILE", help="list of the test videos; else testlist01.txt")
    add("--train_file", metavar="FILE", help="list of the training videos; else trainlist01.txt")
    add("--split", type=int, default=1, metavar="N", help="which division into train and test (1)")
    places = ", ".join(ucf101_24_layout.VIDEOS[:-1])
    add("--videos", metavar="DIR", help=f"else the first found of {places}, or the source itself")
    flows = " or ".join(ucf101_24_layout.FLOW)
    add("--flow", metavar="DIR|none", help=f"folder of flow images; else {flows}, if there is one")
    add("--present_only", action="store_true", help="leave out videos that are not there")
    add(
        "--validation_groups",
        metavar="22-25",
        help="make the training videos of these groups the split 'validation'",
    )
    add("--corner_base", type=int, choices=[0, 1], default=0, help="of UCF101v2-GT.pkl and labels")
    return parser


def read_download(arguments: argparse.Namespace) -> tuple[Annotations, pathlib.Path | None]:
    """What the flags of `make_parser` say: checked annotations, and the folder of flow images.

    The videos are linked into the output folder, from which their paths start. Prints what was
    found and taken. Raises InputError for what is missing, wrong or contradictory.
    """
    annotations = _read(arguments)
    flow = _flow_folder(arguments)
    check_frames(annotations, flow)
    return link_videos(annotations, pathlib.Path(arguments.output)), flow


def check_frames(annotations: Annotations, flow: pathlib.Path | None = None):
    """Looks at every video before hours of decoding: as many frames as annotated, none missing?

    Folders of frames and of flow images are counted; of a video file only the container is read,
    its frames are counted when they are decoded. Raises InputError with the first few videos that
    are not as annotated, and the number of all.
    """
    problems = []
    for video in tqdm.tqdm(annotations.videos, desc="checking", unit="video", disable=None):
        try:
            _check_video(annotations, video)
            if flow is not None:
                alone = dataclasses.replace(annotations, videos=[video])
                flow_folders.find_flow(flow, alone)
        except InputError as error:
            problems.append(str(error))
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        text = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"{len(problems)} of {len(annotations.videos)} videos are not as annotated: {text}. "
            "Download or extract these again"
        )


def link_videos(annotations: Annotations, output: pathlib.Path) -> Annotations:
    """The same videos, reached through the link `output`/videos, which is made.

    Raises InputError if the link cannot be made or leads elsewhere.
    """
    link, root = output / VIDEOS_LINK, annotations.root.resolve()
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not (link.is_symlink() or link.exists()):
            link.symlink_to(root, target_is_directory=True)
    except OSError as error:
        raise InputError(
            f"{link}: cannot be made a link to {root} ({error.strerror}); choose another output"
        ) from error
    if link.resolve() != root:
        raise InputError(
            f"{link}: leads to {link.resolve()}, but the videos are in {root}; remove it or choose "
            "another output folder"
        )
    moved = [
        dataclasses.replace(video, path=f"{VIDEOS_LINK}/{video.path}")
        for video in annotations.videos
    ]
    return dataclasses.replace(annotations, videos=moved, root=output)


def _check_video(annotations: Annotations, video: Video):
    path = annotations.video_path(video)
    try:
        videos.check_complete(path)
        count = videos.count_frames(path) if path.is_dir() else video.num_frames
    except (InputError, OSError) as error:
        raise InputError(f"video {video.id!r}: {error}") from error
    if count != video.num_frames:
        raise InputError(
            f"video {video.id!r}: {path} has {count} frames, its annotation says {video.num_frames}"
        )


def _read(arguments: argparse.Namespace) -> Annotations:
    """The annotations with their splits, located; prints what was found and taken."""
    source = pathlib.Path(arguments.source)
    if not source.is_dir():
        raise InputError(f"--source {source}: no such folder")
    if arguments.annotations_file is None:
        choice = ucf101_24_layout.find_annotations(source)
    else:
        choice = ucf101_24_layout.Choice(pathlib.Path(arguments.annotations_file))
    print(choice.line("annotations"))
    kind = ucf101_24_layout.kind_of(choice.path)
    annotations, roots = _read_annotations(arguments, source, kind, choice.path)
    annotations = _with_splits(arguments, source, annotations, kind)
    print(roots.line("videos"))
    if doubt := doubt_corner_base(annotations):
        print(f"warning: {doubt}")
    annotations = locate_videos(annotations, roots.path, present_only=arguments.present_only)
    print("\n".join(split_lines(annotations)))
    return annotations


def _read_annotations(
    arguments: argparse.Namespace, source: pathlib.Path, kind: str, path: pathlib.Path
) -> tuple[Annotations, ucf101_24_layout.Choice]:
    """The annotations and where the videos are, whichever is needed for the other."""
    given = None if arguments.videos is None else pathlib.Path(arguments.videos)
    if kind == "yowo":
        given = given or next(
            (source / name for name in ucf101_24_layout.VIDEOS if (source / name).is_dir()), source
        )
    annotations = read_foreign(
        kind,
        path,
        videos=given or source,
        present_only=arguments.present_only,
        split=arguments.split,
        corner_base=arguments.corner_base,
    )
    if given is not None:
        return annotations, ucf101_24_layout.Choice(given)
    return annotations, ucf101_24_layout.find_videos(source, annotations)


def _with_splits(
    arguments: argparse.Namespace, source: pathlib.Path, annotations: Annotations, kind: str
) -> Annotations:
    """By the lists given, the annotation file's own, or those found, in this order."""
    lists = {"train": arguments.train_file, "test": arguments.split_file}
    if not any(lists.values()):
        lists = _found_lists(arguments.split, source, annotations, kind)
    annotations, notes = with_lists(annotations, **lists)
    for note in notes:
        print(note)
    if arguments.validation_groups:
        annotations = hold_out_groups(annotations, _groups(arguments.validation_groups))
    return annotations


def _found_lists(
    number: int, source: pathlib.Path, annotations: Annotations, kind: str
) -> dict[str, pathlib.Path]:
    """The list files, none where the annotation file's own lists are of this division."""
    if is_assigned(annotations) and (number == 1 or kind == "act"):
        print("split lists: the annotation file's own")
        return {}
    found = {part: ucf101_24_layout.find_list(source, part, number) for part in ("train", "test")}
    for part, choice in found.items():
        print(choice.line(f"{part} list"))
    lists = {part: choice.path for part, choice in found.items() if choice.path is not None}
    if not lists:
        raise InputError(
            f"{source}: has no testlist{number:02d}.txt, in it or in a folder in it, and the "
            "annotations have no list of their own for this division; give --split_file"
        )
    return lists


def _flow_folder(arguments: argparse.Namespace) -> pathlib.Path | None:
    """As told by --flow, or found; prints which."""
    if arguments.flow == "none":
        print("flow: none, as told; the records will hold RGB alone")
        return None
    if arguments.flow is not None:
        folder = pathlib.Path(arguments.flow)
        if not folder.is_dir():
            raise InputError(f"--flow {folder}: no such folder; python -m step_jax.flow makes one")
        print(f"flow: {folder}")
        return folder
    choice = ucf101_24_layout.find_flow_images(pathlib.Path(arguments.source))
    if choice.path is None:
        names = " or ".join(ucf101_24_layout.FLOW)
        print(f"flow: none ({arguments.source} has no {names}); the records will hold RGB alone")
    else:
        print(choice.line("flow"))
    return choice.path


def _groups(text: str) -> list[int]:
    """[22, 23, 24, 25] of "22-25", [8, 22, 23] of "8,22-23"."""
    groups: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        last = int(found[2] or found[1]) if found else 0
        if not found or last < int(found[1]):
            raise InputError(
                f"--validation_groups {text}: found {part!r}; expected such as 22-25 or 22,24"
            )
        groups += range(int(found[1]), last + 1)
    return groups
