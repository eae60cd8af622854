"""Times AVA's metric: `python -m benchmarks.ava_metric --output FILE.json`.

Two made-up outputs of a detector on the 57,371 keyframes of AVA's validation set, read from files
as the command reads them: 600,000 detections as CSV, and 300 rows on each keyframe, 17 million, as
Parquet. Every protocol is timed; a process of its own for each output tells the memory. One core:

    OMP_NUM_THREADS=1 taskset -c 1 python -m benchmarks.ava_metric
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
import time

import numpy as np
import pyarrow as pa

from step_jax.annotations.ava_csv import (
    FIRST_KEYFRAME,
    LAST_KEYFRAME,
    AvaDetections,
    AvaLabels,
    Keyframes,
)
from step_jax.annotations.ava_labels import KINDS, LabelMap
from step_jax.ava_table import read_ava_detections, write_ava_detections
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.metrics.ava import PROTOCOLS, ava_map

VIDEOS = 64
EXCLUDED = 37
CLASSES = 60
LABELS = 197_000  # about as many as AVA's validation set has of the 60 classes
SIZES = {"600k.csv": 600_000, "full.parquet": 300}  # rows; rows per keyframe
REPEATS = 3


def keyframes(rng: np.random.Generator) -> Keyframes:
    """All of the validation set but the excluded ones: 64 x 897 - 37."""
    seconds = np.arange(FIRST_KEYFRAME, LAST_KEYFRAME + 1, dtype=np.int32)
    every = Keyframes(
        tuple(f"video{i:06d}" for i in range(VIDEOS)),
        np.repeat(np.arange(VIDEOS, dtype=np.int32), len(seconds)),
        np.tile(seconds, VIDEOS),
    )
    return every.take(np.sort(rng.choice(len(every), len(every) - EXCLUDED, replace=False)))


def actions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Ids 1 to 60 as unevenly frequent as AVA's: int16 [count]."""
    share = 1 / np.arange(1, CLASSES + 1) ** 1.5
    return rng.choice(np.arange(1, CLASSES + 1), count, p=share / share.sum()).astype(np.int16)


def make_labels(rng: np.random.Generator, frames: Keyframes) -> AvaLabels:
    rows = np.sort(rng.integers(len(frames), size=LABELS))
    corner, side = rng.uniform(0, 0.5, (LABELS, 2)), rng.uniform(0.2, 0.5, (LABELS, 2))
    chosen = frames.take(rows)
    return AvaLabels(
        chosen.videos,
        chosen.video,
        chosen.timestamp,
        boxes=np.concatenate([corner, corner + side], axis=1).round(3),
        action_id=actions(rng, LABELS),
        person_id=np.arange(LABELS, dtype=np.int32),
        empty=frames.take(slice(0, 0)),
    )


def make_detections(
    rng: np.random.Generator, frames: Keyframes, labels: AvaLabels, rows: np.ndarray
) -> AvaDetections:
    """Detections on the keyframes at `rows`; a third of them near some box of the ground truth."""
    chosen, count = frames.take(rows), len(rows)
    boxes = rng.uniform(0, 0.5, (count, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] + np.float32(0.05)
    number = labels.video * 2000 + labels.timestamp
    near = np.flatnonzero(rng.random(count) < 1 / 3)
    first = np.searchsorted(number, chosen.video[near] * 2000 + chosen.timestamp[near])
    first = np.minimum(first, len(labels) - 1)
    boxes[near] = labels.boxes[first] + rng.normal(0, 0.03, (len(near), 4))
    action = actions(rng, count)
    action[near] = np.where(rng.random(len(near)) < 0.3, labels.action_id[first], action[near])
    score = rng.beta(0.5, 4, count).astype(np.float32)
    return AvaDetections(
        chosen.videos, chosen.video, chosen.timestamp, boxes, action_id=action, score=score
    )


def make(folder: pathlib.Path, name: str, seed: int) -> AvaLabels:
    """Writes the detections of one size and returns the labels that belong to them."""
    rng = np.random.default_rng(seed)
    frames = keyframes(rng)
    labels = make_labels(rng, frames)
    if (folder / name).exists():
        return labels
    size = SIZES[name]
    if name.endswith(".csv"):
        rows = np.sort(rng.integers(len(frames), size=size))
    else:
        rows = np.repeat(np.arange(len(frames)), size)
    write_ava_detections(folder / name, make_detections(rng, frames, labels, rows))
    return labels


def measure(folder: pathlib.Path, name: str, seed: int) -> dict:
    """Seconds to read, and of every protocol the best of a few; MiB at most."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    labels = make(folder, name, seed)
    before = peak_mib()
    start = time.perf_counter()
    detections = read_ava_detections([folder / name])
    seconds = {"read": time.perf_counter() - start}
    label_map = LabelMap(
        tuple(range(1, CLASSES + 1)),
        tuple(f"action {i}" for i in range(CLASSES)),
        tuple(KINDS[i % len(KINDS)] for i in range(CLASSES)),
    )
    results = {}
    for year, protocol in PROTOCOLS.items():
        runs = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            result = ava_map(labels, detections, label_map, protocol=protocol)
            runs.append(time.perf_counter() - start)
        seconds[year], results[year] = min(runs), result.mean
    return {
        "rows": len(detections),
        "file_MiB": (folder / name).stat().st_size / 2**20,
        "seconds": seconds,
        "mAP": results,
        "peak_MiB": peak_mib(),
        "peak_before_MiB": before,
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def run_apart(folder: pathlib.Path, name: str, seed: int) -> dict:
    """Makes the file in one process and measures in another, which then has only its own memory."""
    command = [sys.executable, "-m", "benchmarks.ava_metric", "--folder", str(folder)]
    for phase in ("make", "measure"):
        output = subprocess.run(
            [*command, "--seed", str(seed), "--one", name, "--phase", phase],
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    return json.loads(output)


def main():
    parser = argparse.ArgumentParser(description="Times AVA's metric.")
    parser.add_argument("--output", help="JSON file for the numbers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, help="where the files stay; or a new one")
    parser.add_argument("--one", choices=SIZES, help=argparse.SUPPRESS)
    parser.add_argument("--phase", choices=("make", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        step = make if arguments.phase == "make" else measure
        found = step(arguments.folder, arguments.one, arguments.seed)
        print(json.dumps(found) if arguments.phase == "measure" else "")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        report = {name: run_apart(folder, name, arguments.seed) for name in SIZES}
    report["machine"] = {"load": os.getloadavg()[0], "numpy": np.__version__}
    report["machine"] |= {"cores": len(os.sched_getaffinity(0)), "pyarrow": pa.__version__}
    print(json.dumps(report, indent=1))
    if arguments.output:
        write_json(arguments.output, report)


if __name__ == "__main__":
    run_command(main)
