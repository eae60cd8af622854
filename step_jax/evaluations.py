"""Results of evaluations in a working directory: one folder per split and checkpoint.

Where only some videos of a split are evaluated the folder is another one, see `part`.
`workdir/eval/<part>/<step>/metrics.json` is written last, so that a folder that has it is
complete. Its "score" decides which checkpoint is the best.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from step_jax import run_folder
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.storage import as_path

FOLDER = "eval"
METRICS = "metrics.json"


def part(split: str, videos: str = "") -> str:
    """The folder's name of a split, or of those of its videos that a pattern chooses."""
    if not videos:
        return split
    readable = re.sub(r"[^A-Za-z0-9]+", "-", videos).strip("-")[:40]
    return f"{split}_{readable}_{hashlib.sha256(videos.encode()).hexdigest()[:6]}"


def folder(workdir: epath.PathLike, *, split: str, step: int, videos: str = "") -> epath.Path:
    """Where the evaluation of one checkpoint on one split, or some of its videos, lies."""
    return epath.Path(as_path(workdir)) / FOLDER / part(split, videos) / str(step)


def write_metrics(path: epath.PathLike, metrics: Mapping[str, Any]) -> epath.Path:
    """Writes `path/metrics.json` and returns its path."""
    target = epath.Path(as_path(path)) / METRICS
    write_json(target, metrics)
    return target


def read_metrics(workdir: epath.PathLike) -> dict[tuple[str, int], dict[str, Any]]:
    """(part, step) -> metrics of all complete evaluations."""
    found = {}
    for path in sorted(as_path(workdir).glob(f"{FOLDER}/*/*/{METRICS}")):
        name, step = path.parent.parent.name, path.parent.name
        if not step.isdigit():
            continue
        try:
            found[name, int(step)] = json.loads(path.read_text())
        except FileNotFoundError:
            continue  # somebody has just deleted it
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); delete it and evaluate again") from error
    return found


def best_step(workdir: epath.PathLike, *, among: Collection[int]) -> int | None:
    """The evaluated checkpoint with the highest score, the later of equals; None without any.

    Only the part that the run is configured to evaluate counts: a look at the training split, or
    at a few videos, must not decide.
    """
    configured = run_folder.evaluated_part(workdir)
    wanted = part(*configured) if configured else None
    scores = [
        (metrics["score"], step)
        for (name, step), metrics in read_metrics(workdir).items()
        if step in among and name == (wanted or name) and metrics.get("score") is not None
    ]
    return max(scores)[1] if scores else None


def describe_best(workdir: epath.PathLike, name: str) -> str:
    """A line that says which of a part's evaluated checkpoints has the highest score."""
    evaluated = read_metrics(workdir)
    scores = {step: found["score"] for (part, step), found in evaluated.items() if part == name}
    known = [(score, step) for step, score in scores.items() if score is not None]
    if not known:
        return f"{len(scores)} checkpoints are evaluated, none has a score"
    score, step = max(known)
    return f"the best of {len(scores)} evaluated checkpoints is {step}, score {score:.2f}"
