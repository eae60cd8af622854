"""Results of evaluations in a working directory: one folder per split and checkpoint.

`workdir/eval/<split>/<step>/metrics.json` is written last, so that a folder that has it is
complete. Its "score" decides which checkpoint is the best.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from step_jax import run_folder
from step_jax.errors import InputError
from step_jax.files import write_json

FOLDER = "eval"
METRICS = "metrics.json"


def folder(workdir: epath.PathLike, *, split: str, step: int) -> epath.Path:
    """Where the evaluation of one checkpoint on one split lies."""
    return epath.Path(workdir) / FOLDER / split / str(step)


def write_metrics(path: epath.PathLike, metrics: Mapping[str, Any]) -> epath.Path:
    """Writes `path/metrics.json` and returns its path."""
    target = epath.Path(path) / METRICS
    write_json(target, metrics)
    return target


def read_metrics(workdir: epath.PathLike) -> dict[tuple[str, int], dict[str, Any]]:
    """(split, step) -> metrics of all complete evaluations."""
    found = {}
    for path in sorted(epath.Path(workdir).glob(f"{FOLDER}/*/*/{METRICS}")):
        split, step = path.parent.parent.name, path.parent.name
        if not step.isdigit():
            continue
        try:
            found[split, int(step)] = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); delete it and evaluate again") from error
    return found


def best_step(workdir: epath.PathLike, *, among: Collection[int]) -> int | None:
    """The evaluated checkpoint with the highest score, the later of equals; None without any.

    Only the split that the run is configured to evaluate counts: a look at the training split must
    not decide.
    """
    wanted = run_folder.eval_split(workdir)
    scores = [
        (metrics["score"], step)
        for (split, step), metrics in read_metrics(workdir).items()
        if step in among and split == (wanted or split) and metrics.get("score") is not None
    ]
    return max(scores)[1] if scores else None
