"""flow.json: how the flow images of a folder were made, so that no others are mixed with them."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.flow.encoding import BOUND_PX
from step_jax.flow.image_folder import ImageFormat
from step_jax.flow.methods import Estimator
from step_jax.flow.sources import RECORD
from step_jax.folder_lock import LOCK

_VERSIONS = "versions"


def describe(estimator: Estimator, *, image_format: ImageFormat, short_side: int) -> dict[str, Any]:
    """The content of flow.json."""
    versions = {"numpy": np.__version__, "opencv": cv2.__version__}
    if estimator.method == "brox":
        versions["jax"] = importlib.metadata.version("jax")
    return {
        "method": estimator.method,
        "parameters": dict(estimator.parameters),
        "bound_px": BOUND_PX,
        "short_side": short_side,
        "image": image_format.describe(),
        _VERSIONS: versions,
    }


def check_or_write(output: pathlib.Path, description: Mapping[str, Any]) -> None:
    """Writes flow.json, or compares with the one that is there; versions may differ.

    Raises InputError where anything else differs, or where `output` holds something and no
    flow.json.
    """
    path = output / RECORD
    if path.exists():
        _compare(path, description)
        return
    foreign = [entry.name for entry in output.iterdir() if entry.name != LOCK]
    if foreign:
        raise InputError(
            f"{output}: holds {foreign[0]} and no {RECORD}; give a new or empty folder as --output"
        )
    write_json(path, description)


def _compare(path: pathlib.Path, description: Mapping[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before = _flat({key: before[key] for key in description})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error}); choose another --output") from error
    now = _flat(description)
    for key in [*now, *before]:
        if key.partition(" ")[0] != _VERSIONS and before.get(key) != now.get(key):
            raise InputError(
                f"{path}: the flow there was made with {key} {before.get(key)}, now it is "
                f"{now.get(key)}; repeat the former or choose another --output"
            )


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    """`{"method": .., "parameters alpha": .., ..}`"""
    flat = {}
    for key, value in description.items():
        if isinstance(value, Mapping):
            flat |= {f"{key} {name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat
