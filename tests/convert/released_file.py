"""What a released checkpoint holds, as PyTorch's files are read here: arrays in dicts."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import released_weights

LABEL_IDS = [number + number // 10 for number in range(1, 61)]  # with gaps, as AVA's
# What the public code's training leaves in `cfg`, beside a few dozen options of the training.
CFG = {
    "name": "STEP",
    "base_net": "i3d",
    "det_net": "two_branch",
    "no_context": False,
    "input_type": "rgb",
    "num_classes": 60,
    "T": 3,
    "fps": 12,
    "max_iter": 3,
    "base_lr": 7.5e-5,
    "milestones": [321020],
    "pool_mode": "align",
    "pool_size": 7,
    "fc_dim": 256,
    "iterative_mode": "temporal",
    "temporal_mode": "predict",
    "anchor_mode": "1",
    "scale_norm": 2,
    "dropout": 0.3,
    "NUM_CHUNKS": {1: 1, 2: 1, 3: 3, 4: 3},
    "means": (0, 0, 0),
    "stds": (1, 1, 1),
    "image_size": (400, 400),
    "label_dict": dict(enumerate(LABEL_IDS)),
    "id2class": {number: f"class {number}" for number in LABEL_IDS},
}


def content(
    *,
    steps: int = 3,
    context: bool = True,
    classification: bool = False,
    cfg: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The dict of a file with pseudo-random weights, whose normalisations counted batches."""
    weights = released_weights.weights(context=context, classification=classification)
    nets = {name: dict(weights[name]) for name in ("base_net", "context_net") if name in weights}
    for step in range(steps):
        nets[f"det_net{step}"] = dict(weights[f"det_net{min(step, len(weights) - 3)}"])
    for number, net in enumerate(nets.values()):
        for key in net:
            if key.endswith("num_batches_tracked") and number:
                net[key] = np.array(number + len(key), np.int64)
    options = CFG | {"max_iter": steps, "no_context": not context} | (cfg or {})
    return {
        "epochs": 14,
        "iteration": 321020,
        **nets,
        "optimizer": {"state": {0: {"step": 5}}, "param_groups": [{"lr": 1e-5}]},
        "scheduler": {"last_epoch": 321020},
        "val_mAP": 0.202,
        "cfg": argparse.Namespace(**options),
    }


def key_lists() -> dict[str, dict[str, list[int]]]:
    """{kind of net: {key: shape}} in the files' order."""
    return json.loads(released_weights.KEYS.read_text())
