"""A file that holds one state dict."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from step_jax.convert.torch_files import arrays_of, read_torch

_WRAPPER = "state_dict"  # what many trainings save theirs under
_PREFIX = "module."  # of models that were trained on several devices


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """key -> array, without the prefix of a parallel model.

    Raises InputError where the file holds something else.
    """
    content = read_torch(path)
    if isinstance(content, Mapping) and _WRAPPER in content:
        content = content[_WRAPPER]
    arrays = arrays_of(str(path), content)
    return {key.removeprefix(_PREFIX): array for key, array in arrays.items()}
