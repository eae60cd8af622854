"""A configuration from its file, and what a checkpoint of it would say of itself."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from step_jax import inference
from step_jax.errors import InputError
from step_jax.modality import Modality
from step_jax.models.factory import PRECISIONS

# Of the presets; a run has its records' number.
CLASSES = {"ava": 60, "ava_classification": 60, "ucf101_24": 24, "moving_actors": 8}
_OTHER_CLASSES = 8


def load_config(spec: str) -> ConfigDict:
    """The configuration that "FILE" or "FILE:VARIANT" gives, with its defaults.

    Raises:
      InputError: there is no such file or variant.
    """
    path, _, variant = str(spec).partition(":")
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config {path}: no such file; e.g. configs/ava.py")
    module_spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    try:
        return module.get_config(variant) if variant else module.get_config()
    except (TypeError, ValueError) as error:
        raise InputError(f"--config {spec}: {error}") from error


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A locked copy with other values; `changes` by key. Options of modules may be new keys."""
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(dict(changes))
    return config.lock()


def describe(spec: str, config: ConfigDict, *, precision: str | None = None) -> dict:
    """`inference.describe` of an untrained detector; `precision` replaces the configuration's."""
    number = CLASSES.get(pathlib.Path(spec.partition(":")[0]).stem, _OTHER_CLASSES)
    described = inference.describe(
        model=config.model.to_dict(),
        classes=tuple(f"class {index}" for index in range(number)),
        image_size=config.data.image_size,
        fps=config.data.fps,
        proposals=config.proposals,
        modality=Modality(config.data.modality, config.data.flow_frames),
    )
    return with_precision(described, precision or config.model.precision)


def with_precision(described: dict, precision: str) -> dict:
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    return described | {"model": described["model"] | {"precision": precision}}
