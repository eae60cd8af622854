"""The files of a training run's folder, besides checkpoints, logs and evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from step_jax import hosts
from step_jax.errors import InputError
from step_jax.files import write_json, write_text
from step_jax.storage import as_path, make_folder

CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
PARAMETERS = "parameters.txt"
FINISHED = "finished.json"

# What may differ when a run is continued: it changes neither the parameters nor the data.
_FREE_KEYS = (
    "data.records",
    "data.annotations",
    "data.eval_videos",
    "data.threads",
    "data.max_damaged",
    # As the number of devices, the same but for rounding:
    "train.accumulate",
    "model.remat",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.eval_every_steps",
    "train.summary",
    "eval.",
)
# What may differ between the processes of a run: each reads its own disk.
_OWN_KEYS = ("data.records", "data.annotations", "data.threads")
# Keys that are younger than some runs, with what those did.
_YOUNGER_KEYS = {
    "data.modality": "rgb",
    "data.flow_frames": 5,
    "data.ava_version": "",
    "data.max_damaged": 0,
    "data.source_size": [],
    "train.accumulate": 1,
    "model.remat": "none",
    "optimizer.reference_batch_size": 0,
    "train.summary": False,
    "data.streams": 1,
}


def open_for_training(workdir: epath.PathLike, config: Mapping[str, Any]) -> None:
    """Makes the folder and writes the configuration, or checks it against the one there.

    A run without a checkpoint has nothing to continue: its configuration may be corrected.

    Raises:
      InputError: the folder cannot be written, or holds a run with another configuration.
    """
    workdir = as_path(workdir)
    config = json.loads(json.dumps(config))  # tuples become lists, as they come back from disk
    path = workdir / CONFIG
    try:
        make_folder(workdir)
    except OSError as error:
        raise InputError(
            f"--workdir {workdir}: cannot be made: {error.strerror}; choose another folder"
        ) from error
    if path.exists() and any((workdir / CHECKPOINTS).glob("[0-9]*")):
        _check_same(_flat(read_config(workdir)), _flat(config), workdir)
    (workdir / FINISHED).unlink(missing_ok=True)
    write_json(path, config)


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """The configuration of the run in `workdir`."""
    path = as_path(workdir) / CONFIG
    if not path.exists():
        raise InputError(f"{path}: missing; give the --workdir of a training run")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error


def evaluated_part(workdir: epath.PathLike) -> tuple[str, str] | None:
    """The split that the run in `workdir` evaluates, and the pattern of its videos, "" for all.

    None if it left no configuration.
    """
    if not (as_path(workdir) / CONFIG).exists():
        return None
    data = read_config(workdir)["data"]
    return data["eval_split"], data.get("eval_videos", "")  # runs may be older than the pattern


def evaluation_options(workdir: epath.PathLike) -> dict[str, Any]:
    """The keys "eval.*" of the run in `workdir`, flat; empty if it left no configuration."""
    if not (as_path(workdir) / CONFIG).exists():
        return {}
    return _flat({"eval": read_config(workdir).get("eval", {})})


def write_parameters(workdir: epath.PathLike, variables: Any) -> None:
    """Writes the overview of all parameters: path, shape, size."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    rows = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {leaf.shape!s:<24} {leaf.size:>12,}" for name, leaf in rows]
    total = sum(leaf.size for _, leaf in rows)
    lines.append(f"{'total':<{width}}  {'':<24} {total:>12,}")
    path = as_path(workdir) / PARAMETERS
    write_text(path, "\n".join(lines) + "\n")
    print(f"{total:,} parameters, listed in {path}")


def mark_finished(workdir: epath.PathLike, *, step: int) -> None:
    """Says that training has ended, for whoever watches."""
    write_json(as_path(workdir) / FINISHED, {"step": step})


def finished_step(workdir: epath.PathLike) -> int | None:
    """The last step of a finished training; None while it runs or is interrupted."""
    try:
        return json.loads((as_path(workdir) / FINISHED).read_text())["step"]
    except FileNotFoundError:  # or just removed, by a training that goes on
        return None


def checkpoints_until(workdir: epath.PathLike, step: int) -> set[int]:
    """The steps up to that one at which the run is configured to write checkpoints.

    None if it left no configuration.
    """
    if not (as_path(workdir) / CONFIG).exists():
        return set()
    every = read_config(workdir)["train"]["checkpoint_every_steps"]
    return set(range(every, step + 1, every))


def check_processes(config: Mapping[str, Any]) -> None:
    """Raises InputError where another process of the run has another configuration."""
    hosts.check_same("configuration", _flat(config), may_differ=_OWN_KEYS)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _check_same(found: dict[str, Any], wanted: dict[str, Any], workdir: epath.PathLike) -> None:
    found, wanted = _YOUNGER_KEYS | found, _YOUNGER_KEYS | wanted
    different = [
        f"{key} was {found.get(key, 'absent')}, is {wanted.get(key, 'absent')}"
        for key in sorted(found.keys() | wanted.keys())
        if not key.startswith(_FREE_KEYS)
        and (key not in found or key not in wanted or found[key] != wanted[key])
    ]
    if different:
        raise InputError(
            f"{workdir}: holds a run with another configuration ({'; '.join(different)}); "
            "continue it with the same one or choose another --workdir"
        )
