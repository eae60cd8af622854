"""I3D weights in PyTorch, trained on Kinetics, under the layers' names."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from step_jax import inference
from step_jax.convert import conversion, mapping
from step_jax.convert.state_dict import read_state_dict
from step_jax.models.i3d import MIXED
from step_jax.transfer import by_path

_UNITS = {"conv3d_1a_7x7": "conv_1a", "conv3d_2b_1x1": "conv_2b", "conv3d_2c_3x3": "conv_2c"}
_HEAD_LAYERS = ("mixed_5b", "mixed_5c")
_CLASSIFIER = "conv3d_0c_1x1."  # of Kinetics' actions


def read_kinetics(path: str | pathlib.Path, description: Mapping[str, Any]) -> conversion.Converted:
    """A detector with the file's backbone, and its last two layers in scene context and heads.

    Args:
      path: the file.
      description: of a detector with the backbone "i3d" (`inference.describe`).

    Raises:
      InputError: PyTorch is missing, or the file is no state dict.
      DifferentKeysError: it is one of other layers.
    """
    description = {**description, "source": conversion.source("kinetics_i3d", path)}
    shapes = by_path(inference.abstract_predictor(description).variables)
    table = entries(shapes)
    found = read_state_dict(path)
    mapping.check(str(path), table, found, shapes, unused=lambda key: key.startswith(_CLASSIFIER))
    return conversion.start_detector(description, mapping.to_ours(table, found))


def entries(paths: Mapping[str, Any]) -> list[mapping.Entry]:
    """Those of a detector with these paths; 5b and 5c go to wherever it has them."""
    modules = {path.rpartition("/mixed_5")[0] for path in paths if "/mixed_5" in path}
    table = [
        entry
        for theirs, ours in _UNITS.items()
        for entry in mapping.unit_entries(theirs, f"backbone/{ours}")
    ]
    for name in MIXED:
        for module in sorted(modules) if name in _HEAD_LAYERS else ["backbone"]:
            table += mapping.mixed_entries(name, f"{module}/{name}")
    return table
