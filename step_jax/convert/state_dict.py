"""State dicts: names of layers with their arrays."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from step_jax.convert.torch_files import read_torch
from step_jax.errors import InputError

_WRAPPER = "state_dict"  # what many trainings save theirs under
_PREFIX = "module."  # of models that were trained on several devices


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """key -> array of a file that holds one, without the prefix of a parallel model.

    Raises InputError where the file holds something else.
    """
    content = read_torch(path)
    if isinstance(content, Mapping) and _WRAPPER in content:
        content = content[_WRAPPER]
    arrays = check_state_dict(str(path), content)
    return {key.removeprefix(_PREFIX): array for key, array in arrays.items()}


def check_state_dict(where: str, state: Any) -> Mapping[str, np.ndarray]:
    """`state` if it is one; else InputError, where `where` says what it should have been."""
    if not isinstance(state, Mapping) or not state:
        raise InputError(
            f"{where}: holds an object of type {type(state).__name__}; expected a state dict, "
            "names of layers with their tensors"
        )
    for key, value in state.items():
        if not isinstance(value, np.ndarray):
            raise InputError(
                f"{where}: {key!r} is of type {type(value).__name__}; expected a state dict, names "
                "of layers with their tensors"
            )
    return state
