"""What is trained: every row a list of changes to one configuration, and nothing else.

Rows that the paper's UCF101-24 tables have too take their changes from there. Everything that is
not in a row is the same for all rows of a scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from configs import ucf101_24

Changes = Mapping[str, Any]  # key of the configuration -> value


FLOW_FRAMES = 5  # flow images that a frame reads (Section 4.1)

# A dense set for a detector of one step (our choice): squares as in Figure 2, of six sizes, (1 /
# side, overlap). 81 + 121 + 169 + 169 + 196 + 256 = 992.
DENSE = ((2, 7 / 8), (3, 0.8), (4, 0.75), (5, 0.6875), (6, 0.616), (8, 0.54))
# It learns as detectors of one step do: positive from this overlap on, three negatives to each, all
# with the same chance. By their overlaps (Section 3.4) those on the ground would hardly be drawn.
_DENSE_LOSS: Changes = {
    "loss.thresholds": (0.5,),
    "loss.max_positives": 32,
    "loss.negatives_per_positive": 3,
    "loss.negative_weights": "uniform",
}

FULL = "fig5_anticipate"  # the whole method: three steps, extended by anticipation
PLAIN = "table1a_s3"  # three steps without temporal extension


def _ucf(name: str) -> Changes:
    """What that row of the UCF101-24 tables changes."""
    return ucf101_24.ROWS[name][1]


def _modality(name: str) -> Changes:
    """Of the embedded benchmark's backbone, which reads so many channels."""
    rgb = name == "early"
    return {
        "data.modality": name,
        "data.flow_frames": FLOW_FRAMES,
        "model.backbone_options.channels": 3 * (rgb + FLOW_FRAMES),
        "model.backbone_options.rgb": rgb,
    }


ROWS: dict[str, Changes] = {
    FULL: _ucf("fig5_anticipate"),
    "table1a_s1": _ucf("table1a_s1"),
    "table1a_s2": _ucf("table1a_s2"),
    PLAIN: _ucf("table1a_s3"),
    "table1a_s4": _ucf("table1a_s4"),
    "fig5_k30": _ucf("fig5_k30"),
    "fig5_extrapolate": _ucf("fig5_extrapolate"),
    "fig5_mean": ucf101_24.steps(3, extension="mean"),
    # The loss of Eq. 5 weighs as much as localization's; its regressors learn slowly.
    "fig5_anticipate_gamma": {**_ucf("fig5_anticipate"), "loss.anticipation_weight": 30.0},
    # Steps of 6 frames that have all of their frame differences, as those of extended tubes have:
    # a fourth step reads 18 frames.
    "fig5_k6_of_18": {
        **ucf101_24.steps(4, extension="extrapolate"),
        "model.extension_plan": (False, False, False, True),
    },
    "table1b_flow": _modality("flow"),
    "table1b_early": _modality("early"),
    "without_scene_context": _ucf("without_scene_context"),
    "without_hard_sampling": _ucf("without_hard_sampling"),
    "without_rising_thresholds": _ucf("without_rising_thresholds"),
    "fig6b_m4": {**_ucf(PLAIN), "proposals": ((2, 0),)},
    "fig6b_m34": _ucf("fig6b_m34"),
    "fig6b_m109": _ucf("fig6b_m109"),
    "dense": {**_ucf("table1a_s1"), "proposals": DENSE, **_DENSE_LOSS},
    # Of 11 proposals most that are no positives are drawn anyway; of 34 there is a choice.
    "m34_without_hard_sampling": {**_ucf("fig6b_m34"), **_ucf("without_hard_sampling")},
}

# Lines that are no training of their own: the rows whose tubelets are fused (Section 3.5) ...
FUSIONS: dict[str, tuple[str, ...]] = {
    "late": (FULL, "table1b_flow"),
    "hybrid": ("table1b_early", FULL, "table1b_flow"),
}
# ... and those that are evaluated again with other strides. At one of 5 a frame lies in 1.2 windows
# of 6 frames, and in 4.7 of 30, as in 1.2 of them at one of 25. At 1, ACT's, it is 6 and 30.
STRIDES: dict[str, tuple[str, int]] = {
    "fig5_k30_stride25": ("fig5_k30", 25),
    "fig5_k30_stride1": ("fig5_k30", 1),
    "fig5_anticipate_stride1": (FULL, 1),
}

# Each of them -> the rows that it is made of.
DERIVED: dict[str, tuple[str, ...]] = FUSIONS | {name: (row,) for name, (row, _) in STRIDES.items()}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
      name: of its folder.
      size: side of the rendered frames, pixels.
      videos: of training and test.
      changes: to the configuration, for all rows.
      together: runs side by side, each with a core of its own; 1: one after the other, with all.
    """

    name: str
    size: int
    videos: tuple[int, int]
    changes: Changes
    together: int

    def changes_of(self, row: str) -> dict[str, Any]:
        """All that a row's configuration has otherwise than the preset."""
        return {**self.changes, **ROWS[row]}


_MEASURED: Changes = {
    "train.eval_every_steps": 0,
    "train.keep_checkpoints": 1,
    "train.summary": False,
    # Below K, so that tubes can be linked, and the same for all rows.
    "eval.stride": 5,
    "eval.tubes": True,
}

SCALES = {
    # To try everything in minutes; its numbers mean nothing.
    "smoke": Scale(
        "smoke",
        size=96,
        videos=(16, 16),
        changes={**_MEASURED, "train.steps": 4, "train.log_every_steps": 2, "eval.batch_size": 32},
        together=2,
    ),
    # Of two CPU cores: three seeds of all rows in four hours. A training sees each video about once
    # and cannot learn by heart what was where. One clip an update: four, with twice the rate, were
    # as far in the training loss after as many clips, and behind on the test videos.
    "small": Scale(
        "small",
        size=96,
        videos=(5120, 128),
        changes={
            **_MEASURED,
            "train.batch_size": 1,
            "train.steps": 5_000,
            "train.checkpoint_every_steps": 1_000,
            "train.log_every_steps": 100,
            "optimizer.learning_rate": 1e-3,
            "optimizer.warmup_steps": 200,
        },
        together=2,
    ),
    # Of a GPU: larger pictures, a wider network, more videos, batches and steps.
    "large": Scale(
        "large",
        size=192,
        videos=(5120, 320),
        changes={
            **_MEASURED,
            "data.image_size": 192,
            "model.backbone_options.stem_features": 64,
            "model.backbone_options.features": 128,
            "model.backbone_options.num_blocks": 3,
            "train.batch_size": 16,
            "train.steps": 20_000,
            "train.checkpoint_every_steps": 1_000,
            "eval.batch_size": 32,
        },
        together=1,
    ),
}
