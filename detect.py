"""Finds actions in videos with a trained detector and draws them.

    python detect.py --workdir runs/moving_actors --video my_video.mp4

writes, for each video, NAME.webm with the boxes drawn, NAME.parquet with the detections of all
steps (boxes normalised by the frame's sides) and NAME.json with a summary. Frames are numbered at
the rate that the detector was trained at, to which a video is resampled. Videos are streamed:
memory does not grow with their length.
"""

from __future__ import annotations

import argparse
import difflib
import pathlib
import sys
import time
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from step_jax import compilation_cache, parallel
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.flow.methods import METHODS, Estimator, make_estimator
from step_jax.inference import Predictor, load_predictor
from step_jax.storage import is_remote, open_folder
from step_jax.streaming.video_run import Settings, detect_video
from step_jax.streaming.video_sources import check_video, find_videos, left_out
from step_jax.utf8_paths import check_utf8
from step_jax.visualize.overlay import panel_steps

DEFAULT_BATCH_SIZE = 8
# Pixels of a batch where the host's memory and cores do the work: one clip of 36 frames at 400 px
# takes a few seconds and gigabytes there.
_HOST_PIXELS = 36 * 400 * 400
_NAMED = 10  # of the files that are left out
_MISSING_FRAMES = 0.95  # of what the file promises; many promise a few too many


def main() -> int:
    arguments = parse_arguments()
    videos = find_videos(arguments.video)
    _tell_left_out(arguments.video, videos.values())
    failures = [name for name, path in videos.items() if not _succeeds(check_video, path)]
    videos = {name: path for name, path in videos.items() if name not in failures}
    if not videos:
        return 1
    compilation_cache.keep_programs(arguments.compilation_cache)
    workdir = open_folder(arguments.workdir, flag="--workdir")
    predictor = load_predictor(workdir, arguments.checkpoint)
    settings = choose_settings(arguments, predictor)
    settings.output.mkdir(parents=True, exist_ok=True)
    compile_predictor(predictor, batch_size=settings.batch_size)
    for name, path in videos.items():
        if not _succeeds(detect_and_print, name, path, predictor, settings):
            failures.append(name)
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Finds actions in videos with a trained detector and draws them."
    )
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the training run")
    add(
        "--video",
        type=pathlib.Path,
        required=True,
        help="a video file, a folder of the frames of one video, or a folder of video files",
    )
    add("--output", type=pathlib.Path, help="folder of the results (WORKDIR/detections)")
    add("--checkpoint", default="latest", help="latest (default), best, or a training step")
    add(
        "--stride",
        type=int,
        help="frames between windows, from 1 (the evaluation's, the slowest) to the detector's "
        "clip length (half of it)",
    )
    add("--batch_size", type=int, help=f"windows at a time ({DEFAULT_BATCH_SIZE} or fewer)")
    add("--score_threshold", type=float, default=0.3, help="of what is drawn and summed up (0.3)")
    add(
        "--flow",
        choices=METHODS,
        help="how a detector of flow gets it (as the flow that it was trained on)",
    )
    add("--fps", type=float, help="frames a second of a folder (25), or instead of a file's times")
    add("--step", type=int, help="step of the detector to show (the last)")
    add("--all_steps", action="store_true", help="draw proposals and steps side by side")
    add("--limit_classes", nargs="+", metavar="CLASS", help="classes to show (all)")
    add("--no_video", action="store_true", help="table and summary only, which is much faster")
    add("--compilation_cache", type=pathlib.Path, help=compilation_cache.HELP)
    return parser.parse_args()


