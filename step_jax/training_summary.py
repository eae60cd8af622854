"""What a training run's folder tells of it: curves, results, and the facts in words."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from step_jax import evaluations, run_folder
from step_jax.errors import InputError
from step_jax.storage import as_path
from step_jax.training_console import duration
from step_jax.training_log import ELAPSED, read_log

Curve = tuple[np.ndarray, np.ndarray]  # training steps [N], values [N]
_RECENT = 10  # reports whose median is a run's speed


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """A run so far.

    Attributes:
      name: of its folder.
      log: the reports, as in `train_log.jsonl`.
      scores: training step -> mAP in percent of each step of the detector, None where there is
        none, of the videos that the run is configured to evaluate.
      metric: what that is called.
      best: the checkpoint with the highest score among those evaluated, kept or not.
      config: the configuration, {} if the folder has none.
      parameters: how many, None if the folder does not tell.
    """

    name: str
    log: Sequence[Mapping[str, Any]]
    scores: Mapping[int, Sequence[float | None]]
    metric: str
    best: int | None
    config: Mapping[str, Any]
    parameters: int | None

    def curve(self, key: str, *, part: str | None = None) -> Curve | None:
        """Of one key of the reports, or a part of it; None where no report has it."""
        lines = [line for line in self.log if key in line]
        points = [(line["step"], line[key][part] if part else line[key]) for line in lines]
        return tuple(np.array(points, float).T) if points else None

    def per_step(self, name: str) -> dict[str, Curve]:
        """ "step 1" -> curve of `name_1`, ..., of the detector's steps that have it."""
        keys = sorted(
            {key for line in self.log for key in line if re.fullmatch(rf"{name}_\d+", key)}
        )
        return {f"step {key.rpartition('_')[2]}": self.curve(key) for key in keys}

    def starts(self) -> list[int]:
        """The steps after which the run was continued."""
        return [
            before["step"] for before, line in itertools.pairwise(self.log) if "startup" in line
        ]

    def histograms(self, *, at_end: bool, share: float = 0.1) -> dict[str, np.ndarray]:
        """ "step 1" -> shares [10] of its inputs by overlap, mean of the first or last reports."""
        found = {}
        for name, (_, rows) in self._histogram_rows().items():
            count = max(round(share * len(rows)), 1)
            found[name] = (rows[-count:] if at_end else rows[:count]).mean(axis=0)
        return found

    def _histogram_rows(self) -> dict[str, Curve]:
        lines = [line for line in self.log if "overlap_histogram_1" in line]
        keys = [key for key in (lines[0] if lines else {}) if key.startswith("overlap_histogram_")]
        steps = np.array([line["step"] for line in lines])
        return {
            f"step {key.rpartition('_')[2]}": (steps, np.array([line[key] for line in lines]))
            for key in sorted(keys)
        }


def read_summary(workdir: epath.PathLike) -> TrainingSummary:
    """Reads a run's folder; raises InputError if there is nothing to tell yet."""
    workdir = as_path(workdir)
    log, metrics = read_log(workdir), evaluations.of_run(workdir)
    if not log and not metrics:
        raise InputError(f"{workdir}: has no training log and no evaluation; nothing to draw")
    last = metrics[max(metrics)] if metrics else {}
    scores = {step: [one["mean"] for one in of["steps"]] for step, of in sorted(metrics.items())}
    rated = [(of["score"], step) for step, of in metrics.items() if of.get("score") is not None]
    has_config = (workdir / run_folder.CONFIG).exists()
    return TrainingSummary(
        name=workdir.absolute().name,
        log=log,
        scores=scores,
        metric=str(last.get("metric", "mAP")),
        best=max(rated)[1] if rated else None,
        config=run_folder.read_config(workdir) if has_config else {},
        parameters=_parameters(workdir),
    )


def _parameters(workdir: epath.Path) -> int | None:
    path = workdir / run_folder.PARAMETERS
    match = re.search(r"^total\s+([\d,]+)\s*$", path.read_text(), re.M) if path.exists() else None
    return int(match[1].replace(",", "")) if match else None


# --- facts ----------------------------------------------------------------------------------------


def facts(summary: TrainingSummary) -> list[dict[str, str]]:
    """What a page's head says, in three columns: the model, the training, the result."""
    columns = [_model_facts(summary), _training_facts(summary), _result_facts(summary)]
    return [{name: value for name, value in column.items() if value} for column in columns]


def _model_facts(summary: TrainingSummary) -> dict[str, str]:
    found = {"configuration": config_file(summary.log)}
    if summary.config:
        model, data = summary.config["model"], summary.config["data"]
        frames = model["clip_frames"] * (1 + 2 * np.cumsum(model["extension_plan"]))
        found |= {
            "model": f"{model['backbone']}, {model['head']}, {model['precision']}",
            "input": f"{data.get('modality', 'rgb')}, {data['image_size']} px",
            "frames": " → ".join(map(str, frames)) + f", {model['extension']}",
            "proposals": str(summary.config["proposals"]),
        }
    if summary.parameters is not None:
        found["parameters"] = f"{summary.parameters:,}"
    return found


def _training_facts(summary: TrainingSummary) -> dict[str, str]:
    if not summary.log:
        return {}
    last, starts = summary.log[-1], [line["startup"] for line in summary.log if "startup" in line]
    train = summary.config.get("train", {})
    steps = f"{last['step']:,}" + (f" of {train['steps']:,}" if train else "")
    found = {"training steps": steps}
    if train:
        found["clips"] = f"{last['step'] * train['batch_size']:,}, {train['batch_size']} a step"
    if ELAPSED in last:
        found["time"] = duration(last[ELAPSED])
    if starts:
        dotted = " (dotted lines)" if len(starts) > 1 else ""
        found["starts"] = f"{len(starts)}{dotted}"
        found["start-up"] = f"{starts[-1]['seconds']:.0f} s"
        found["devices"] = f"{starts[-1]['devices']} x {starts[-1]['device']}"
    rates = [line["clips_per_second"] for line in summary.log if "clips_per_second" in line]
    if rates:
        found["speed"] = f"{np.median(rates[-_RECENT:]):.3g} clips/s"
    return found


def _result_facts(summary: TrainingSummary) -> dict[str, str]:
    found = {}
    if summary.log:
        first, last = summary.log[0]["loss"], summary.log[-1]["loss"]
        found["loss"] = f"{first:.3g} → {last:.3g}"
    if summary.scores:
        found["metric"] = summary.metric
        found["last evaluation"] = _score(summary, max(summary.scores))
    if summary.best is not None:
        found["best checkpoint"] = _score(summary, summary.best)
    skipped = sum(line.get("skipped", 0) for line in summary.log)
    if skipped:
        found["skipped"] = f"{skipped:,} examples"
    return found


def _score(summary: TrainingSummary, step: int) -> str:
    value = summary.scores[step][-1]
    return f"step {step:,}: " + ("none" if value is None else f"{value:.1f} %")


def config_file(log: Sequence[Mapping[str, Any]]) -> str:
    """The --config of the command that made the last start; "" if it is not known."""
    commands = [line["startup"].get("command", "") for line in log if "startup" in line]
    words = shlex.split(commands[-1]) if commands else []
    for word, following in itertools.pairwise([*words, ""]):
        name, has_value, value = word.lstrip("-").partition("=")
        if name == "config" and word.startswith("-"):
            return value if has_value else following
    return ""
