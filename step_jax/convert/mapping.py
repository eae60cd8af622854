"""A table of correspondences between foreign state dicts and our parameters, and its use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from step_jax.convert.layouts import CONV3D, SAME, Layout
from step_jax.errors import InputError
from step_jax.transfer import DifferentKeysError, compare

COUNTER = "num_batches_tracked"


class Entry(NamedTuple):
    """One of their arrays and where it belongs.

    Attributes:
      key: theirs.
      path: ours, without collection; None for counters of batches, which nothing here uses.
      layout: how the two lie.
    """

    key: str
    path: str | None
    layout: Layout


def unit_entries(key: str, path: str) -> list[Entry]:
    """A 3-D convolution with batch normalisation."""
    return [
        Entry(f"{key}.conv3d.weight", f"{path}/kernel", CONV3D),
        Entry(f"{key}.batch3d.weight", f"{path}/scale", SAME),
        Entry(f"{key}.batch3d.bias", f"{path}/bias", SAME),
        Entry(f"{key}.batch3d.running_mean", f"{path}/mean", SAME),
        Entry(f"{key}.batch3d.running_var", f"{path}/var", SAME),
        Entry(f"{key}.batch3d.{COUNTER}", None, SAME),
    ]


_BRANCHES = {
    "branch_0": "branch_0",
    "branch_1.0": "branch_1_reduce",
    "branch_1.1": "branch_1",
    "branch_2.0": "branch_2_reduce",
    "branch_2.1": "branch_2",
    "branch_3.1": "branch_3",
}


def mixed_entries(key: str, path: str) -> list[Entry]:
    """An Inception block of six such units."""
    return [
        entry
        for theirs, ours in _BRANCHES.items()
        for entry in unit_entries(f"{key}.{theirs}", f"{path}/{ours}")
    ]


def biased_entries(key: str, path: str, layout: Layout) -> list[Entry]:
    """A layer of weights and biases."""
    return [
        Entry(f"{key}.weight", f"{path}/kernel", layout),
        Entry(f"{key}.bias", f"{path}/bias", SAME),
    ]


def check(
    where: str,
    entries: Sequence[Entry],
    found: Mapping[str, np.ndarray],
    shapes: Mapping[str, Any],
    *,
    unused: Callable[[str], bool] = lambda key: False,
) -> None:
    """Raises where what was found is not what the entries need, or is not finite.

    Args:
      where: the file.
      entries: the table.
      found: key -> array.
      shapes: path -> anything with a shape, ours.
      unused: whether a surplus key is meant to be there.

    Raises:
      DifferentKeysError: a key is missing, surplus or misshapen. Counters may be missing.
      InputError: an array has values that are not finite.
    """
    wanted = {entry.key: _their_shape(entry, shapes) for entry in entries if entry.path}
    counters = {entry.key for entry in entries if not entry.path}
    relevant = {
        key: array.shape
        for key, array in found.items()
        if key in wanted or not (key in counters or unused(key))
    }
    report = compare(wanted, relevant)
    if not report.complete:
        raise DifferentKeysError(
            f"{where}: keys of another architecture: of {len(wanted)} expected, {report.summary()}",
            report,
        )
    _check_finite(where, {key: found[key] for key in wanted})


def to_ours(entries: Iterable[Entry], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """path -> array; one of theirs may go to several of ours."""
    return {
        entry.path: np.ascontiguousarray(entry.layout.ours(found[entry.key]))
        for entry in entries
        if entry.path
    }


def to_theirs(entries: Iterable[Entry], arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """key -> float32 array, in the table's order; counters as int64 0."""
    return {
        entry.key: np.ascontiguousarray(entry.layout.theirs(np.asarray(arrays[entry.path])))
        if entry.path
        else np.zeros((), np.int64)
        for entry in entries
    }


def _their_shape(entry: Entry, shapes: Mapping[str, Any]) -> tuple[int, ...]:
    ours = np.broadcast_to(np.float32(0), shapes[entry.path].shape)
    return entry.layout.theirs(ours).shape


def _check_finite(where: str, arrays: Mapping[str, np.ndarray]) -> None:
    broken = {key: int(np.sum(~np.isfinite(array))) for key, array in arrays.items()}
    broken = {key: count for key, count in broken.items() if count}
    if broken:
        key, count = next(iter(broken.items()))
        more = f", and {len(broken) - 1} more arrays have some" if len(broken) > 1 else ""
        raise InputError(
            f"{where}: {key} has {count} values of {arrays[key].size} that are NaN or infinite"
            f"{more}; take a checkpoint from before the training broke"
        )
