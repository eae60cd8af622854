"""Times the preparation of AVA's records against plain decoding, and extrapolates to all of AVA.

    taskset -c 1 python -m benchmarks.ava_preparation --output FILE.json

Makes a movie of 1280x720 with second 900 to 1799 of a textured scene that moves (MPEG-4, some
minutes), or takes one's own with `--movie`. Times are of one core's CPU, since others may use it
too: of decoding all frames as OpenCV gives them, and of `python -m input_pipeline.prepare ava` less
the start of TensorFlow, which is once a worker and not once a movie.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import cv2
import numpy as np

from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.video import TimedVideo

SECONDS = 900
STORED_FPS = 12
MOVIES = {"train": 235, "val": 64}
WIDTH, HEIGHT, FPS = 1280, 720, 24
GRAIN = 5.0  # grey levels
_LOOP_FRAMES = 240
_IMPORTS = "import tensorflow_datasets; from input_pipeline import builders"


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = pathlib.Path(scratch)
        movie = arguments.movie or make_movie(folder / "made.mp4", seconds=arguments.seconds)
        result = measure(movie, folder, start_second=arguments.start_second)
    result["extrapolated"] = extrapolate(result)
    print_table(result)
    if arguments.output:
        write_json(arguments.output, result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ava_preparation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--movie", type=pathlib.Path, help="instead of the made one")
    parser.add_argument("--start_second", default="900", help="where it begins (900)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of the made movie")
    parser.add_argument("--scratch", type=pathlib.Path, help="folder for movie and records")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file of all numbers")
    return parser.parse_args()


def make_movie(path: pathlib.Path, *, seconds: int) -> pathlib.Path:
    """A scene that moves over the picture, with grain, as films have it: else decoding is free."""
    rng = np.random.default_rng(0)
    scene = texture(rng)
    grain = rng.normal(0, GRAIN, (8, HEIGHT, WIDTH, 1)).round().repeat(3, axis=3)
    lighter, darker = (np.clip(sign * grain, 0, 255).astype(np.uint8) for sign in (1, -1))
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise InputError("OpenCV cannot write MPEG-4 here; give a --movie")
    for number in range(seconds * FPS):
        angle = 2 * np.pi * (number % _LOOP_FRAMES) / _LOOP_FRAMES
        x, y = (int(120 + 110 * turn) for turn in (np.cos(angle), np.sin(angle)))
        picture, kind = scene[y : y + HEIGHT, x : x + WIDTH], number % len(grain)
        writer.write(cv2.subtract(cv2.add(picture, lighter[kind]), darker[kind]))
    writer.release()
    return path


def texture(rng: np.random.Generator) -> np.ndarray:
    """Blots of all sizes, uint8 [H + 240, W + 240, 3], as rough as a film's pictures."""
    height, width = HEIGHT + 240, WIDTH + 240
    total = np.zeros((height, width, 3), np.float32)
    for level in range(1, 8):
        coarse = rng.standard_normal((height >> level, width >> level, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 2.0**level
    return np.clip(128 + 50 * total / total.std(), 0, 255).astype(np.uint8)


def measure(movie: pathlib.Path, folder: pathlib.Path, *, start_second: str) -> dict:
    """CPU seconds of each way through a movie."""
    with TimedVideo(movie) as video:
        fps = video.fps
    grabbed, frames = cpu_seconds(decode, movie, convert=False)
    converted, _ = cpu_seconds(decode, movie, convert=True)
    start_s = cpu_of_process([sys.executable, "-c", _IMPORTS])
    prepared_s = cpu_of_process(prepare_command(movie, folder, start_second))
    [report] = json.loads((folder / "out" / "report.json").read_text())["videos"]
    stored = STORED_FPS * (SECONDS - len(report["empty_seconds"]))
    return {
        "movie": {"fps": fps, "frames": frames, "bytes": movie.stat().st_size},
        "frames_prepared": report["num_frames"],
        "frames_stored": stored,
        "stored_size": [report["width"], report["height"]],
        "shard_bytes": report["num_bytes"],
        "cpu_s": {
            "decode": grabbed,
            "decode and convert to BGR": converted,
            "prepare": prepared_s - start_s,
            "start": start_s,
        },
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "load": os.getloadavg()[0],
    }


def decode(movie: pathlib.Path, *, convert: bool) -> int:
    """The number of frames, decoded by one thread."""
    count = 0
    with TimedVideo(movie) as video:
        for _, picture in video.frames():
            if convert:
                picture()
            count += 1
    return count


def cpu_seconds(function, *arguments, **options) -> tuple[float, int]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    value = function(*arguments, **options)
    return _difference(before, resource.getrusage(resource.RUSAGE_SELF)), value


def cpu_of_process(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{command[2]}: {(done.stderr or done.stdout).splitlines()[-1]}")
    return _difference(before, resource.getrusage(resource.RUSAGE_CHILDREN))


def prepare_command(movie: pathlib.Path, folder: pathlib.Path, start_second: str) -> list[str]:
    for name in ("annotations", "videos"):
        (folder / name).mkdir()
    (folder / "annotations" / "ava_train_v2.1.csv").write_text("x,0902,0,0,1,1,12,0\n")
    (folder / "videos" / f"x{movie.suffix}").symlink_to(movie.absolute())
    flags = [f"--{name}={folder / name}" for name in ("videos", "annotations")]
    flags += [f"--output={folder / 'out'}", "--workers=1", f"--start_second={start_second}"]
    return [sys.executable, "-m", "input_pipeline.prepare", "ava", *flags]


def extrapolate(result: dict) -> dict:
    """To all movies, were they all like this one."""
    movies, shown_s = sum(MOVIES.values()), result["frames_stored"] / STORED_FPS
    each_s = SECONDS * result["cpu_s"]["prepare"] / shown_s
    each_bytes = SECONDS * result["shard_bytes"] / shown_s
    return {
        "movies": movies,
        "stored_frames": movies * SECONDS * STORED_FPS,
        "core_hours": movies * each_s / 3600,
        "gigabytes": movies * each_bytes / 1e9,
    }


def print_table(result: dict) -> None:
    frames, prepared = result["movie"]["frames"], result["frames_prepared"]
    print(f"{frames} frames at {result['movie']['fps']:g} fps, stored {result['stored_size']}")
    for name, seconds in result["cpu_s"].items():
        count = {"prepare": prepared, "start": 0}.get(name, frames)
        rate = f"{count / seconds:8.0f} frames/s" if count else ""
        print(f"{name:<28}{seconds:8.1f} s {rate}")
    print(f"{result['shard_bytes'] / 1e6:.0f} MB, {result['peak_mib']:.0f} MiB of memory at most")
    all_of_it = result["extrapolated"]
    print(
        f"{all_of_it['movies']} movies like it: {all_of_it['core_hours']:.1f} core-hours, "
        f"{all_of_it['gigabytes']:.0f} GB"
    )


def _difference(before: resource.struct_rusage, after: resource.struct_rusage) -> float:
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    run_command(main)
