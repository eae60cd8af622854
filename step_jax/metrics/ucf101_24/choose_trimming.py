"""`python -m step_jax.metrics.ucf101_24.choose_trimming`: how to trim, found on held-out videos.

The paper does not give its penalty. Here every penalty of a grid, with and without normalised
scores, is tried on videos that are neither trained on nor tested: groups 22 to 25 of the training
split by default. The detector must have been trained without them for the choice to be fair.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from step_jax.annotations import Annotations, select_videos
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.linking import LinkOptions, link_videos, video_sizes
from step_jax.metrics.ucf101_24.annotation_files import read_annotations
from step_jax.metrics.ucf101_24.options import add_flags, options_of
from step_jax.metrics.video_map import video_map
from step_jax.replacing import check_outputs
from step_jax.trimming import TrimOptions, trim
from step_jax.tube_table import Tubes, join_tubes, no_tubes, read_tubes
from step_jax.tubelet_table import is_tubelet_table, iter_tubelet_videos, read_tubelet_header

PENALTIES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
HELD_OUT = "*_g2[2-5]_c*"


@dataclass(frozen=True)
class Trial:
    """One way to trim, or None for no trimming, and its video-mAP in percent."""

    options: TrimOptions | None
    mean: float


def choose_penalty(
    tubes: Tubes,
    annotations: Annotations,
    split: str,
    *,
    threshold: float,
    penalties: Sequence[float] = PENALTIES,
    normalise: Sequence[bool] = (False, True),
    others: TrimOptions | None = None,
    **protocol,
) -> tuple[TrimOptions, list[Trial]]:
    """The way to trim that gives the highest video-mAP on held-out videos.

    Args:
      tubes: all linked tubes of the held-out videos, before any tube NMS.
      annotations, split: those videos and no others; one without tubes counts as undetected.
      threshold: iou3dt at which video-mAP is compared.
      penalties, normalise: the grid. Of equally good ways the first one is chosen, penalties
        without normalised scores before those with them.
      others: the other constants of trimming; its penalty does not count.
      protocol: options of `video_map`.

    Returns: the choice, and all trials, the first one without trimming.

    Raises InputError for an empty grid and as `video_map`.
    """
    if not len(penalties) or not len(normalise):
        raise InputError("no penalty to try; expected one or more numbers of 0 or more")
    base = others or TrimOptions(penalty=0)
    ways = [replace(base, penalty=p, normalise=n) for n in normalise for p in penalties]

    def mean(trimmed: Tubes) -> float:
        found = video_map(trimmed, annotations, split, thresholds=(threshold,), **protocol)
        return found.at(threshold)

    trials = [Trial(way, mean(trim(tubes, way))) for way in ways]
    best = max(trials, key=lambda trial: trial.mean)
    return best.options, [Trial(None, mean(tubes)), *trials]


def tubes_of_videos(
    path: str | os.PathLike, annotations: Annotations, split: str, *, link: LinkOptions
) -> Tubes:
    """The tubes of a split's videos from a table of tubes, or of tubelets, of the last step.

    Other videos of the table are left out. Raises InputError where it has none of the split's.
    """
    sizes = video_sizes(annotations, split)
    if is_tubelet_table(path):
        header = read_tubelet_header(path)
        videos = iter_tubelet_videos(path, step=max(header.steps))
        chosen = (rows for rows in videos if rows.videos[0] in sizes)
        parts = list(link_videos(chosen, sizes=sizes, options=link))
        tubes = join_tubes([no_tubes(header.classes), *parts])
    else:
        tubes = read_tubes(path)
        held_out = np.array([name in sizes for name in tubes.videos], bool)
        tubes = tubes.take(held_out[tubes.video])
    if not len(tubes):
        raise InputError(
            f"{path}: no tube of any of the {len(sizes)} held-out videos; expected a table of a "
            f"detector that was run on them (the first is {next(iter(sizes))!r})"
        )
    return tubes


def format_trials(trials: Sequence[Trial], chosen: TrimOptions, *, threshold: float) -> str:
    """A line a trial; the chosen one is marked."""
    lines = [f"{'penalty':>9} {'scores':>11} {f'video-mAP@{threshold:g}':>14}"]
    for trial in trials:
        way = trial.options
        penalty = "untrimmed" if way is None else f"{way.penalty:g}"
        scores = "" if way is None else "normalised" if way.normalise else "raw"
        mark = "  chosen" if way is chosen else ""
        lines.append(f"{penalty:>9} {scores:>11} {trial.mean:>14.2f}{mark}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.metrics.ucf101_24.choose_trimming",
        description="Finds the penalty of temporal trimming on held-out videos.",
    )
    parser.add_argument("--annotations", required=True, help="native annotation file (JSON)")
    parser.add_argument("--detections", required=True, help="table of tubelets, or of linked tubes")
    parser.add_argument("--output", required=True, help="JSON file for the choice and all trials")
    parser.add_argument("--split", default="train", help="of the annotations (train)")
    parser.add_argument("--videos", default=HELD_OUT, help=f"glob over video ids ({HELD_OUT})")
    parser.add_argument("--threshold", type=float, default=0.2, help="iou3dt compared at (0.2)")
    parser.add_argument("--penalties", type=float, nargs="+", default=PENALTIES, help="the grid")
    parser.add_argument("--min_run", type=int, default=10, help="frames of a run (10)")
    parser.add_argument("--top_frames", type=int, default=40, help="best frames that score (40)")
    add_flags(parser, LinkOptions, title="linking, of a table of tubelets")
    arguments = parser.parse_args()

    check_outputs([arguments.output], inputs=[arguments.annotations, arguments.detections])
    annotations = read_annotations(arguments.annotations)
    annotations = select_videos(annotations, arguments.videos, split=arguments.split)
    link = options_of(arguments, LinkOptions)
    tubes = tubes_of_videos(arguments.detections, annotations, arguments.split, link=link)
    chosen, trials = choose_penalty(
        tubes,
        annotations,
        arguments.split,
        threshold=arguments.threshold,
        penalties=arguments.penalties,
        others=TrimOptions(penalty=0, min_run=arguments.min_run, top_frames=arguments.top_frames),
    )
    print(format_trials(trials, chosen, threshold=arguments.threshold))
    num_videos, with_tubes = len(annotations.videos), len(set(tubes.video.tolist()))
    print(f"{num_videos} held-out videos, {with_tubes} of them with tubes")
    report = {
        "chosen": asdict(chosen),
        "metric": f"video-mAP@{arguments.threshold:g}",
        "videos": arguments.videos,
        "num_videos": num_videos,
        "num_videos_with_tubes": with_tubes,
        "trials": [
            {"options": None if t.options is None else asdict(t.options), "mean": t.mean}
            for t in trials
        ],
    }
    write_json(arguments.output, report)


if __name__ == "__main__":
    run_command(main)
