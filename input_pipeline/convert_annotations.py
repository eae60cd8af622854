"""Turns a data set's own annotation files into one native annotation file.

    python -m input_pipeline.convert_annotations pyannot \\
        --input pyannot.pkl --split_file testlist01.txt --videos rgb-images --output ucf101_24.json
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib

from step_jax.annotations import Annotations, write_native
from step_jax.annotations.ucf101_24 import read_pyannot
from step_jax.cli import run_command


def main(argv: list[str] | None = None):
    arguments = _parser().parse_args(argv)
    annotations = arguments.read(arguments)
    annotations = _paths_from(annotations, arguments.output.absolute().parent)
    write_native(arguments.output, annotations)
    print(_summary(arguments.output, annotations))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.convert_annotations",
        description="Converts a data set's own annotation files into the native format.",
    )
    formats = parser.add_subparsers(metavar="FORMAT", required=True)
    pyannot = formats.add_parser("pyannot", help="UCF101-24: pyannot.pkl, with class names or not")
    pyannot.set_defaults(read=_read_pyannot)
    path = pathlib.Path
    pyannot.add_argument("--input", type=path, required=True, help="the pickle")
    pyannot.add_argument("--videos", type=path, required=True, help="folder of videos or frames")
    pyannot.add_argument("--output", type=path, required=True, help="the JSON file to write")
    pyannot.add_argument("--split_file", type=path, help="testlist01.txt; all others are 'train'")
    pyannot.add_argument("--split", choices=["train", "test"], help="convert only this split")
    pyannot.add_argument(
        "--present_only", action="store_true", help="leave out videos that the folder lacks"
    )
    return parser


def _read_pyannot(arguments: argparse.Namespace) -> Annotations:
    return read_pyannot(
        arguments.input,
        videos=arguments.videos,
        split_file=arguments.split_file,
        split=arguments.split,
        present_only=arguments.present_only,
    )


def _paths_from(annotations: Annotations, folder: pathlib.Path) -> Annotations:
    """The same videos, with paths relative to `folder` if they are inside it, else absolute."""
    root = annotations.root.absolute()
    inside = pathlib.Path(os.path.normpath(root)).is_relative_to(os.path.normpath(folder))
    base = pathlib.Path(os.path.relpath(root, folder)) if inside else root
    videos = [
        dataclasses.replace(video, path=str(base / video.path)) for video in annotations.videos
    ]
    return dataclasses.replace(annotations, videos=videos, root=folder)


def _summary(output: pathlib.Path, annotations: Annotations) -> str:
    lines = [f"{output}: {len(annotations.classes)} classes"]
    for split in annotations.splits:
        videos = annotations.split(split)
        tubes = [tube for video in videos for tube in video.tubes]
        boxes = sum(len(tube.frames) for tube in tubes)
        lines.append(f"  {split}: {len(videos)} videos, {len(tubes)} tubes, {boxes} boxes")
    if any(pathlib.PurePath(video.path).is_absolute() for video in annotations.videos):
        lines.append(
            "  The videos are outside the file's folder, so their paths are absolute: "
            "commands that open them need --allow_absolute_paths."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
