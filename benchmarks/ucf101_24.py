"""Evaluates as much as UCF101-24's test list gives: `python -m benchmarks.ucf101_24`.

Simulates 910 videos with 160,000 windows of 11 tubelets, whose 24 classes have boxes of their own
(`simulated_tubelets`), writes them as a tubelet table (4.2 GB, a file of 2.2; not timed) and goes
from the table to frame-mAP, tubes, trimmed tubes and video-mAP as `step_jax.metrics.ucf101_24`
does, video by video. For one core: `OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.ucf101_24`.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from benchmarks.simulated_tubelets import FULL, Load, simulated_annotations, simulated_videos
from step_jax.annotations import Annotations
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.linking import link_videos, video_sizes
from step_jax.metrics.frame_map import map_of
from step_jax.metrics.frame_tally import FrameTally
from step_jax.metrics.tubelet_frames import as_table_header, frame_detections
from step_jax.metrics.video_map import video_map
from step_jax.trimming import TrimOptions, trim
from step_jax.tube_table import join_tubes
from step_jax.tubelet_table import TubeletRows, iter_tubelet_videos, read_tubelet_header
from step_jax.tubelet_writer import TubeletWriter

TRIMMING = TrimOptions(penalty=1, normalise=True)


class Parts:
    """Seconds of each part of the work."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        """The result of a call, whose time is added to a part's."""
        start = time.perf_counter()
        try:
            return call()
        finally:
            took = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0) + took


def write_table(path: pathlib.Path, load: Load, annotations: Annotations):
    with TubeletWriter(path, **vars(load.header)) as writer:
        videos = simulated_videos(load, annotations)
        for rows in tqdm(videos, total=len(annotations.videos), desc="simulate", unit="video"):
            writer.append_rows(rows)


def evaluate(path: pathlib.Path, annotations: Annotations, parts: Parts) -> dict:
    """Everything that the paper's table needs, in one pass over the table."""
    header = read_tubelet_header(path)
    counted = FrameTally(annotations, "test", as_table_header(header))

    def count(rows: TubeletRows):
        for block in frame_detections(rows, annotations, "test"):
            counted.add(block)

    def videos() -> Iterator[TubeletRows]:
        table = iter_tubelet_videos(path, step=1)
        for _ in tqdm(annotations.videos, desc="evaluate", unit="video"):
            rows = parts.time("read", lambda: next(table))
            parts.time("boxes in frames", lambda rows=rows: count(rows))
            yield rows

    start = time.perf_counter()
    linked = join_tubes(list(link_videos(videos(), sizes=video_sizes(annotations))))
    parts.seconds["link"] = time.perf_counter() - start - sum(parts.seconds.values())
    frames = parts.time("frame-mAP", lambda: map_of(counted))
    before = parts.time("video-mAP", lambda: video_map(linked, annotations, "test"))
    trimmed = parts.time("trim", lambda: trim(linked, TRIMMING))
    after = parts.time("video-mAP, trimmed", lambda: video_map(trimmed, annotations, "test"))
    return {
        "tubes": len(linked),
        "frames of tubes": len(linked.frame),
        "trimmed tubes": len(trimmed),
        "frame-mAP": frames.mean,
        "video-mAP@.2": before.at(0.2),
        "video-mAP@.2, trimmed": after.at(0.2),
    }


def peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def report_of(load: Load, parts: Parts, results: dict) -> dict:
    return {
        "load": vars(load),
        "seconds": {**parts.seconds, "all": sum(parts.seconds.values())},
        "peak_mib": peak_mib(),
        "results": results,
    }


def print_report(report: dict):
    for name, seconds in report["seconds"].items():
        print(f"{name:<24}{seconds:>10.1f} s")
    print(f"{'peak memory':<24}{report['peak_mib']:>10.0f} MiB")
    for name, value in report["results"].items():
        print(
            f"{name:<24}{value:>10,.2f}" if isinstance(value, float) else f"{name:<24}{value:>10,}"
        )


def main():
    parser = argparse.ArgumentParser(description="Times the evaluation of a whole test list.")
    parser.add_argument("--videos", type=int, default=FULL.num_videos)
    parser.add_argument("--windows", type=int, default=FULL.num_clips, help="of all videos")
    parser.add_argument("--shared_boxes", action="store_true", help="one box for all classes")
    parser.add_argument(
        "--table", default="runs/benchmark/tubelets.parquet", help="written if it is not there"
    )
    parser.add_argument("--output", help="JSON file for the numbers")
    args = parser.parse_args()
    load = replace(
        FULL,
        num_videos=args.videos,
        num_clips=args.windows,
        class_boxes=not args.shared_boxes,
    )
    annotations = simulated_annotations(load)
    table = pathlib.Path(args.table)
    if not table.exists() or read_tubelet_header(table) != load.header:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, load, annotations)
        print(f"peak memory while writing {table}: {peak_mib():.0f} MiB")
    parts = Parts()
    report = report_of(load, parts, evaluate(table, annotations, parts))
    print_report(report)
    if args.output:
        write_json(args.output, report)


if __name__ == "__main__":
    run_command(main)
