"""VGG16 trained on ImageNet, under torchvision's keys."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from step_jax import inference
from step_jax.convert import conversion, mapping
from step_jax.convert.layouts import CONV2D
from step_jax.convert.state_dict import read_state_dict
from step_jax.models.vgg import BLOCKS
from step_jax.transfer import by_path

_STEM = "backbone/conv1_1/kernel"
_CLASSIFIER = "classifier."  # of ImageNet's objects


def read_vgg16(path: str | pathlib.Path, description: Mapping[str, Any]) -> conversion.Converted:
    """A detector with the file's backbone.

    Args:
      path: the file.
      description: of a detector with the backbone "vgg16" (`inference.describe`), of RGB, flow or
        both.

    Raises:
      InputError: PyTorch is missing, or the file is no state dict.
      DifferentKeysError: it is one of other layers.
    """
    description = {**description, "source": conversion.source("imagenet_vgg16", path)}
    detector = inference.abstract_predictor(description)
    shapes = by_path(detector.variables)
    inputs = shapes[_STEM].shape[2]
    rgb_stem = np.broadcast_to(np.float32(0), (3, 3, 3, shapes[_STEM].shape[3]))
    table, found = entries(), read_state_dict(path)
    mapping.check(
        str(path),
        table,
        found,
        shapes | {_STEM: rgb_stem},
        unused=lambda key: key.startswith(_CLASSIFIER),
    )
    arrays = mapping.to_ours(table, found)
    rgb = detector.detector.backbone.rgb
    arrays[_STEM] = inflate(arrays[_STEM], channels=inputs, rgb=rgb)
    return conversion.start_detector(description, arrays)


def entries() -> list[mapping.Entry]:
    """`features` numbers convolutions, the ReLU behind each, and a pooling behind each block."""
    table, number = [], 0
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            path = f"backbone/conv{block}_{index}"
            table += mapping.biased_entries(f"features.{number}", path, CONV2D)
            number += 2
        number += 1
    return table


def inflate(kernel: np.ndarray, *, channels: int, rgb: bool) -> np.ndarray:
    """The first convolution for another input: `[3, 3, 3, O]` -> `[3, 3, channels, O]`.

    RGB channels, the first three where there are any, keep their weights; every flow channel gets
    the average of RGB's (Section 4.1). The scale stays.
    """
    colours = kernel if rgb else kernel[:, :, :0]
    flows = channels - colours.shape[2]
    average = kernel.mean(axis=2, keepdims=True)
    return np.concatenate([colours, *[average] * flows], axis=2)
