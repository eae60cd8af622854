"""The UCF101-24 models of the paper: a row for each line of its tables and figures.

    python train.py --config=configs/ucf101_24.py:ROW --workdir=runs/ROW \
        --config.data.records=data/ucf101_24 \
        --config.data.annotations=data/ucf101_24/annotations.json \
        --config.train.init_from=runs/imagenet_rgb  # or _flow, _early, as the row's input
    python evaluate.py --workdir=runs/ROW

docs/ucf101_24.md tells how to make the records, the flow and the initial weights, which numbers the
paper has for each row, and how runs are fused (late, hybrid). `rgb`, `flow` and `early` are the
models of Table 1b and, fused, of Table 2; every other row is `rgb` but for what `ROWS` says.
`smoke`, `smoke_rgb` and `smoke_flow` are the three made small, to try everything on a CPU.

Hardware and time: not measured yet. The feature maps of a batch, four windows of 30 frames, are
21 GB in float32, and training holds a multiple; `frames_at_once`, set below, brings that to a
quarter and costs a second forward pass of the backbone. Fewer frames at once need less.

Score: not measured yet.

What the paper leaves open, and is our choice here: an epoch is one window of each record, that is
of each 24 consecutive frames; lambda, gamma, thresholds and numbers of samples are the released AVA
model's (configs/common.py), a fourth step's threshold goes on as those of the first three; colour
distortion.

`flow` and `early` need records with flow. Photometric distortion changes RGB alone; of a mirrored
flow image the x-displacements turn round.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common

EPOCHS = 35
# Of split 1's 2284 annotated training videos: 395,868 frames in records of at most 24.
TRAINING_RECORDS = 17_494

# What the first convolution reads: RGB, and the flow images of five frames (Section 4.1).
INPUTS = {
    "rgb": {"channels": 3, "rgb": True},
    "flow": {"channels": 15, "rgb": False},
    "early": {"channels": 18, "rgb": True},
}

# tau of four steps: the released model's three, and one more at the same distance (our choice).
THRESHOLDS = (0.2, 0.35, 0.5, 0.65)


def steps(count: int, *, extension: str = "none") -> dict[str, Any]:
    """S = `count`: without temporal extension (the default), or extended before each next step."""
    return {
        "model.extension": extension,
        "model.extension_plan": (False, *[extension != "none"] * (count - 1)),
        "loss.thresholds": THRESHOLDS[:count],
    }


Changes = Mapping[str, Any]  # key of the configuration -> value

# Our choice, for a try on a CPU: learns a few videos by heart. Small images, narrow heads, two
# steps (6 -> 18 frames), no augmentation.
SMOKE: Changes = {
    **steps(2, extension="anticipate"),
    "data.image_size": 64,
    "augment.flip": 0.0,
    "augment.crop": 0.0,
    "augment.photometric": 0.0,
    "model.backbone_options.frames_at_once": 0,
    "model.pool_size": 4,
    "model.head_options": {
        "trunk": "conv",
        "trunk_features": (64, 64),
        "global_features": 64,
        "local_features": 128,
        "local_bottleneck": 32,
    },
    "optimizer.learning_rate": 1e-4,
    "optimizer.schedule": "constant",
    "train.batch_size": 1,
    "train.steps": 400,
    "train.log_every_steps": 10,
    "train.checkpoint_every_steps": 100,
    "eval.batch_size": 4,
}

# What each row changes in the model of its input.
ROWS: dict[str, tuple[str, Changes]] = {
    # Table 1b, and Table 2 where the three are fused.
    "rgb": ("rgb", {}),
    "flow": ("flow", {}),
    "early": ("early", {}),
    # Table 1a: S steps, without temporal extension.
    "table1a_s1": ("rgb", steps(1)),
    "table1a_s2": ("rgb", steps(2)),
    "table1a_s3": ("rgb", steps(3)),
    "table1a_s4": ("rgb", steps(4)),
    # Table 1b.
    "table1b_rgb": ("rgb", {}),
    "table1b_flow": ("flow", {}),
    "table1b_early": ("early", {}),
    # Figure 5: windows of 6 and of 30 frames, and 6 -> 18 -> 30 by both methods.
    "fig5_k6": ("rgb", steps(3)),
    "fig5_k30": ("rgb", {**steps(3), "model.clip_frames": 30}),
    "fig5_extrapolate": ("rgb", steps(3, extension="extrapolate")),
    "fig5_anticipate": ("rgb", steps(3, extension="anticipate")),
    # Figure 6a, of speed: 1 to 4 steps without extension, and with it up to 6, 18, 30, 42 frames.
    "fig6a_s1": ("rgb", steps(1)),
    "fig6a_s2": ("rgb", steps(2)),
    "fig6a_s3": ("rgb", steps(3)),
    "fig6a_s4": ("rgb", steps(4)),
    "fig6a_s2_extended": ("rgb", steps(2, extension="anticipate")),
    "fig6a_s3_extended": ("rgb", steps(3, extension="anticipate")),
    "fig6a_s4_extended": ("rgb", steps(4, extension="anticipate")),
    # Figure 6b: M initial proposals, three steps without temporal extension.
    "fig6b_m11": ("rgb", {**steps(3), "proposals": 11}),
    "fig6b_m34": ("rgb", {**steps(3), "proposals": 34}),
    "fig6b_m59": ("rgb", {**steps(3), "proposals": 59}),
    "fig6b_m84": ("rgb", {**steps(3), "proposals": 84}),
    "fig6b_m109": ("rgb", {**steps(3), "proposals": 109}),
    # Section 4.2, "Miscellaneous": one technique removed at a time. What stands in for rising
    # thresholds is our choice: their mean at every step.
    "without_scene_context": ("rgb", {"model.scene_context": False}),
    "without_hard_sampling": (
        "rgb",
        {"loss.positive_weights": "uniform", "loss.negative_weights": "uniform"},
    ),
    "without_rising_thresholds": ("rgb", {"loss.thresholds": (0.35, 0.35, 0.35)}),
    "smoke": ("early", SMOKE),
    "smoke_rgb": ("rgb", SMOKE),
    "smoke_flow": ("flow", SMOKE),
}

# Lines of the tables that are no model of their own: the runs whose tubelets are fused.
FUSIONS = {
    "table1b_late": ("rgb", "flow"),
    "table1b_hybrid": ("early", "rgb", "flow"),
    "table2": ("early", "rgb", "flow"),
}


def get_config(row: str = "rgb") -> ConfigDict:
    """The preset of a row.

    Raises:
      ValueError: there is no such row.
    """
    if row in FUSIONS:
        raise ValueError(
            f"configs/ucf101_24.py:{row}: is the fusion of the runs {', '.join(FUSIONS[row])}; "
            "train each, then use python -m step_jax.fusion (docs/ucf101_24.md)"
        )
    if row not in ROWS:
        raise ValueError(
            f"configs/ucf101_24.py:{row}: there is no such row; expected one of {', '.join(ROWS)}"
        )
    modality, changes = ROWS[row]
    config = full_model(modality)
    config.update_from_flattened_dict(changes)
    return config.lock()


def full_model(modality: str) -> ConfigDict:
    """Section 4.1, not locked yet, for one input: "rgb", "flow" or "early"."""
    config = common.get_config()

    config.data.modality = modality
    config.data.image_size = 400
    config.data.fps = 25.0
    config.data.max_tubes = 8  # split 1 has at most 7 in any 42 frames
    if modality == "flow":
        config.augment.photometric = 0.0  # there are no colours

    config.model.backbone = "vgg16"
    config.model.backbone_options = ConfigDict(INPUTS[modality] | {"frames_at_once": 30})
    config.model.head = "residual"
    config.model.head_options = ConfigDict({"trunk": "conv"})
    config.model.clip_frames = 6
    config.model.extension_plan = (False, True, True)  # 6 -> 18 -> 30 frames
    config.model.extension = "anticipate"
    config.model.classification = "softmax"
    config.model.regression = "per_class"
    config.model.roi_mode = "pool"
    config.proposals = 11

    config.optimizer.learning_rate = 5e-5
    config.optimizer.schedule = "step_decay"
    config.optimizer.decay_at = (20 / EPOCHS, 30 / EPOCHS)
    config.optimizer.decay_factor = 0.1

    config.train.batch_size = 4
    config.train.steps = EPOCHS * TRAINING_RECORDS // config.train.batch_size
    config.train.checkpoint_every_steps = 5_000

    config.eval.stride = 1
    config.eval.tubes = True
    return config
