"""Checkpoints on disk: the model, the rest of the training state, and what built them.

Each checkpoint has three items, so that evaluation reads the model alone:
  model        the detector's variables, {"params": ..., other collections}
  training     {"step", "opt_state"}
  description  JSON: whatever is needed to build the detector again, and checksums of everything

What is read is compared with the checksums, because a flipped byte would come back as another
number without a word. Checkpoints of before there were any are read as they are.

Which checkpoint is best is read from the evaluations' results (`step_jax.evaluations`), whoever
wrote them: the training run itself or an evaluation job beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import sys
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from step_jax import evaluations, parallel, run_folder
from step_jax.checksums import Fingerprint, json_checksum
from step_jax.errors import InputError
from step_jax.remote_checkpoints import RemoteManager
from step_jax.storage import as_path, is_remote, make_folder, move_folder, remove_tree, stamp
from step_jax.train_state import TrainState
from step_jax.tree_paths import by_path

PyTree = Any
FOLDER = run_folder.CHECKPOINTS
VERSION = 1
DAMAGED = "damaged"
_DELETED = "deleted"
_CHECKSUMS = "checksums"
_MOST_KEYS_SHOWN = 8
_REMOVAL_TRIES = 20
# How libraries tell what another try may overcome.
_PASSING = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


class DamagedCheckpointError(InputError):
    """A checkpoint is not, or not completely, what was written; `what` says which and how."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(f"{what}; ask for another one (training goes on from the one before it)")


