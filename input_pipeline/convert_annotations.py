"""Turns a data set's own annotation files into one native annotation file, and back.

    python -m input_pipeline.convert_annotations pyannot \\
        --input pyannot.pkl --split_file testlist01.txt --videos rgb-images --output ucf101_24.json
    python -m input_pipeline.convert_annotations export \\
        --input ucf101_24.json --format act --output UCF101v2-GT.pkl

Formats to read: pyannot (pyannot.pkl, with class names or not), mat (finalAnnots.mat), act
(UCF101v2-GT.pkl, JHMDB-GT.pkl), yowo (labels/<Class>/<video>/00001.txt). To write: pyannot, act,
yowo.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import tqdm

from step_jax.annotations import Annotations, read_native, write_native
from step_jax.annotations.act_pickle import read_act, write_act
from step_jax.annotations.corners import doubt_corner_base
from step_jax.annotations.final_annots import read_final_annots
from step_jax.annotations.foreign import Source
from step_jax.annotations.frame_labels import (
    labelled_videos,
    read_frame_labels,
    write_frame_labels,
)
from step_jax.annotations.locations import find_places, locate_videos
from step_jax.annotations.pyannot import read_pyannot, write_pyannot
from step_jax.annotations.splits import (
    assign_splits,
    is_assigned,
    keep_split,
    read_video_list,
    unknown_names,
)
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.replacing import check_outputs
from step_jax.video import count_frames

READABLE = {
    "pyannot": "pyannot.pkl, with class names or not",
    "mat": "finalAnnots.mat",
    "act": "UCF101v2-GT.pkl or JHMDB-GT.pkl",
    "yowo": "a folder labels/<Class>/<video>/00001.txt",
}
_WRITERS: dict[str, Callable[..., None]] = {
    "act": write_act,
    "pyannot": write_pyannot,
    "yowo": write_frame_labels,
}


def main(argv: list[str] | None = None):
    """The command."""
    arguments = _parser().parse_args(argv)
    names = ("input", "split_file", "train_file", "classes")
    check_outputs([arguments.output], inputs=[getattr(arguments, name, None) for name in names])
    arguments.run(arguments)


def read_foreign(
    kind: str,
    path: str | os.PathLike,
    *,
    videos: str | os.PathLike,
    present_only: bool = False,
    split: int = 1,
    corner_base: int = 0,
    source: Source | None = None,
) -> Annotations:
    """Reads one of the `READABLE` formats.

    Args:
      videos: the folder of the videos, whose frames are counted where the format does not say
        their number (yowo).
      present_only: there, leave out the videos that the folder lacks, which is else an error.
      split: of ACT's lists, from 1.
      corner_base: of the formats with corners (act, yowo).

    Raises InputError for what is wrong in the file.
    """
    if kind == "pyannot":
        return read_pyannot(path, source=source)
    if kind == "mat":
        return read_final_annots(path, source=source)
    if kind == "act":
        return read_act(path, split=split, corner_base=corner_base, source=source)
    root = pathlib.Path(videos)
    places = find_places(labelled_videos(path), root, present_only=present_only)
    frames = {name: count_frames(root / place) for name, place in places.items()}
    return read_frame_labels(
        path, num_frames=frames, corner_base=corner_base, source=source, progress=_progress
    )


def with_lists(
    annotations: Annotations,
    *,
    train: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
) -> tuple[Annotations, list[str]]:
    """Splits by list files, if any are given or the annotations have no splits of their own.

    Returns the annotations and a line for each list with videos that they lack.
    """
    files = {name: file for name, file in (("train", train), ("test", test)) if file is not None}
    if not files and is_assigned(annotations):
        return annotations, []
    lists = {name: read_video_list(file) for name, file in files.items()}
    notes = []
    for name, file in files.items():
        if unknown := unknown_names(annotations, lists[name]):
            notes.append(
                f"{file}: {len(unknown)} of the videos listed are not among the annotations read "
                f"and are left out, such as {unknown[0]!r}"
            )
    return assign_splits(annotations, **lists), notes


def _convert(arguments: argparse.Namespace):
    annotations = read_foreign(
        arguments.kind,
        arguments.input,
        videos=arguments.videos,
        present_only=arguments.present_only,
        split=getattr(arguments, "list", 1),
        corner_base=getattr(arguments, "corner_base", 0),
        source=_source(arguments),
    )
    annotations, notes = with_lists(
        annotations, train=arguments.train_file, test=arguments.split_file
    )
    if arguments.split:
        annotations = keep_split(annotations, arguments.split)
    doubt = doubt_corner_base(annotations)  # of all boxes: those of a few videos prove nothing
    annotations = locate_videos(annotations, arguments.videos, present_only=arguments.present_only)
    annotations = _paths_from(annotations, arguments.output.absolute().parent)
    write_native(arguments.output, annotations)
    print("\n".join([*notes, *_summary(arguments.output, annotations)]))
    if doubt:
        print(f"warning: {doubt}")


def _export(arguments: argparse.Namespace):
    annotations = read_native(arguments.input)
    options = {}
    if arguments.corner_base is not None:
        if arguments.format == "pyannot":
            raise InputError("--corner_base: pyannot's boxes always count from 1; leave it out")
        options["corner_base"] = arguments.corner_base
    if arguments.format == "yowo":
        options["progress"] = _progress
    _WRITERS[arguments.format](arguments.output, annotations, **options)
    print("\n".join(_summary(arguments.output, annotations)))


def _progress(videos: Iterable[Any]) -> Iterable[Any]:
    return tqdm.tqdm(videos, desc="labels", unit="video", disable=None)


def _source(arguments: argparse.Namespace) -> Source:
    """UCF101-24's own facts, changed by what the command line says."""
    facts = {}
    if arguments.classes:
        facts["classes"] = tuple(_lines(arguments.classes))
    if arguments.frame_size:
        facts["width"], facts["height"] = arguments.frame_size
    if arguments.fps:
        facts["fps"] = arguments.fps
    return Source(name=arguments.name, **facts)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of classes: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _paths_from(annotations: Annotations, folder: pathlib.Path) -> Annotations:
    """The same videos, with paths relative to `folder` if they are inside it, else absolute."""
    root = annotations.root.absolute()
    inside = pathlib.Path(os.path.normpath(root)).is_relative_to(os.path.normpath(folder))
    base = pathlib.Path(os.path.relpath(root, folder)) if inside else root
    videos = [
        dataclasses.replace(video, path=str(base / video.path)) for video in annotations.videos
    ]
    return dataclasses.replace(annotations, videos=videos, root=folder)


