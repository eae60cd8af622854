"""Our detectors in the released checkpoints' format."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from step_jax import inference
from step_jax.checkpoint import Checkpoints
from step_jax.convert import mapping, released_config
from step_jax.convert.released_keys import GLOBAL_FEATURES, Architecture
from step_jax.convert.torch_files import write_torch
from step_jax.errors import InputError
from step_jax.models.step import StepPlan
from step_jax.transfer import by_path

# The layers that the released format has, by the keys of `model`.
_MODEL = {
    "backbone": "i3d",
    "head": "residual",
    "classification": "sigmoid",
    "regression": "agnostic",
}
_BACKBONE_OPTIONS = {"channels": 3}
_HEAD_OPTIONS = {
    "trunk": "mixed",
    "global_features": GLOBAL_FEATURES,
    "local_features": 1024,
    "local_bottleneck": 256,
    "local_blocks": 3,
}
_NEIGHBOURS = ("box_before", "box_after")


def export_run(
    workdir: str | pathlib.Path, output: str | pathlib.Path, *, checkpoint: str = "latest"
) -> int:
    """Writes a checkpoint of a run as a released one (.pth); returns its step.

    Raises:
      InputError: the run or the file cannot be read or written, the file is there already, or the
        released format has no such detector.
    """
    output = pathlib.Path(output)
    if output.exists():
        raise InputError(f"--output {output}: is there already; choose another name")
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        step = checkpoints.find(checkpoint)
        description = checkpoints.describe(step)
        check_layers(description["model"])
        predictor = inference.restore_predictor(checkpoints, step)
    finally:
        checkpoints.close()
    write_torch(output, to_released(description, predictor.variables, step=step))
    return step


def to_released(description: Mapping[str, Any], variables: Any, *, step: int) -> dict[str, Any]:
    """What the file holds, arrays as numpy's; the opposite of `released.convert_released`.

    Raises InputError for a detector that the released format has not.
    """
    check_layers(description["model"])
    chunks = _chunks(description["model"])
    arrays = by_path(variables)
    architecture = Architecture(
        steps=len(chunks),
        context="scene_context/mixed_5b/branch_0/kernel" in arrays,
        local="heads_0/local_squeeze/kernel" in arrays,
    )
    if architecture.local:
        arrays |= _neighbours(arrays, architecture.steps)
    theirs = mapping.to_theirs(architecture.entries(), arrays)

    told = description.get("source", {})
    told = told if told.get("format") == "released" else {}
    for key, value in told.get("counters", {}).items():
        theirs[key] = np.array(value, np.int64)
    return {
        "epochs": told.get("epochs", 0),
        "iteration": step,
        **_by_net(theirs),
        "val_mAP": told.get("val_mAP"),
        "cfg": _options(description, told, chunks),
    }


def check_layers(model: Mapping[str, Any]) -> None:
    """Raises InputError where a model has layers that the released format has not."""
    wanted = {"": _MODEL, "head_options": _HEAD_OPTIONS, "backbone_options": _BACKBONE_OPTIONS}
    for section, values in wanted.items():
        found = model[section] if section else model
        for name, value in values.items():
            if name in found and found[name] != value:
                key = ".".join(filter(None, ("model", section, name)))
                raise InputError(
                    f"{key} {found[name]!r} has no counterpart in the released format, whose "
                    f"detectors have {value!r}; nothing was exported"
                )


def _options(
    description: Mapping[str, Any], told: Mapping[str, Any], chunks: Sequence[int]
) -> argparse.Namespace:
    """`cfg`; what it said of other things than the detector when it was read, it says again.

    Classes of our own get the numbers 1, 2, ..., as those of other data sets are not known here.
    """
    ids = told.get("label_ids") or range(1, len(description["classes"]) + 1)
    options = released_config.options(description, label_ids=list(ids), chunks=chunks)
    return argparse.Namespace(**told.get("cfg", {}) | options)


def _chunks(model: Mapping[str, Any]) -> list[int]:
    """Length of each step's tubes in target clips."""
    plan = StepPlan(1, tuple(model["extension_plan"]), model["extension"])
    return [plan.length(step) for step in range(plan.num_steps)]


def _neighbours(arrays: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """Zeros for the regressors of steps that do not anticipate, where they were not carried."""
    wanted = {
        f"heads_{head}/{name}/{leaf}": np.zeros_like(arrays[f"heads_{head}/box/{leaf}"])
        for head in range(steps)
        for name in _NEIGHBOURS
        for leaf in ("kernel", "bias")
    }
    return {path: zeros for path, zeros in wanted.items() if path not in arrays}


def _by_net(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    nets: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        net, _, key = name.partition("/")
        nets.setdefault(net, {})[key] = array
    return nets
