"""What is kept of every run, and the one file that holds all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims import matrix
from benchmarks.claims.runs import Run, Runner
from step_jax.errors import InputError
from step_jax.training_log import read_log

FILE = "results.json"
# What results that are put together have in common.
_COMMON = ("scale", "records", "preset", "rows", "fusions", "strides")
# The last reports of a training's log, over which its proposals' overlaps are averaged.
_LAST_SHARE = 0.2


def collect(runner: Runner, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The finished ones, in the order of seeds within a row."""
    found = []
    for run in sorted(runs, key=lambda run: run.seed):
        done = runner.done(run)
        if done is not None:
            told = {"row": run.row, "seed": run.seed, "seconds": done["seconds"]}
            told |= reduced(runner.metrics(run))
            if not run.parts:
                told |= overlaps(read_log(runner.folder(run)))
            found.append(told)
    return found


def reduced(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Of `metrics.json` the numbers that tables and statements are made of, per step in lists."""
    steps = metrics["steps"]
    told = {
        "frame_map": [step["mean"] for step in steps],
        "localization_recall": [step["localization_recall"] for step in steps],
        "errors": [step["errors"] for step in steps],
        "per_class": [{one["class"]: one["ap"] for one in step["per_class"]} for step in steps],
        "windows": metrics.get("windows"),
        "protocol": metrics["protocol"],
    }
    if "video" in steps[-1]:
        video = steps[-1]["video"]
        told["video_map"] = {
            kind: {**video[kind]["mean"], "0.5:0.95": video[kind]["mean_50_95"]} for kind in video
        }
    return told


def overlaps(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How much the input proposals of each step overlap the ground truth, as training ends.

    "overlap_histogram" [steps][bins] has the shares of Figure 4, "overlap" [steps] their means, of
    which each bin counts as its middle.
    """
    last = log[-max(1, round(_LAST_SHARE * len(log))) :]
    steps = sum(key.startswith("overlap_histogram_") for key in last[-1])
    histograms = [
        np.mean([line[f"overlap_histogram_{step}"] for line in last], axis=0)
        for step in range(1, steps + 1)
    ]
    middles = [(np.arange(len(shares)) + 0.5) / len(shares) for shares in histograms]
    return {
        "overlap": [float(a @ b) for a, b in zip(histograms, middles, strict=True)],
        "overlap_histogram": [shares.round(5).tolist() for shares in histograms],
    }


def merged(found: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Results of several machines as one, and a line for each run with unlike numbers.

    Args:
      found: file -> what is in it. Of a run that several have, the first file's counts.

    Raises InputError where they are not of the same matrix and the same records.
    """
    (first, told), *others = found.items()
    for file, other in others:
        for key in _COMMON:
            if other[key] != told[key]:
                raise InputError(f"{file}: its {key!r} are not those of {first}; leave one out")
    kept: dict[str, tuple[str, Mapping[str, Any]]] = {}
    unlike = []
    for file, own in found.items():
        for run in own["runs"]:
            name = Run(run["row"], run["seed"]).name
            counted, counts = kept.setdefault(name, (file, run))
            if _numbers(run) != _numbers(counts):
                unlike.append(
                    f"{name}: {_told(counts)} in {counted}, which counts, {_told(run)} in {file}"
                )
    machines = [machine for own in found.values() for machine in own["machines"]]
    runs = sorted((run for _, run in kept.values()), key=lambda run: run["seed"])
    return {**told, "machines": machines, "runs": runs}, unlike


def _numbers(run: Mapping[str, Any]) -> dict[str, Any]:
    """What repeats to the last bit on the same kind of machine."""
    return {key: value for key, value in run.items() if key != "seconds"}


def _told(run: Mapping[str, Any]) -> str:
    return " ".join(f"{value:.2f}" for value in run["frame_map"])


def by_row(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Runs of each row in the order of seeds, up to the first that is missing."""
    rows: dict[str, list[Mapping[str, Any]]] = {row: [] for row in [*matrix.ROWS, *matrix.DERIVED]}
    for run in found:
        if run["seed"] == len(rows[run["row"]]):
            rows[run["row"]].append(run)
    return rows
