"""Checkpoints on disk: the model, the rest of the training state, and what built them.

Each checkpoint has three items, so that evaluation reads the model alone:
  model        the detector's variables, {"params": ..., other collections}
  training     {"step", "opt_state"}
  description  JSON: whatever is needed to build the detector again

Which checkpoint is best is read from the evaluations' results (`step_jax.evaluations`), whoever
wrote them: the training run itself or an evaluation job beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from step_jax import evaluations
from step_jax.errors import InputError
from step_jax.train_state import TrainState

PyTree = Any
FOLDER = "checkpoints"
VERSION = 1
_MOST_KEYS_SHOWN = 8


class Checkpoints:
    """The checkpoints of one working directory.

    Args:
      workdir: the run's folder; checkpoints lie in `workdir/checkpoints/<step>`.
      keep: how many of the latest to keep; the best evaluated one is kept beside them.
      read_only: for evaluation and detection; nothing is created or deleted.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int = 2, read_only: bool = False):
        self.workdir = epath.Path(workdir)
        folder = self.workdir / FOLDER
        if read_only and not folder.exists():
            raise InputError(
                f"{folder}: no checkpoints there; give the --workdir of a training run"
            )
        logging.getLogger("absl").setLevel(logging.WARNING)
        keep_policy = policies.AnyPreservationPolicy(
            [policies.LatestN(keep), _BestEvaluated(self.workdir)]
        )
        self._manager = ocp.CheckpointManager(
            folder,
            item_names=("model", "training", "description"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep_policy,
                read_only=read_only,
                enable_async_checkpointing=not read_only,
                cleanup_tmp_directories=not read_only,
            ),
        )

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
            raise InputError(f"{self.workdir / FOLDER}: no complete checkpoint there yet")
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
                f"in {self.workdir / FOLDER}"
            )
        return int(which)

    def save(self, state: TrainState, description: Mapping[str, Any]) -> None:
        """Starts writing `state`; returns when its arrays are copied, before they are on disk."""
        step = int(state.step)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(state.variables),
            training=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            description=ocp.args.JsonSave({"version": VERSION, **description}),
        )
        if not self._manager.save(step, args=items):
            raise InputError(
                f"{self.workdir / FOLDER}: checkpoint {step} could not be written; one of that or "
                "of a later step is there already"
            )

    def describe(self, step: int) -> dict[str, Any]:
        """The description that was saved with a checkpoint."""
        description = self._restore(step, description=ocp.args.JsonRestore())["description"]
        if description.get("version") != VERSION:
            raise InputError(
                f"{self._where(step)}: format version {description.get('version')}, this code "
                f"reads {VERSION}; take the code that wrote it, or train again"
            )
        return description

    def restore_variables(self, step: int, like: PyTree) -> PyTree:
        """The model alone, with the structure, shapes and dtypes of `like`."""
        self._check(step, "model", like)
        template = _abstract(like)
        return self._restore(step, model=ocp.args.StandardRestore(template))["model"]

    def restore_state(self, step: int, like: TrainState) -> TrainState:
        """The whole training state, exactly as it was saved."""
        self._check(step, "model", like.variables)
        training = {"step": like.step, "opt_state": like.opt_state}
        self._check(step, "training", training)
        items = self._restore(
            step,
            model=ocp.args.StandardRestore(_abstract(like.variables)),
            training=ocp.args.StandardRestore(_abstract(training)),
        )
        variables = dict(items["model"])
        return TrainState(
            step=items["training"]["step"],
            params=variables.pop("params"),
            model_state=variables,
            opt_state=items["training"]["opt_state"],
        )

    def wait(self) -> None:
        """Until everything saved is on disk; errors of the writing thread are raised here."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def _restore(self, step: int, **items: Any) -> Any:
        with self._readable(step):
            return self._manager.restore(step, args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Turns whatever a damaged checkpoint provokes into one line that names it."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{self._where(step)} is damaged ({type(error).__name__}: {str(error)[:200]}); "
                "delete that folder to go on from the checkpoint before it"
            ) from error

    def _check(self, step: int, item: str, like: PyTree) -> None:
        """Compares keys, shapes and dtypes first: restoring would cast and drop silently."""
        with self._readable(step):
            found = _signature(self._manager.item_metadata(step)[item])
        expected = _signature(like)
        if found != expected:
            raise InputError(f"{self._where(step)}, {item}: {_difference(found, expected)}")

    def _where(self, step: int) -> str:
        return f"checkpoint {self.workdir / FOLDER / str(step)}"


@dataclasses.dataclass
class _BestEvaluated(policies.PreservationPolicy):
    """Preserves the checkpoint with the best evaluation."""

    workdir: epath.Path

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = evaluations.best_step(self.workdir, among=steps)
        return [step == best for step in steps]


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _signature(tree: PyTree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> (shape, dtype); paths alike for live trees and for what orbax says of stored ones."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(_key_name(key) for key in path): (tuple(leaf.shape), str(np.dtype(leaf.dtype)))
        for path, leaf in leaves
    }


def _key_name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))


def _difference(found: dict, expected: dict) -> str:
    """What a checkpoint has and what the configuration needs, keys and shapes."""
    parts = []
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
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