class Checkpoints:
    """The checkpoints of one working directory.

    Args:
      workdir: the run's folder; checkpoints lie in `workdir/checkpoints/<step>`.
      keep: how many of the latest to keep; the best evaluated one is kept beside them.
      read_only: for evaluation and detection; nothing is created or deleted.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int = 2, read_only: bool = False):
        self.workdir = epath.Path(as_path(workdir))
        self._folder = _absolute(self.workdir / FOLDER)
        if read_only and not self._folder.exists():
            raise InputError(
                f"{self._folder}: no checkpoints there; give the --workdir of a training run"
            )
        self._read_only, self._keep = read_only, keep
        if not read_only:
            make_folder(self._folder)
        if is_remote(self._folder):
            self._manager = RemoteManager(
                self._folder,
                open_manager=lambda folder: _open_manager(folder, keep=policies.LatestN(1)),
                kept=self._kept,
                read_only=read_only,
            )
        else:
            keep_policy = policies.AnyPreservationPolicy(
                [policies.LatestN(keep), _BestEvaluated(self.workdir)]
            )
            self._manager = _open_manager(self._folder, keep=keep_policy, read_only=read_only)
        self._remove_deleted()

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending; looks at the disk again."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        return max(self.steps(), default=None)

    def find(self, which: str) -> int:
        """The step of checkpoint "latest", "best" or a number.

        "best" is the one whose evaluation has the highest score; InputError if none was evaluated.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"{self._folder}: no complete checkpoint there yet")
        if which == "latest":
            return steps[-1]
        if which == "best":
            best = evaluations.best_step(self.workdir, among=steps)
            if best is None:
                raise InputError(
                    f"{self.workdir}: no checkpoint of {steps} was evaluated, so none is the best; "
                    "run evaluate.py first, or ask for 'latest' or a step"
                )
            return best
        if not which.isdigit() or int(which) not in steps:
            raise InputError(
                f"checkpoint {which!r}: expected 'latest', 'best' or one of the steps {steps} "
                f"in {self._folder}"
            )
        return int(which)

    def written(self, step: int) -> Hashable | None:
        """What tells a checkpoint from one that was written in its place; None if there is none."""
        return self._manager.written(step)

    def save(self, state: TrainState, description: Mapping[str, Any]) -> None:
        """Starts writing `state`; returns when its arrays are copied, before they are on disk.

        Raises InputError where the state is not finite, a checkpoint of its step is there already,
        or the disk does not take it.
        """
        step = int(state.step)
        if jax.process_count() > 1:
            state = jax.device_get(state)  # orbax would wait for the others to write their part
        trees = _trees(state)
        arrays = {path: np.asarray(leaf) for path, leaf in by_path(trees).items()}
        _check_finite(arrays, step)
        described = _with_checksums({"version": VERSION, **description}, arrays)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(trees["model"]),
            training=ocp.args.StandardSave(trees["training"]),
            description=ocp.args.JsonSave(described),
        )
        with self._writing():
            saved = self._manager.save(step, args=items)
        if not saved:
            raise InputError(
                f"{self._where(step)} could not be written: one of that or of a later step is "
                "there already; choose another --workdir"
            )

    def describe(self, step: int) -> dict[str, Any]:
        """The description that was saved with a checkpoint."""
        return self._describe(step)[0]

    def restore_variables(self, step: int, like: PyTree) -> PyTree:
        """The model alone, with the structure, shapes and dtypes of `like`."""
        return self._restore_trees(step, {"model": like})["model"]

    def restore_state(self, step: int, like: TrainState) -> TrainState:
        """The whole training state, exactly as it was saved."""
        trees = self._restore_trees(step, _trees(like))
        variables, training = dict(trees["model"]), trees["training"]
        if int(training["step"]) != step:
            raise self._damaged(step, f"it holds step {int(training['step'])}")
        return TrainState(
            step=training["step"],
            params=variables.pop("params"),
            model_state=variables,
            opt_state=training["opt_state"],
        )

    def restore_latest(self, like: TrainState) -> TrainState:
        """The state of the latest checkpoint that is whole; those after it are set aside.

        They are moved to `checkpoints/damaged`, where nothing looks for checkpoints, and it is said
        what is wrong with them. Raises InputError, and moves nothing, where none is whole.
        """
        damaged: dict[int, DamagedCheckpointError] = {}
        for step in reversed(self.steps()):
            try:
                state = self.restore_state(step, like)
            except DamagedCheckpointError as error:
                damaged[step] = error
                continue
            for damaged_step, error in damaged.items():
                print(f"{error.what}: moved to {self._set_aside(damaged_step)}", flush=True)
            return state
        reasons = "; ".join(error.what for error in damaged.values())
        raise InputError(
            f"{self._folder}: no checkpoint can be used, nothing was changed there: {reasons}; "
            "put one back from a copy, or choose another --workdir to begin again"
        )

    def wait(self) -> None:
        """Until everything saved is on disk. Raises InputError where the disk did not take it."""
        with self._writing():
            self._manager.wait_until_finished()
        self._remove_deleted()

    def close(self) -> None:
        self._manager.close()

    def _kept(self, steps: Sequence[int]) -> set[int]:
        """Of an object store's checkpoints, in ascending order, those that are not removed."""
        return {*steps[-self._keep :], evaluations.best_step(self.workdir, among=steps)}

    def _remove_deleted(self) -> None:
        if not self._read_only and not is_remote(self._folder):
            remove_tree(self._folder / _DELETED)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever the writing threads raise into one line, and removes what they left."""
        try:
            with _silent_threads():
                yield
        except Exception as error:
            self._remove_partial()
            # The operating system's reason is the last part of what TensorStore says.
            reason = (
                getattr(error, "strerror", None)
                or str(error).rpartition(": ")[2].partition(" [")[0]
            )
            raise InputError(
                f"{self._folder}: a checkpoint could not be written ({reason}); make room there "
                "and run the same command again: it continues from the checkpoint before"
            ) from error

    def _remove_partial(self) -> None:
        """Removes what a failed write left, until the other writing threads have given up too."""
        for _ in range(_REMOVAL_TRIES):
            partial = list(self._folder.glob(f"*{ocp.path.step.TMP_DIR_SUFFIX}*"))
            if not partial:
                return
            for path in partial:
                remove_tree(path)
            time.sleep(0.1)

    def _set_aside(self, step: int) -> epath.Path:
        """Moves a checkpoint out of the way and returns where it is now."""
        folder = self._folder / DAMAGED
        make_folder(folder)
        number = 1
        while (target := folder / (f"{step}_{number}" if number > 1 else str(step))).exists():
            number += 1
        self._manager.move(step, target)
        return target

    def _describe(self, step: int) -> tuple[dict[str, Any], dict[str, Fingerprint] | None]:
        """The description, and the arrays' fingerprints; None where the checkpoint has none."""
        description = self._restore(step, description=ocp.args.JsonRestore())["description"]
        checksums = description.pop(_CHECKSUMS, None)
        if checksums is not None:
            with self._readable(step):
                arrays = checksums["arrays"]
                if checksums["description"] != json_checksum([description, arrays]):
                    raise self._damaged(step, "its description is not what was written")
                arrays = {path: Fingerprint.from_json(value) for path, value in arrays.items()}
        if description.get("version") != VERSION:
            raise InputError(
                f"{self._where(step)}: format version {description.get('version')}, this code "
                f"reads {VERSION}; take the code that wrote it, or train again"
            )
        return description, arrays if checksums is not None else None

    def _restore_trees(self, step: int, like: dict[str, PyTree]) -> dict[str, PyTree]:
        """Items of arrays as they were saved, with the structure of `like`."""
        _, recorded = self._describe(step)
        for item, tree in like.items():
            self._check(step, item, tree, recorded)
        templates = {item: ocp.args.StandardRestore(_abstract(tree)) for item, tree in like.items()}
        found = self._restore(step, **templates)
        trees = {item: found[item] for item in like}
        if recorded is not None:
            with self._readable(step):
                self._check_arrays(step, by_path(trees), recorded)
        return trees

    def _check_arrays(
        self, step: int, arrays: Mapping[str, Any], recorded: Mapping[str, Fingerprint]
    ) -> None:
        wrong = [path for path, array in arrays.items() if Fingerprint.of(array) != recorded[path]]
        if wrong:
            count = f"{len(wrong)} of {len(arrays)} arrays"
            raise self._damaged(step, f"{count} are not what was written: {_some(wrong)}")

    def _restore(self, step: int, **items: Any) -> Any:
        with self._readable(step):
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Turns whatever a damaged checkpoint provokes into one line that names it."""
        try:
            with _silent_threads():
                yield
        except InputError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            if _may_pass(error):
                raise InputError(f"{self._where(step)} cannot be read now ({reason})") from error
            raise self._damaged(step, reason) from error

    def _damaged(self, step: int, reason: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"{self._where(step)} is damaged ({reason})")

    def _check(
        self, step: int, item: str, like: PyTree, recorded: Mapping[str, Fingerprint] | None
    ) -> None:
        """Compares keys, shapes and dtypes first: restoring would cast and drop silently."""
        with self._readable(step):
            found = _signature(self._manager.item_metadata(step)[item])
        if recorded is not None:
            own = {path: one for path, one in recorded.items() if path.startswith(f"{item}/")}
            written = {path: (one.shape, one.dtype) for path, one in own.items()}
            if {f"{item}/{path}": one for path, one in found.items()} != written:
                raise self._damaged(step, f"{item}'s list of arrays is not what was written")
        expected = _signature(like)
        if found != expected:
            raise InputError(f"{self._where(step)}, {item}: {_difference(found, expected)}")

    def _where(self, step: int) -> str:
        return f"checkpoint {self._folder / str(step)}"


class _Manager(ocp.CheckpointManager):
    """Orbax's, of a folder on a disk."""

    def written(self, step: int) -> Hashable | None:
        return stamp(self.directory / str(step))

    def move(self, step: int, target: epath.Path) -> None:
        move_folder(self.directory / str(step), target)
        self.reload()


