"""The public STEP checkpoints: the detector and its classification pre-training."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from step_jax import inference, parallel
from step_jax.convert import mapping, released_config
from step_jax.convert.conversion import Converted, source
from step_jax.convert.released_keys import Architecture
from step_jax.convert.state_dict import check_state_dict
from step_jax.convert.torch_files import read_torch
from step_jax.errors import InputError
from step_jax.transfer import by_path, fill

_HEAD = re.compile(r"det_net(\d+)")
_FIRST_LOCAL_KEY = "local_conv.0.conv1.weight"
_PLAIN = (bool, int, float, str, type(None))


def load_released(path: str | pathlib.Path) -> inference.Predictor:
    """A ready detector from a released checkpoint (.pth), without writing anything.

    Raises:
      InputError: PyTorch is missing, or the file is not a checkpoint that this detector can be.
      DifferentKeysError: its arrays are not the detector's; `.report` names every one.
    """
    released = read_released(path)
    predictor = inference.abstract_predictor(released.description)
    variables = jax.device_put(released.variables, parallel.replicated())
    return predictor.with_variables(variables, step=released.step)


def read_released(path: str | pathlib.Path) -> Converted:
    """Reads and converts a checkpoint; raises as `load_released`."""
    content = read_torch(path)
    return convert_released(str(path), content, source=source("released", path))


def convert_released(where: str, content: Any, *, source: Mapping[str, Any]) -> Converted:
    """Converts what a file holds; `where` names it in errors, `source` in the description."""
    if not isinstance(content, Mapping) or "base_net" not in content:
        raise InputError(f"{where}: not a STEP checkpoint: {_told(content)}; expected base_net, "
                         "det_net0, cfg")  # fmt: skip
    if not isinstance(content.get("cfg"), argparse.Namespace):
        raise InputError(
            f"{where}: has no cfg, the options of its training, from which its detector is built"
        )
    found = _arrays(where, content)
    architecture = _architecture(where, content, found)
    cfg = vars(content["cfg"])
    description = released_config.describe(where, cfg, architecture)
    shapes = inference.abstract_predictor(description).variables
    entries = architecture.entries()
    mapping.check(where, entries, found, by_path(shapes))
    variables = fill(shapes, mapping.to_ours(entries, found))
    description["source"] = {
        **source,
        "label_ids": released_config.label_ids(where, cfg),
        "counters": _counters(found),
        "cfg": _plain(cfg),
        **_plain({name: content.get(name) for name in ("epochs", "val_mAP")}),
    }
    return Converted(description, variables, _iteration(where, content))


def _arrays(where: str, content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """NET/KEY -> array, of all nets."""
    nets = [name for name in content if name in ("base_net", "context_net") or _HEAD.match(name)]
    return {
        f"{net}/{key}": array
        for net in nets
        if content[net] is not None
        for key, array in check_state_dict(f"{where}, {net}", content[net]).items()
    }


def _architecture(
    where: str, content: Mapping[str, Any], found: Mapping[str, np.ndarray]
) -> Architecture:
    heads = {int(match.group(1)) for match in map(_HEAD.fullmatch, content) if match}
    if not heads or heads != set(range(len(heads))):
        raise InputError(
            f"{where}: has the heads {sorted(heads)}; expected det_net0, det_net1, ... of every "
            "step from the first"
        )
    return Architecture(
        steps=len(heads),
        context=any(key.startswith("context_net/") for key in found),
        local=any(key.endswith(f"/{_FIRST_LOCAL_KEY}") for key in found),
    )


def _iteration(where: str, content: Mapping[str, Any]) -> int:
    step = content.get("iteration", 0)
    if not isinstance(step, int) or not 0 <= step < 2**31:
        raise InputError(f"{where}: iteration is {step!r}; expected a whole number from 0")
    return step


def _counters(found: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Batches that each normalisation has counted, where it has."""
    return {
        key: int(value)
        for key, value in found.items()
        if key.endswith(mapping.COUNTER) and value.size == 1 and value
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that JSON has, too; sequences of them become lists."""

    def is_plain(value: Any) -> bool:
        items = value if isinstance(value, list | tuple) else [value]
        return all(isinstance(item, _PLAIN) for item in items)

    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if is_plain(value)
    }


def _told(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it holds an object of type {type(content).__name__}"
    names = list(map(str, content))
    return f"it holds {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
