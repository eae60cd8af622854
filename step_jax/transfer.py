"""Putting arrays into a detector's variables by their paths.

A path is what follows the collection, "backbone/conv_1a/kernel": whether a parameter is trained or
lies among the frozen ones does not change where its values come from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from step_jax.errors import InputError

PyTree = Any
_MOST_NAMES_SHOWN = 3
_HEAD = re.compile(r"heads_\d+/")


@dataclasses.dataclass(frozen=True)
class Report:
    """How what was found compares with what was wanted, by name.

    Attributes:
      taken: found, and of the shape that was wanted.
      missing: wanted, not found.
      surplus: found, not wanted.
      misshapen: of another shape, with both.
    """

    taken: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not (self.missing or self.surplus or self.misshapen)

    def listing(self) -> list[str]:
        """A line for everything that differs."""
        kinds = {"missing": self.missing, "surplus": self.surplus, "misshapen": self.misshapen}
        return [f"{kind}: {name}" for kind, names in kinds.items() for name in names]

    def summary(self) -> str:
        """How many differ, and the first few of each kind."""
        kinds = {"missing": self.missing, "surplus": self.surplus, "misshapen": self.misshapen}
        told = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
        return ", ".join(told) or "no difference"


class DifferentKeysError(InputError):
    """Arrays that are not the wanted ones. The message counts them, `report` names every one."""

    def __init__(self, message: str, report: Report):
        super().__init__(message)
        self.report = report
        self.add_note("\n".join(report.listing()))  # a traceback shows it


def compare(wanted: Mapping[str, tuple], found: Mapping[str, tuple]) -> Report:
    """Names and shapes of both."""
    both = [name for name in wanted if name in found]
    return Report(
        taken=tuple(name for name in both if found[name] == wanted[name]),
        missing=tuple(name for name in wanted if name not in found),
        surplus=tuple(name for name in found if name not in wanted),
        misshapen=tuple(
            f"{name} {list(found[name])} instead of {list(wanted[name])}"
            for name in both
            if found[name] != wanted[name]
        ),
    )


def by_path(variables: PyTree) -> dict[str, Any]:
    """`{collection: tree}` -> `{path: leaf}`."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    paths = {_path(keys): leaf for keys, leaf in leaves}
    assert len(paths) == len(leaves), "two collections have the same path"
    return paths


def fill(variables: PyTree, arrays: Mapping[str, Any]) -> PyTree:
    """The same tree with every leaf, an array or its shape alone, taken from `arrays` by path.

    Raises:
      DifferentKeysError: a path is missing, surplus, or of another shape.
    """
    report = compare(_shapes(by_path(variables)), _shapes(arrays))
    if not report.complete:
        raise DifferentKeysError(f"arrays of another model: {report.summary()}", report)
    return _place(variables, arrays)


def transfer(
    variables: PyTree, source: PyTree, *, skip: Collection[str] = ()
) -> tuple[PyTree, Report]:
    """Starts a model from another one's variables, as far as they fit.

    Args:
      variables: the model's, which keep their values where the source has none that fit.
      source: the other's. The head of a source of one step goes into every step.
      skip: parts of paths that are not taken, e.g. "classifier".

    Returns:
      The new variables, and what was taken, missing, surplus (not used by any path) and misshapen;
      what `skip` names counts as neither found nor wanted.
    """
    wanted = {path: leaf for path, leaf in by_path(variables).items() if not _has(path, skip)}
    found = {path: leaf for path, leaf in by_path(source).items() if not _has(path, skip)}
    found = _for_every_step(found, wanted)
    report = compare(_shapes(wanted), _shapes(found))
    return _place(variables, {path: found[path] for path in report.taken}), report


def _for_every_step(found: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """The one head's arrays under the paths of all heads; others as they are."""
    heads = {match.group() for match in map(_HEAD.match, found) if match}
    if heads != {"heads_0/"}:
        return dict(found)
    sources = {path: _HEAD.sub("heads_0/", path, count=1) for path in wanted}
    copies = {path: found[source] for path, source in sources.items() if source in found}
    return copies | dict(found)


def _place(variables: PyTree, arrays: Mapping[str, Any]) -> PyTree:
    def leaf_of(keys: tuple, leaf: Any) -> Any:
        path = _path(keys)
        return np.asarray(arrays[path], leaf.dtype) if path in arrays else leaf

    return jax.tree_util.tree_map_with_path(leaf_of, variables)


def _path(keys: tuple) -> str:
    return jax.tree_util.keystr(keys[1:], simple=True, separator="/")


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def _has(path: str, parts: Collection[str]) -> bool:
    return not set(parts).isdisjoint(path.split("/"))


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMES_SHOWN
    return ", ".join(names[:_MOST_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