def choose_settings(arguments: argparse.Namespace, predictor: Predictor) -> Settings:
    """Checks the arguments against the detector and fills in what was not given."""
    step = _within("--step", arguments.step, predictor.num_steps, default=predictor.num_steps)
    half = max(predictor.clip_frames // 2, 1)
    if not 0 <= arguments.score_threshold <= 1:
        raise InputError(f"--score_threshold {arguments.score_threshold}: expected 0 to 1")
    panels = panel_steps(step) if arguments.all_steps else [step]
    return Settings(
        output=_output_folder(arguments),
        stride=_within("--stride", arguments.stride, predictor.clip_frames, default=half),
        batch_size=_batch_size(arguments.batch_size, predictor),
        score_threshold=arguments.score_threshold,
        step=step,
        panels=() if arguments.no_video else tuple(panels),
        labels=_labels(arguments.limit_classes, predictor.classes),
        source_fps=arguments.fps,
        flow=_flow_estimator(arguments.flow, predictor),
    )


def compile_predictor(predictor: Predictor, *, batch_size: int) -> None:
    """Compiles for the one shape that all batches have, and says how long it took."""
    start = time.perf_counter()
    side, channels = predictor.image_size, predictor.channels
    shape = (batch_size, predictor.input_frames, side, side, channels)
    jax.block_until_ready(predictor(np.zeros(shape, np.uint8)))
    print(
        f"detector of training step {predictor.step}: {predictor.num_steps} steps, "
        f"{len(predictor.classes)} classes; compiled in {time.perf_counter() - start:.1f} s",
        flush=True,
    )


def detect_and_print(
    name: str, path: pathlib.Path, predictor: Predictor, settings: Settings
) -> None:
    report = detect_video(name, path, predictor, settings)
    print(report.text(), flush=True)
    if report.expected is not None and report.frames < _MISSING_FRAMES * report.expected:
        _say(
            f"warning: {path}: promises {report.expected} frames, but only {report.frames} could "
            "be decoded; it may be damaged"
        )


def _succeeds(work, *arguments) -> bool:
    """Does one video's work; bad input is reported and does not stop the other videos."""
    try:
        work(*arguments)
    except InputError as error:
        _say(f"error: {error}")
        return False
    return True


def _tell_left_out(path: pathlib.Path, videos: Iterable[pathlib.Path]) -> None:
    names = left_out(path, videos)
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        _say(f"{path}: left out, since no video by name: {', '.join(names[:_NAMED])}{more}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _within(flag: str, value: int | None, most: int, *, default: int) -> int:
    if value is None:
        return default
    if not 1 <= value <= most:
        raise InputError(f"{flag} {value}: expected 1 to {most} for this detector")
    return value


def _flow_estimator(asked: str | None, predictor: Predictor) -> Estimator | None:
    """What computes the flow for a detector that reads it; by the method it was trained on."""
    if not predictor.modality.has_flow:
        if asked is not None:
            raise InputError(f"--flow {asked}: this detector reads RGB alone; leave it out")
        return None
    if asked is None and predictor.flow not in METHODS:
        raise InputError(
            f"--flow is missing: this detector was trained on the flow {predictor.flow!r}; give "
            f"the method that comes closest, one of {', '.join(METHODS)}"
        )
    return make_estimator(asked or predictor.flow)


def _output_folder(arguments: argparse.Namespace) -> pathlib.Path:
    if arguments.output is None and is_remote(arguments.workdir):
        raise InputError("--output is missing: results are written to a disk; give a folder there")
    output = arguments.output or pathlib.Path(arguments.workdir) / "detections"
    check_utf8(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; expected a folder")
    if arguments.video.is_dir() and arguments.video.resolve() == output.resolve():
        raise InputError(
            f"--output {output}: is the folder of --video, where drawn videos would be taken for "
            "others to look at; give another folder"
        )
    return output


def _batch_size(asked: int | None, predictor: Predictor) -> int:
    if asked is not None:
        parallel.check_batch_size(asked)
        return asked
    most = DEFAULT_BATCH_SIZE
    if jax.default_backend() == "cpu":
        most = _HOST_PIXELS // (predictor.input_frames * predictor.image_size**2)
    devices = jax.local_device_count()
    return -(-min(max(most, 1), DEFAULT_BATCH_SIZE) // devices) * devices


def _labels(names: Sequence[str] | None, classes: Sequence[str]) -> tuple[int, ...] | None:
    if names is None:
        return None
    for name in names:
        if name not in classes:
            similar = difflib.get_close_matches(name, classes) or classes
            raise InputError(
                f"--limit_classes: this detector has no class {name!r}; did you mean "
                f"{' or '.join(map(repr, similar))}?"
            )
    return tuple(sorted({classes.index(name) for name in names}))


if __name__ == "__main__":
    run_command(main)