def _summary(output: pathlib.Path, annotations: Annotations) -> list[str]:
    lines = [f"{output}: {len(annotations.classes)} classes", *split_lines(annotations)]
    if any(pathlib.PurePath(video.path).is_absolute() for video in annotations.videos):
        lines.append(
            "  The videos are outside the file's folder, so their paths are absolute: "
            "commands that open them need --allow_absolute_paths."
        )
    return lines


def split_lines(annotations: Annotations) -> list[str]:
    """A line for each split: videos, frames, annotated frames, tubes, boxes."""
    lines = []
    for split in annotations.splits:
        videos = annotations.split(split)
        tubes = [tube for video in videos for tube in video.tubes]
        annotated = sum(
            len(set().union(*(tube.frames.tolist() for tube in video.tubes))) for video in videos
        )
        lines.append(
            f"  {split}: {len(videos)} videos, {sum(video.num_frames for video in videos)} frames, "
            f"{annotated} annotated frames, {len(tubes)} tubes, "
            f"{sum(len(tube.frames) for tube in tubes)} boxes"
        )
    return lines


# --- command line ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.convert_annotations",
        description="Converts other projects' annotation files into the native format, and back.",
    )
    commands = parser.add_subparsers(metavar="FORMAT", required=True)
    for kind, what in READABLE.items():
        reader = commands.add_parser(kind, help=f"read {what}")
        reader.set_defaults(run=_convert, kind=kind)
        _add_reading(reader, what)
        if kind == "act":
            reader.add_argument("--list", type=int, default=1, help="which of its splits (1)")
        if kind in ("act", "yowo"):
            _add_corner_base(reader, default=0)
    export = commands.add_parser("export", help="write another project's format")
    export.set_defaults(run=_export)
    path = pathlib.Path
    export.add_argument("--input", type=path, required=True, help="native annotation file (JSON)")
    export.add_argument("--format", choices=sorted(_WRITERS), required=True)
    export.add_argument("--output", type=path, required=True, help="file, or folder of labels")
    _add_corner_base(export, default=None)
    return parser


def _add_reading(parser: argparse.ArgumentParser, what: str):
    path = pathlib.Path
    parser.add_argument("--input", type=path, required=True, help=what)
    parser.add_argument("--videos", type=path, required=True, help="folder of videos or frames")
    parser.add_argument("--output", type=path, required=True, help="the JSON file to write")
    parser.add_argument("--split_file", type=path, help="testlist01.txt; all others are 'train'")
    parser.add_argument("--train_file", type=path, help="trainlist01.txt; all others are 'test'")
    parser.add_argument("--split", choices=["train", "test"], help="convert only this split")
    parser.add_argument(
        "--present_only", action="store_true", help="leave out videos that the folder lacks"
    )
    parser.add_argument("--name", default="ucf101_24", help="of the data set, for reports")
    parser.add_argument("--classes", type=path, help="file of class names, if not UCF101-24's")
    parser.add_argument(
        "--frame_size", type=int, nargs=2, metavar=("W", "H"), help="that boxes are drawn in"
    )
    parser.add_argument("--fps", type=float, help="frames a second (25)")


def _add_corner_base(parser: argparse.ArgumentParser, *, default: int | None):
    parser.add_argument(
        "--corner_base",
        type=int,
        choices=[0, 1],
        default=default,
        help="what the first column and row of pixels are called in the file (0)",
    )


if __name__ == "__main__":
    run_command(main)
