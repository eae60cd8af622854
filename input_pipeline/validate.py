"""Checks an annotation file, and that its videos are what it says.

    python -m input_pipeline.validate annotations.json --contact_sheet sheet.png

Prints one line a problem, then a table of what the file holds; the exit status is 1 if any problem
is an error. A warning is something that can be right: a box that reaches out of the image, a class
without a tube. The contact sheet shows what no check can: that the boxes are on the actors.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tqdm

from input_pipeline.contact_sheet import write_contact_sheet
from step_jax.annotations import Annotations, Tube, Video
from step_jax.annotations.corners import doubt_corner_base
from step_jax.annotations.native import find_problems
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.video import check_complete, count_frames, probe

_MAX_ASPECT_DISAGREEMENT = 0.02
_MIN_TUBES_AT_FRAME_1 = 3


@dataclass(frozen=True)
class Problem:
    """One line of the report. Errors would spoil training or stop it; warnings may be right."""

    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.text}"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.contact_sheet and arguments.no_videos:
        raise InputError("--contact_sheet draws on the videos' frames; leave out --no_videos")
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}; expected 1 or more")
    annotations, texts = find_problems(
        arguments.annotations, allow_absolute=arguments.allow_absolute_paths
    )
    problems = [_error(text) for text in texts]
    if annotations is not None:
        problems += check_annotations(annotations)
        if not arguments.no_videos:
            problems += check_videos(annotations, workers=arguments.workers)
    for problem in problems:
        print(problem)
    if annotations is not None:
        print("\n".join(summary(annotations)))
    if annotations is not None and arguments.contact_sheet:
        print(write_contact_sheet(arguments.contact_sheet, annotations))
    errors = sum(problem.is_error for problem in problems)
    print(f"{arguments.annotations}: errors: {errors}, warnings: {len(problems) - errors}")
    return 1 if errors else 0


def check_annotations(annotations: Annotations) -> list[Problem]:
    """What can be seen without the videos and is not already impossible in the model."""
    problems: list[Problem] = []
    for video in annotations.videos:
        for number, tube in enumerate(video.tubes):
            where = f"video {video.id!r}: tube {number}"
            problems += _outside(where, tube, video)
    problems += _missing_classes(annotations)
    problems += _shared_files(annotations)
    problems += _suspected_index_base(annotations)
    if doubt := doubt_corner_base(annotations):
        problems.append(_warning(f"{doubt}; convert the file again if it was converted"))
    return problems


def check_videos(annotations: Annotations, *, workers: int = 2) -> list[Problem]:
    """Decodes every video: is it there, whole, as long as annotated and of the same shape?"""
    bar = tqdm.tqdm(total=len(annotations.videos), desc="videos", unit="video", disable=None)
    found: list[Problem] = []
    with bar, ThreadPoolExecutor(workers) as pool:
        for problems in pool.map(lambda video: _video(annotations, video), annotations.videos):
            found += problems
            bar.update()
    return found


def summary(annotations: Annotations) -> Iterator[str]:
    """A table of videos, frames, tubes and boxes, a row for each split and for each class in it."""
    width = max(map(len, ("split / class", *annotations.splits, *annotations.classes))) + 2
    yield f"{'split / class':{width}}{'videos':>8}{'frames':>10}{'tubes':>8}{'boxes':>10}"
    for split in annotations.splits:
        videos = annotations.split(split)
        yield _row(split, width, videos, [tube for video in videos for tube in video.tubes])
        for label, name in enumerate(annotations.classes):
            tubes_of = {
                video.id: [tube for tube in video.tubes if label in tube.labels] for video in videos
            }
            with_class = [video for video in videos if tubes_of[video.id]]
            tubes = list(itertools.chain.from_iterable(tubes_of.values()))
            if tubes:
                yield _row("  " + name, width, with_class, tubes)


def _row(name: str, width: int, videos: Iterable[Video], tubes: list[Tube]) -> str:
    videos = list(videos)
    frames = sum(video.num_frames for video in videos)
    boxes = sum(len(tube.frames) for tube in tubes)
    return f"{name:{width}}{len(videos):8}{frames:10}{len(tubes):8}{boxes:10}"


def _outside(where: str, tube: Tube, video: Video) -> list[Problem]:
    """Boxes that reach out of the image (as occluded actors' may), and those wholly outside."""
    low, high = tube.boxes[:, :2], tube.boxes[:, 2:]
    size = np.array([video.width, video.height], np.float32)
    excess = np.maximum(-low, high - size).max(axis=1)
    image = f"the {video.width}x{video.height} image"
    unseen = np.flatnonzero((high <= 0).any(axis=1) | (low >= size).any(axis=1))
    if len(unseen):
        return [_error(f"{where}: {_boxes(tube, unseen)} lie outside {image} altogether")]
    reaching = np.flatnonzero(excess > 0)
    if not len(reaching):
        return []
    by_one = excess.max() == 1
    hint = "; do they count pixels from 1?" if by_one and (high > size).any() else ""
    text = f"{where}: {_boxes(tube, reaching)} reach out of {image} by up to {excess.max():g} px"
    return [_warning(text + hint)]


def _boxes(tube: Tube, chosen: np.ndarray) -> str:
    return f"{len(chosen)} of {len(tube.frames)} boxes (first: frame {tube.frames[chosen[0]]})"


def _missing_classes(annotations: Annotations) -> list[Problem]:
    problems = []
    for split in annotations.splits:
        tubes = [tube for video in annotations.split(split) for tube in video.tubes]
        present = {label for tube in tubes for label in tube.labels}
        missing = [c for label, c in enumerate(annotations.classes) if label not in present]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            count = f"{len(missing)} of {len(annotations.classes)} classes"
            problems.append(_warning(f"split {split!r}: {count} have no tube: {names}"))
    return problems


def _shared_files(annotations: Annotations) -> list[Problem]:
    """Two videos of one file: the same frames counted twice, or trained and tested on."""
    users = collections.defaultdict(list)
    for video in annotations.videos:
        users[annotations.root / video.path].append(f"{video.id!r} ({video.split})")
    return [
        _warning(f"{path} is the file of several videos: {', '.join(names)}")
        for path, names in users.items()
        if len(names) > 1
    ]


def _suspected_index_base(annotations: Annotations) -> list[Problem]:
    """Some tubes start with their video, at frame 0; if those start at 1, the base was 1."""
    firsts = [int(tube.frames[0]) for video in annotations.videos for tube in video.tubes]
    if 0 in firsts or firsts.count(1) < _MIN_TUBES_AT_FRAME_1:
        return []
    return [
        _warning(
            f"no tube starts at a video's first frame and {firsts.count(1)} start at the second; "
            "if the file counts frames from 1, set its frame_index_base to 1"
        )
    ]


def _video(annotations: Annotations, video: Video) -> list[Problem]:
    where = f"video {video.id!r}"
    try:
        path = annotations.video_path(video)
    except InputError as error:
        return [_error(str(error))]
    try:
        check_complete(path)
        info = probe(path, fps=video.fps)
        count = count_frames(path)
    except (InputError, OSError) as error:
        return [_error(f"{where}: {error}")]
    problems = []
    if count != video.num_frames:
        problems.append(
            _error(
                f"{where}: {path} has {count} frames when decoded, but num_frames is "
                f"{video.num_frames}; the file is not the annotated one, or is cut"
            )
        )
    stretch = info.width / info.height / (video.width / video.height)
    if abs(stretch - 1) > _MAX_ASPECT_DISAGREEMENT:
        problems.append(
            _warning(
                f"{where}: {path} is {info.width}x{info.height}, the annotation's frame "
                f"{video.width}x{video.height}: another shape, so the boxes may not fit"
            )
        )
    return problems


def _error(text: str) -> Problem:
    return Problem(text, is_error=True)


def _warning(text: str) -> Problem:
    return Problem(text, is_error=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.validate",
        description="Checks a native annotation file against its videos.",
    )
    path = pathlib.Path
    parser.add_argument("annotations", type=path, help="native annotation file (JSON)")
    parser.add_argument("--contact_sheet", type=path, metavar="PNG", help="draw some tubes")
    parser.add_argument("--no_videos", action="store_true", help="do not open the videos")
    parser.add_argument("--workers", type=int, default=2, help="videos decoded at the same time")
    parser.add_argument(
        "--allow_absolute_paths", action="store_true", help="for a file whose paths you trust"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
