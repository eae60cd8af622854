"""Pseudo-random weights under the keys of the released checkpoints, a function of seed, net, key.

The numbers in tests/data/released_*.npz are what the public PyTorch model computes with them.
"""

from __future__ import annotations

import functools
import json
import pathlib
import zlib

import numpy as np

KEYS = pathlib.Path(__file__).parent / "data" / "released_keys.json"
STEPS = 3

# Spread of a kernel times the square root of its fan-in; the first name that fits counts.
_GAINS = {
    "base_model.0.": 3.0,
    "base_model.2.": 2.4,
    "base_model.5.": 1.7,
    "base_model.8.": 1.1,
    "local_conv.0.conv1": 1.2,
    "local_conv.0.conv4": 1.2,
    "local_conv.1.conv3": 0.8,
    "local_conv.2.conv3": 0.8,
    "downsample": 1.2,
    "global_cls": 1.6,
    "local_reg": 0.2,
    "neighbor_reg": 0.1,
    "": 1.7,
}
_NORMS = {
    "weight": (1.0, 0.05),
    "bias": (0.0, 0.05),
    "running_mean": (0.0, 0.05),
    "running_var": (1.0, 0.1),
}
_BIASES = {"global_cls.bias": 0.5, "downsample.bias": 0.05, "downsample2.bias": 0.05}


@functools.lru_cache(maxsize=1)
def weights(
    *, seed: int = 0, context: bool = True, classification: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """{net: {key: array}} of a checkpoint: three steps; without context; or the pre-training."""
    keys = json.loads(KEYS.read_text())
    head = "det_net_cls_only" if classification else "det_net" if context else "det_net_no_context"
    nets = {"base_net": keys["base_net"]}
    if context:
        nets["context_net"] = keys["context_net"]
    nets |= {f"det_net{step}": keys[head] for step in range(1 if classification else STEPS)}
    return {
        net: {key: _tensor(seed, net, key, shape) for key, shape in shapes.items()}
        for net, shapes in nets.items()
    }


def _tensor(seed: int, net: str, key: str, shape: list[int]) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    offset, spread, centred = _distribution(key, shape)
    random = np.random.default_rng(zlib.crc32(f"{seed}:{net}/{key}".encode()))
    integers = np.floor(random.random(shape) * 2.0**21) - 2.0**20
    if centred:
        # Or different boxes would give the same answer deep in a random network.
        axes = tuple(range(1, len(shape)))
        integers -= integers.sum(axis=axes, keepdims=True) / float(np.prod(shape[1:]))
    return (offset + spread * np.sqrt(3.0) * (integers / 2.0**20)).astype(np.float32)


def _distribution(key: str, shape: list[int]) -> tuple[float, float, bool]:
    """Mean, standard deviation, and whether each output channel's kernel sums to zero."""
    leaf = key.rsplit(".", 1)[-1]
    if ".batch3d." in key:
        return *_NORMS[leaf], False
    if leaf == "bias":
        return 0.0, _BIASES.get(key, 0.01), False
    gain = next(gain for name, gain in _GAINS.items() if name in key)
    return 0.0, gain / np.sqrt(int(np.prod(shape[1:]))), "base_model.0." not in key
