"""A failed step once more: which of its losses and gradients are not finite, and since where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import parallel, source_clips
from step_jax.errors import InputError
from step_jax.failures import Failure
from step_jax.nonfinite import Origin, find_origin
from step_jax.parallel import DATA_AXIS
from step_jax.train_state import TrainState
from step_jax.tree_paths import by_path

PyTree = Any
_TARGETS = ("boxes", "box_mask", "labels", "tube_mask", "example_mask")
_FOR_THE_MODEL = ("clips", *source_clips.KEYS, *_TARGETS)
_MOST_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a step gave this time.

    Attributes:
      losses: values that are not finite, by name (`classification_2`, of step 2).
      gradients: group of parameters -> (arrays that are not finite, all of its arrays).
      videos: of the batch's clips, where they are known.
      origin: where the first of it comes from; None where everything is finite.
    """

    losses: Mapping[str, float]
    gradients: Mapping[str, tuple[list[str], int]]
    videos: tuple[str, ...]
    origin: Origin | None

    @property
    def is_reproduced(self) -> bool:
        return bool(self.losses or self.gradients)

    def lines(self) -> list[str]:
        """The same as text; empty where everything is finite."""
        lines = []
        if self.losses:
            told = ", ".join(f"{name} {value}" for name, value in self.losses.items())
            lines.append(f"losses that are not finite: {told}")
        for group, (bad, total) in self.gradients.items():
            names = "" if len(bad) == total else f": {_some(bad)}"
            lines.append(f"gradients that are not finite: {group}, {len(bad)} of {total}{names}")
        if lines and self.videos:
            lines.append(f"videos: {_some(list(self.videos), most=len(self.videos))}")
        if self.origin is not None:
            lines.append(f"first: {self.origin}")
        return lines


def replay(
    failure: Failure,
    *,
    variables: PyTree,
    gradient_of: Callable[[TrainState, PyTree, jax.Array], tuple[PyTree, PyTree]],
) -> Findings:
    """Makes a step again, as far as its gradients.

    Args:
      failure: the step.
      variables: shapes and dtypes of the detector's variables.
      gradient_of: `(state, batch, key) -> (gradients, metrics)` of a device's share, as
        `train_step.share_of_gradients`.

    Raises InputError where the step is of another model, or its batch does not divide over the
    devices.
    """
    variables = _filled(variables, failure.state)
    batch = {name: failure.batch[name] for name in _FOR_THE_MODEL if name in failure.batch}
    parallel.check_batch_size(len(batch["boxes"]))
    key = jax.random.wrap_key_data(jnp.asarray(failure.key))
    key = jax.random.fold_in(key, failure.step - 1)

    def step(variables: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        model_state = {name: value for name, value in variables.items() if name != "params"}
        step = jnp.int32(failure.step - 1)
        state = TrainState(step, variables["params"], model_state, opt_state=())
        return parallel.sum_over_devices(gradient_of(state, batch, key))

    split = parallel.split_batch(batch)
    gradients, metrics = parallel.data_parallel(step)(variables, split)
    losses, bad = _not_finite_losses(metrics), _not_finite_groups(gradients)
    videos = tuple(map(str, np.unique(failure.batch["video"]))) if "video" in failure.batch else ()
    origin = _origin(step, variables, batch) if losses or bad else None
    return Findings(losses, bad, videos, origin)


def _filled(shapes: PyTree, state: Mapping[str, np.ndarray]) -> PyTree:
    """Variables of those shapes with the values of a saved state."""
    found = {path: array for path, array in state.items() if path != "step"}
    expected = by_path(shapes)
    alike = found.keys() == expected.keys() and all(
        (found[path].shape, found[path].dtype) == (leaf.shape, leaf.dtype)
        for path, leaf in expected.items()
    )
    if not alike:
        different = sorted(found.keys() ^ expected.keys()) or ["shapes alone"]
        raise InputError(
            f"--replay: the step is of another model than the configuration's ({_some(different)} "
            "different); give the --workdir of its run"
        )
    filled = [jnp.asarray(found[path]) for path in expected]
    return jax.tree.unflatten(jax.tree.structure(shapes), filled)


def _not_finite_losses(metrics: Mapping[str, Any]) -> dict[str, float]:
    sums = {name: np.asarray(pair[0]) for name, pair in sorted(metrics.items())}
    return {
        name: float(value.sum()) for name, value in sums.items() if not np.isfinite(value).all()
    }


def _not_finite_groups(gradients: PyTree) -> dict[str, tuple[list[str], int]]:
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for path, leaf in by_path(gradients).items():
        group, _, name = path.partition("/")
        bad, all_names = groups.setdefault(group, ([], []))
        all_names.append(name)
        if not np.isfinite(np.asarray(leaf).astype(np.float32)).all():
            bad.append(name)
    return {group: (bad, len(names)) for group, (bad, names) in groups.items() if bad}


def _origin(step: Callable, variables: PyTree, batch: PyTree) -> Origin | None:
    """On one device: the values that come from summing over several do not matter here."""
    mapped = jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name=DATA_AXIS)

    def outputs(variables: PyTree, batch: PyTree) -> tuple[Any, PyTree]:
        gradients, metrics = mapped(variables, jax.tree.map(lambda leaf: leaf[None], batch))
        return metrics.pop("loss")[0], gradients  # what a step is refused for

    return find_origin(outputs, variables, batch)


def _some(names: list[str], most: int = _MOST_SHOWN) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