def _open_manager(
    folder: epath.Path, *, keep: policies.PreservationPolicy, read_only: bool = False
) -> _Manager:
    alone = _of_one_process()
    return _Manager(
        folder,
        # With handlers rather than names, or a fresh manager cannot tell what an item holds.
        item_handlers={
            "model": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            "training": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            "description": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        },
        options=ocp.CheckpointManagerOptions(
            create=False,
            multiprocessing_options=alone,
            preservation_policy=keep,
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            cleanup_tmp_directories=not read_only,
            # Renamed, then removed: a reader finds all of a checkpoint or nothing.
            todelete_subdir=None if read_only else _DELETED,
        ),
    )


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Keeps TensorStore's threads from printing what is raised here, too.

    They stay silent after an error, because they go on for a while.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda error: None
    yield
    sys.unraisablehook = hook


@dataclasses.dataclass
class _BestEvaluated(policies.PreservationPolicy):
    """Preserves the checkpoint with the best evaluation."""

    workdir: epath.Path

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = evaluations.best_step(self.workdir, among=steps)
        return [step == best for step in steps]


def _trees(state: TrainState) -> dict[str, PyTree]:
    """A state as the items that hold it."""
    training = {"step": state.step, "opt_state": state.opt_state}
    return {"model": state.variables, "training": training}


def _with_checksums(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    fingerprints = {path: Fingerprint.of(array) for path, array in arrays.items()}
    own = json_checksum([description, fingerprints])
    return {**description, _CHECKSUMS: {"description": own, "arrays": fingerprints}}


def _check_finite(arrays: Mapping[str, np.ndarray], step: int) -> None:
    """A gradient may overflow after a loss that is finite."""
    for path, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all():
            raise InputError(
                f"step {step}: {path.partition('/')[2]} is not finite any more; nothing of "
                "it is saved, the checkpoints before it are kept. Lower optimizer.learning_rate or "
                "set optimizer.max_gradient_norm"
            )


def _may_pass(error: Exception) -> bool:
    """True for errors that say nothing about the files: no permission, no memory, no connection."""
    if isinstance(error, OSError):
        missing = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
        return not isinstance(error, missing) and error.errno not in (None, errno.EIO)
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _PASSING)


def _of_one_process() -> ocp.options.MultiprocessingOptions:
    """Of several processes the first alone reads and writes checkpoints; orbax asks no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="writer"
    )


def _absolute(path: epath.Path) -> epath.Path:
    """Orbax takes absolute paths only; those of object stores (gs://...) are."""
    return path if is_remote(path) else path.resolve()


def _abstract(tree: PyTree) -> PyTree:
    """Shapes and dtypes, on this process's devices: the ones that saved it may be others."""
    everywhere = parallel.replicated_here()
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree
    )


def _signature(tree: PyTree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> (shape, dtype); paths alike for live trees and for what orbax says of stored ones."""
    return {
        path: (tuple(leaf.shape), str(np.dtype(leaf.dtype))) for path, leaf in by_path(tree).items()
    }


def _difference(found: dict, expected: dict) -> str:
    """What a checkpoint has and what the configuration needs, keys and shapes."""
    parts = []
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    if missing:
        parts.append(f"missing {_some(missing)}")
    if surplus:
        parts.append(f"surplus {_some(surplus)}")
    changed = [key for key in sorted(found.keys() & expected.keys()) if found[key] != expected[key]]
    if changed:
        shown = [f"{key} {found[key]} instead of {expected[key]}" for key in changed]
        parts.append(f"different {_some(shown)}")
    return (
        f"another architecture than the configuration's ({len(found)} keys found, {len(expected)} "
        f"expected): {'; '.join(parts)}; use the configuration that it was trained with"
    )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_KEYS_SHOWN
    return ", ".join(names[:_MOST_KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")
