"""Times the preparation of AVA's records against plain decoding, and extrapolates to all of AVA.

    taskset -c 1 python -m benchmarks.ava_preparation --output FILE.json

Makes a minute of 1280x720 at 24 fps, a textured scene that moves (MPEG-4), or takes one's own with
`--movie`. Times are of one core's CPU, since others may use it too, the least of some repeats: of
decoding all frames as OpenCV does it, and of `python -m input_pipeline.prepare ava`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
from fractions import Fraction

import cv2
import numpy as np

from input_pipeline.ava import sources
from input_pipeline.ava.shards import ChosenFrames, ShardOptions
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.video import TimedVideo

FIRST_SECOND, SECONDS = 900, 900
STORED_FPS = 12
MOVIES = {"train": 235, "val": 64}
WIDTH, HEIGHT, FPS = 1280, 720, 24
GRAIN = 5.0  # grey levels
REPEATS = 3
_LOOP_FRAMES = 240
_IMPORTS = "import tensorflow_datasets; from input_pipeline import builders"


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = pathlib.Path(scratch)
        movie = arguments.movie or make_movie(folder / "made.mp4", seconds=arguments.seconds)
        result = measure(movie, folder)
    result["extrapolated"] = extrapolate(result)
    print_table(result)
    if arguments.output:
        write_json(arguments.output, result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ava_preparation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--movie", type=pathlib.Path, help="instead of the made one")
    parser.add_argument("--seconds", type=int, default=60, help="of the made movie (60)")
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


def measure(movie: pathlib.Path, folder: pathlib.Path) -> dict:
    """CPU seconds of each way through a movie of some seconds, and of writing a shard of 900."""
    with TimedVideo(movie) as video:
        fps = video.fps
    grabbed, frames = cpu_seconds(decode, movie, convert=False)
    converted, _ = cpu_seconds(decode, movie, convert=True)
    chosen, stored = cpu_seconds(choose_and_encode, movie)
    start = [sys.executable, "-c", _IMPORTS]
    start_s = min(cpu_of_process(start) for _ in range(REPEATS))
    # Records are of 900 s whatever the movie has; of one that begins at the last second only that
    # is decoded, and the rest of the time goes into writing.
    runs = [prepare(movie, folder / str(number)) for number in range(REPEATS)]
    return {
        "movie": {"fps": fps, "frames": frames, "seconds": stored / STORED_FPS},
        "stored_size": [runs[0][1]["width"], runs[0][1]["height"]],
        "shard_bytes": runs[0][1]["num_bytes"],
        "cpu_ms_per_frame": {
            "decode": 1e3 * grabbed / frames,
            "decode and convert to BGR": 1e3 * converted / frames,
            "choose, shrink, encode": 1e3 * chosen / frames,
        },
        "cpu_s": {
            "start": start_s,
            "write a shard": min(seconds for seconds, _ in runs) - start_s,
            "a second's frames": chosen * STORED_FPS / stored,
        },
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "load": os.getloadavg()[0],
    }


def choose_and_encode(movie: pathlib.Path) -> int:
    """What preparation does with a movie's frames; the number that is stored."""
    timing = sources.Timing(start_second=Fraction(FIRST_SECOND))
    with sources.open_source(movie, timing) as source:
        seconds = []
        frames = ChosenFrames(source, ShardOptions(), seconds.append)
        for _ in frames.jpegs():
            pass
        return STORED_FPS * (SECONDS - len(frames.report()["empty_seconds"]))


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
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_SELF)
        value = function(*arguments, **options)
        times.append(_difference(before, resource.getrusage(resource.RUSAGE_SELF)))
    return min(times), value


def cpu_of_process(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{command[2]}: {(done.stderr or done.stdout).splitlines()[-1]}")
    return _difference(before, resource.getrusage(resource.RUSAGE_CHILDREN))


def prepare(movie: pathlib.Path, folder: pathlib.Path) -> tuple[float, dict]:
    """CPU seconds of the command for one movie, of which the last second counts; its report."""
    for name in ("annotations", "videos"):
        (folder / name).mkdir(parents=True)
    (folder / "annotations" / "ava_train_v2.1.csv").write_text("x,0902,0,0,1,1,12,0\n")
    (folder / "videos" / f"x{movie.suffix}").symlink_to(movie.absolute())
    flags = [f"--{name}={folder / name}" for name in ("videos", "annotations")]
    flags += [f"--output={folder / 'out'}", "--workers=1"]
    flags += [f"--start_second={FIRST_SECOND + SECONDS - 1}"]
    seconds = cpu_of_process([sys.executable, "-m", "input_pipeline.prepare", "ava", *flags])
    [report] = json.loads((folder / "out" / "report.json").read_text())["videos"]
    shutil.rmtree(folder)
    return seconds, report


def extrapolate(result: dict) -> dict:
    """To all movies, were they all like this one."""
    movies = sum(MOVIES.values())
    each_s = result["cpu_s"]["write a shard"] + SECONDS * result["cpu_s"]["a second's frames"]
    return {
        "movies": movies,
        "stored_frames": movies * SECONDS * STORED_FPS,
        "core_hours": movies * each_s / 3600,
        "gigabytes": movies * result["shard_bytes"] / 1e9,
    }


def print_table(result: dict) -> None:
    movie = result["movie"]
    print(f"{movie['frames']} frames at {movie['fps']:g} fps, stored as {result['stored_size']}")
    for name, milliseconds in result["cpu_ms_per_frame"].items():
        print(f"{name:<28}{milliseconds:8.2f} ms {1e3 / milliseconds:8.0f} frames/s")
    for name, seconds in result["cpu_s"].items():
        print(f"{name:<28}{seconds:8.2f} s")
    print(f"{result['shard_bytes'] / 1e6:.0f} MB a shard, {result['peak_mib']:.0f} MiB at most")
    all_of_it = result["extrapolated"]
    print(
        f"{all_of_it['movies']} movies like it: {all_of_it['core_hours']:.1f} core-hours, "
        f"{all_of_it['gigabytes']:.0f} GB"
    )


def _difference(before: resource.struct_rusage, after: resource.struct_rusage) -> float:
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    run_command(main)
