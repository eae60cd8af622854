"""What is kept of every run, and the one file that holds all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims import matrix
from benchmarks.claims.runs import Run, Runner
from configs import moving_actors
from step_jax.errors import InputError
from step_jax.training_log import read_log

FILE = "results.json"
# What results that are put together have in common ...
_COMMON = ("scale", "records", "preset")
# ... and what they have of the matrix, which may have got more since.
_MATRIX = ("rows", "fusions", "strides")
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


def merged(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Results of several machines as one: file -> what is in it.

    Raises InputError where they are not of the same scale and records, or have one run with other
    numbers: fusions would be compared with other runs than those they were made of. That all are of
    today's matrix, `check` tells.
    """
    (first, told), *others = found.items()
    for file, other in others:
        for key in _COMMON:
            if other[key] != told[key]:
                raise InputError(f"{file}: its {key!r} are not those of {first}; leave one out")
    kept: dict[Run, tuple[str, Mapping[str, Any]]] = {}
    machines: list[Mapping[str, Any]] = []
    for file, own in found.items():
        machines += [machine for machine in own["machines"] if machine not in machines]
        for numbers in own["runs"]:
            run = Run(numbers["row"], numbers["seed"])
            earlier, same = kept.setdefault(run, (file, numbers))
            unlike = [key for key in same | numbers if not _is_same(key, same, numbers)]
            if unlike:
                raise InputError(
                    f"{file}: {run.name} has other numbers than in {earlier} ({unlike[0]}); runs "
                    "repeat to the last bit on machines of one kind, with one code: leave one out"
                )
    later = {key: value for _, own in others for key, value in own.items() if key not in told}
    runs = sorted((numbers for _, numbers in kept.values()), key=lambda one: one["seed"])
    whole = described(matrix.SCALES[told["scale"]])
    return {**later, **told, **whole, "machines": machines, "runs": runs}


def _is_same(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return key == "seconds" or (key in a and key in b and a[key] == b[key])


def check(found: Mapping[str, Any], file: str) -> None:
    """Raises InputError for results that are not of today's matrix, or of an older form.

    Rows that the matrix has got since are no reason.
    """
    for key in (*_COMMON, *_MATRIX, "machines", "runs"):
        if key not in found:
            raise InputError(f"{file}: has no {key!r}; make it anew with benchmarks.claims")
    if found["scale"] not in matrix.SCALES:
        raise InputError(f"{file}: its scale is {found['scale']!r}; expected one of the matrix'")
    for key, value in described(matrix.SCALES[found["scale"]]).items():
        same = found[key].items() <= value.items() if key in _MATRIX else found[key] == value
        if not same:
            raise InputError(
                f"{file}: its {key!r} are not those of the matrix as it is; make it anew with "
                "benchmarks.claims"
            )


def described(scale: matrix.Scale) -> dict[str, Any]:
    """All configurations of the matrix, JSON-ready: the preset, and what rows change of it."""
    told = {
        "scale": scale.name,
        "preset": moving_actors.get_config().to_dict(),
        "rows": {row: scale.changes_of(row) for row in matrix.ROWS},
        "fusions": matrix.FUSIONS,
        "strides": matrix.STRIDES,
    }
    return json.loads(json.dumps(told))


def by_row(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Runs of each row in the order of seeds."""
    rows: dict[str, list[Mapping[str, Any]]] = {row: [] for row in [*matrix.ROWS, *matrix.DERIVED]}
    for run in sorted(found, key=lambda run: run["seed"]):
        rows[run["row"]].append(run)
    return rows
