"""Optical flow of videos, as flow images: OUTPUT/<video>/00001.jpg and so on, and OUTPUT/flow.json.

    python -m step_jax.flow --method dis --input videos --output flow
    python -m step_jax.flow --method brox --input rgb-images --output flow_brox --batch 16

The input is a video file, a folder of frames, or a folder with any number of both in any depth. The
same command again continues where it stopped. docs/flow.md tells which method when.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import signal
import sys
from collections.abc import Sequence

from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.flow.brox_options import BroxOptions
from step_jax.flow.extraction import FlowOptions, Summary, extract
from step_jax.flow.image_folder import ImageFormat
from step_jax.flow.methods import METHODS
from step_jax.flow.opencv_flow import DIS_PRESETS
from step_jax.flow.sources import find_sources

_OF_BROX = tuple(field.name for field in dataclasses.fields(BroxOptions))


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C
    arguments = parse_arguments()
    options, workers = choose(arguments)
    sources = find_sources(arguments.input, output=arguments.output)
    summary = extract(sources, arguments.output, options, workers=workers)
    report(summary, arguments.output)
    return 1 if summary.failed else 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.flow", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--method", choices=METHODS, required=True)
    add("--input", type=pathlib.Path, required=True, help="video, folder of frames, or of those")
    add("--output", type=pathlib.Path, required=True, help="folder of the flow images, made")
    add("--workers", type=int, help="processes of dis and tvl1 (default: one a core)")
    add("--batch", type=int, help="pairs of frames at once, of brox (default: by the device)")
    add("--png", action="store_true", help="lossless, 6 times as large as JPEG")
    add("--jpeg_quality", type=int, default=ImageFormat.jpeg_quality)
    add("--short_side", type=int, default=0, help="shrink frames to this before (0: do not)")
    add("--preset", choices=DIS_PRESETS, help="of dis (default: medium)")
    brox = parser.add_argument_group("parameters of brox")
    for field in dataclasses.fields(BroxOptions):
        kind = type(field.default)
        brox.add_argument(f"--{field.name}", type=kind, help=f"default: {field.default}")
    return parser.parse_args(arguments)


def choose(arguments: argparse.Namespace) -> tuple[FlowOptions, int]:
    """The options and the number of processes. Raises InputError for a flag of another method."""
    method = arguments.method
    given = {name for name, value in vars(arguments).items() if value is not None}
    allowed = {"dis": ("preset", "workers"), "tvl1": ("workers",), "brox": (*_OF_BROX, "batch")}
    for name in ("preset", "workers", "batch", *_OF_BROX):
        if name in given and name not in allowed[method]:
            raise InputError(f"--{name}: means nothing for --method {method}; leave it out")
    for name, low in {"workers": 1, "batch": 1, "short_side": 0}.items():
        if name in given and getattr(arguments, name) < low:
            raise InputError(f"--{name} {getattr(arguments, name)}: expected at least {low}")
    parameters = {name: getattr(arguments, name) for name in ("preset", *_OF_BROX) if name in given}
    options = FlowOptions(
        method=method,
        parameters=parameters,
        batch=arguments.batch,
        image_format=ImageFormat(png=arguments.png, jpeg_quality=arguments.jpeg_quality),
        short_side=arguments.short_side,
    )
    return options, 1 if method == "brox" else arguments.workers or _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def report(summary: Summary, output: pathlib.Path) -> None:
    text = f"wrote {summary.frames} flow images of {summary.videos} videos to {output}"
    if summary.kept:
        text += f"; {summary.kept} were there already"
    print(text)
    if summary.failed:
        print(f"error: {len(summary.failed)} videos failed, named above", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
