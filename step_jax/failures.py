"""Steps that failed, on disk: the batch of a step that is not finite, and the state before it.

One file for each process, WORKDIR/failures/step_NNNNNNNN.npz and, of several processes, `_p1`, ...
beside it: arrays without pickles, `batch/NAME`, `key`, `state/PATH` in the first process's, and
`about`, JSON. Of the state it is the model: what the optimizer remembers has no say in losses and
gradients. `step_jax.replay` makes the step again.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from step_jax import storage
from step_jax.errors import InputError
from step_jax.files import not_written
from step_jax.replacing import replacing
from step_jax.train_state import TrainState
from step_jax.training_log import NonFiniteLossError
from step_jax.tree_paths import by_path

FOLDER = "failures"
VERSION = 1
_KEPT = 2  # the log looks at a step's loss when the next one is on its way

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A step that failed.

    Attributes:
      step: the step, from 1.
      state: `step` and the model's variables before it, by path.
      batch: of all processes, `[B, ...]` each.
      key: data of the run's random key.
      classes: how many the detector knows.
      reason: what was said of the step.
    """

    step: int
    state: Mapping[str, np.ndarray]
    batch: Batch
    key: np.ndarray
    classes: int
    reason: str


class FailureRecorder:
    """Remembers what the last steps were made of, and saves it where one fails.

    Used as a context around the loop; a NonFiniteLossError that leaves it says where the file is.
    """

    def __init__(self, workdir: epath.PathLike, *, key: jax.Array, classes: int):
        self._workdir, self._key, self._classes = workdir, key, classes
        self._batches: dict[int, Batch] = {}
        self._state: TrainState | None = None

    def remember(self, step: int, batch: Batch, state: TrainState) -> None:
        """The batch that step `step` was just started with, and the state that it gives."""
        self._batches[step], self._state = batch, state
        self._batches.pop(step - _KEPT, None)

    def __enter__(self) -> FailureRecorder:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, NonFiniteLossError) and error.step in self._batches:
            raise NonFiniteLossError(f"{error}. {self._save(error)}", step=error.step) from error

    def _save(self, error: NonFiniteLossError) -> str:
        """Saves the step, and tells what came of it."""
        try:
            path = save(
                self._workdir,
                step=error.step,
                state=self._state,
                batch=self._batches[error.step],
                key=self._key,
                classes=self._classes,
                reason=str(error).partition(";")[0],
            )
        except InputError as unsaved:
            return f"Its batch is not saved: {unsaved}"
        return (
            f"Its batch is in {path} ({storage.size(path) / 1e6:.1f} MB; delete it when done); "
            f"train.py --workdir={self._workdir} --replay={path} tells more"
        )


def save(
    workdir: epath.PathLike,
    *,
    step: int,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    classes: int,
    reason: str,
) -> epath.Path:
    """Writes this process's file of a step and returns its path.

    `state` is the one from before the step, which a train step's guard leaves as it was. Raises
    InputError where the file cannot be written, or the state is another one.
    """
    if int(state.step) != step - 1:
        raise InputError(f"the state from before step {step} is gone, the step is {state.step}")
    process, count = jax.process_index(), jax.process_count()
    arrays = {f"batch/{name}": _plain(np.asarray(value)) for name, value in batch.items()}
    arrays["key"] = np.asarray(jax.random.key_data(key))
    if process == 0:
        given = {"step": state.step, **by_path(state.variables)}
        arrays |= {f"state/{path}": np.asarray(leaf) for path, leaf in given.items()}
    about = {
        "version": VERSION,
        "step": step,
        "classes": classes,
        "reason": reason,
        "processes": count,
        "dtypes": {name: str(array.dtype) for name, array in arrays.items()},
    }
    path = epath.Path(storage.as_path(workdir)) / FOLDER / _name(step, process)
    try:
        storage.make_folder(path.parent)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
    except OSError as error:
        raise not_written(path, error) from error
    return path


def load(path: epath.PathLike) -> Failure:
    """Reads a step of all processes, from the first one's file.

    Raises InputError for what is no such file, or where another process's is missing.
    """
    path = epath.Path(storage.as_path(path))
    about, arrays = _read(path)
    if "state/step" not in arrays:
        raise InputError(f"{path}: holds no state; give the first process's file, without _p")
    shares = [_part(arrays, "batch/")]
    for process in range(1, about["processes"]):
        other, more = _read(path.with_name(_name(about["step"], process)))
        if other["step"] != about["step"]:
            raise InputError(f"{path}: is of step {about['step']}, {process} of {other['step']}")
        shares.append(_part(more, "batch/"))
    return Failure(
        step=about["step"],
        state=_part(arrays, "state/"),
        batch={name: np.concatenate([share[name] for share in shares]) for name in shares[0]},
        key=arrays["key"],
        classes=about["classes"],
        reason=about["reason"],
    )


def _plain(array: np.ndarray) -> np.ndarray:
    """Texts as such: as objects they would be pickled."""
    return array.astype(str) if array.dtype == object else array


def _name(step: int, process: int) -> str:
    return f"step_{step:08d}{f'_p{process}' if process else ''}.npz"


def _read(path: epath.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with storage.local_copy(path) as local, np.load(local, allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop("about")))
        version = about["version"]
        # numpy does not know bfloat16 and its like, and keeps their bytes.
        arrays = {name: array.view(about["dtypes"][name]) for name, array in arrays.items()}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = re.sub(r"\s+", " ", str(error))[:100]
        raise InputError(
            f"{path}: not a failed step ({reason}); give a file of WORKDIR/{FOLDER}"
        ) from error
    if version != VERSION:
        raise InputError(f"{path}: format version {version}, this code reads {VERSION}")
    return about, arrays


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: each for name, each in arrays.items() if name.startswith(prefix)}
