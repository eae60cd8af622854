"""Results of evaluations in a working directory: one folder per split and checkpoint.

Where only some videos of a split are evaluated the folder is another one, see `part`.
`workdir/eval/<part>/<step>/metrics.json` is written last, so that a folder that has it is
complete. Its "score" decides which checkpoint is the best, its "identity" which scores can be
compared.
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
# Keys of the configuration that a score does not depend on: those of tubes.
_NOT_OF_SCORE = (
    "eval.tubes",
    "eval.tube_steps",
    "eval.tube_nms",
    "eval.video_map_thresholds",
    "eval.link.",
    "eval.trim.",
)


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
            found[name, int(step)] = _read(path)
        except FileNotFoundError:
            continue  # somebody has just deleted it
    return found


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); delete it and evaluate again") from error


def of_run(workdir: epath.PathLike) -> dict[int, dict[str, Any]]:
    """Step -> metrics of what decides which of the run's checkpoints is the best.

    That is the part that the run is configured to evaluate, the first one if that is unknown: a
    look at the training split, or at a few videos, must not decide.
    """
    configured = run_folder.evaluated_part(workdir)
    if configured:
        return alike(workdir, part(*configured))
    names = sorted({name for name, _ in read_metrics(workdir)})
    return alike(workdir, names[0]) if names else {}


def alike(workdir: epath.PathLike, name: str) -> dict[int, dict[str, Any]]:
    """Step -> metrics of a part's evaluations whose scores can be compared with one another.

    They are made as the run is configured to evaluate, or, if none is, as that of the latest
    checkpoint: by another protocol a worse checkpoint may have the higher score.
    """
    found = {step: one for (part, step), one in read_metrics(workdir).items() if part == name}
    options = {step: _options_of_score(metrics) for step, metrics in found.items()}
    configured = run_folder.evaluation_options(workdir)
    chosen = {
        step
        for step, own in options.items()
        if configured and all(configured.get(key, value) == value for key, value in own.items())
    }
    if found and not chosen:
        chosen = {step for step, own in options.items() if own == options[max(found)]}
    return {step: metrics for step, metrics in found.items() if step in chosen}


def _options_of_score(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """By key of the configuration; of evaluations from before they told it nothing is known."""
    identity = metrics.get("identity", {})
    return {
        key: value
        for key, value in identity.items()
        if key.startswith("eval.") and not key.startswith(_NOT_OF_SCORE)
    }


def _scores(metrics: Mapping[int, Mapping[str, Any]]) -> list[tuple[float, int]]:
    """(score, step) of those that have one."""
    return [(one["score"], step) for step, one in metrics.items() if one.get("score") is not None]


def is_of_checkpoint(folder: epath.PathLike) -> bool:
    """Whether a folder holds the result of a checkpoint's evaluation, not of a table alone."""
    path = as_path(folder) / METRICS
    return path.exists() and "identity" in _read(path)


def best_step(workdir: epath.PathLike, *, among: Collection[int]) -> int | None:
    """The evaluated checkpoint with the highest score, the later of equals; None without any."""
    known = [(score, step) for score, step in _scores(of_run(workdir)) if step in among]
    return max(known)[1] if known else None


def describe_best(workdir: epath.PathLike, name: str) -> str:
    """A line that says which of a part's evaluated checkpoints has the highest score."""
    evaluated = alike(workdir, name)
    known = _scores(evaluated)
    if not known:
        return f"{len(evaluated)} checkpoints are evaluated, none has a score"
    score, step = max(known)
    return f"the best of {len(evaluated)} evaluated checkpoints is {step}, score {score:.2f}"
