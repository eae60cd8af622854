"""Leaves of pytrees by their path, such as params/backbone/kernel."""

from __future__ import annotations

from typing import Any

import jax

PyTree = Any


def by_path(tree: PyTree) -> dict[str, Any]:
    """Path -> leaf, in the tree's order; of dicts, named tuples and dataclasses alike."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(_key_name, path)): leaf for path, leaf in leaves}


def _key_name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
