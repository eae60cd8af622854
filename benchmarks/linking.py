"""Times linking and trimming: `python -m benchmarks.linking`.

On simulated videos (`simulated_tubelets`), by default as many as the reference implementation was
timed on: 30 videos, 3,706 windows, four tubelets a window whose boxes all 24 classes share. All at
once, video by video, window by window; and how the time grows with more and with longer videos.
For one core: `OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.linking`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from benchmarks.simulated_tubelets import SMALL, Load, simulated_annotations, simulated_videos
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.linking import Sizes, link, video_sizes
from step_jax.online_linking import OnlineLinker
from step_jax.trimming import TrimOptions, trim
from step_jax.tubelet_table import TubeletRows, concatenate

GROWTH = (1, 4, 16)


def median_s(call: Callable[[], object], *, repeats: int) -> float:
    """The median wall time of a warm call in seconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def more_videos(rows: TubeletRows, sizes: Sizes, times: int) -> tuple[TubeletRows, Sizes]:
    """The same videos so many times, under new names."""
    names = [f"{name} {copy}" for copy in range(times) for name in rows.videos]
    parts = [rows] * times
    together = replace(concatenate(rows.header, parts), videos=tuple(names))
    return together, {name: sizes[name.rpartition(" ")[0]] for name in names}


def longer_videos(rows: TubeletRows, sizes: Sizes, times: int) -> tuple[TubeletRows, Sizes]:
    """Each video so many times in a row."""
    frames = np.array([sizes[name][0] for name in rows.videos])[rows.video]
    parts = [
        replace(rows, start=(rows.start + copy * frames).astype(np.int32)) for copy in range(times)
    ]
    together = concatenate(rows.header, parts)
    together = replace(together, videos=rows.videos, video=np.tile(rows.video, times))
    order = np.lexsort((together.start, together.video))
    longer = {name: (times * size[0], *size[1:]) for name, size in sizes.items()}
    return together.take(order), longer


def link_online(rows: TubeletRows, sizes: Sizes):
    """All videos one after the other, window by window."""
    for number, name in enumerate(rows.videos):
        num_frames, width, height = sizes[name]
        linker = OnlineLinker(rows.header, width=width, height=height, video=name)
        of_video = rows.take(rows.video == number)
        starts, first = np.unique(of_video.start, return_index=True)
        for start, some in zip(starts, np.split(np.arange(len(of_video)), first[1:]), strict=True):
            linker.add(start, of_video.scores[some], of_video.tubes[some])
        linker.finish(num_frames=num_frames)


def measure(load: Load, *, repeats: int) -> Iterator[dict]:
    """One row of the table after the other: what, its size, seconds."""
    annotations = simulated_annotations(load)
    sizes = video_sizes(annotations)
    videos = list(simulated_videos(load, annotations))
    rows = concatenate(load.header, videos)

    def result(what: str, seconds: float, **counts) -> dict:
        return {"what": what, "videos": len(videos), "windows": load.num_clips, **counts,
                "tubelets": len(rows) * counts.get("times", 1), "seconds": seconds}  # fmt: skip

    yield result("link, one batch", median_s(lambda: link(rows, sizes=sizes), repeats=repeats))
    one_by_one = median_s(lambda: [link(v, sizes=sizes) for v in videos], repeats=repeats)
    yield result("link, video by video", one_by_one)
    yield result("link, online", median_s(lambda: link_online(rows, sizes), repeats=1))
    tubes = link(rows, sizes=sizes)
    for way in (TrimOptions(penalty=3), TrimOptions(penalty=3, normalise=True)):
        seconds = median_s(lambda way=way: trim(tubes, way), repeats=repeats)
        yield result("trim, normalised" if way.normalise else "trim", seconds)
    for what, grown in (("more videos", more_videos), ("longer videos", longer_videos)):
        for times in GROWTH:
            some, own_sizes = grown(rows, sizes, times)
            seconds = median_s(
                lambda some=some, own=own_sizes: link(some, sizes=own),
                repeats=max(1, repeats // times),
            )
            yield result(f"link, {what}", seconds, times=times)


def table_row(row: dict) -> str:
    times = f"x{row['times']}" if "times" in row else ""
    each = 1e3 * row["seconds"] / (row["windows"] * row.get("times", 1))
    return f"{row['what']:<22}{times:>5}{row['seconds']:>10.3f} s{each:>10.4f} ms a window"


def main():
    parser = argparse.ArgumentParser(description="Times linking and trimming on simulated videos.")
    parser.add_argument("--videos", type=int, default=SMALL.num_videos)
    parser.add_argument("--windows", type=int, default=SMALL.num_clips, help="of all videos")
    parser.add_argument("--class_boxes", action="store_true", help="11 tubelets, own boxes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="JSON file for the numbers")
    args = parser.parse_args()
    load = replace(SMALL, num_videos=args.videos, num_clips=args.windows)
    if args.class_boxes:
        load = replace(load, class_boxes=True, proposals=11, fewest=11)
    results = []
    for row in measure(load, repeats=args.repeats):
        print(table_row(row), flush=True)
        results.append(row)
    if args.output:
        write_json(args.output, {"load": vars(load), "results": results})


if __name__ == "__main__":
    run_command(main)
