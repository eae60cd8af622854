"""AVA (Section 4.1), 60 classes a keyframe. For GPUs; docs/training.md tells what saves memory.

    python train.py --config=configs/ava.py --workdir=runs/ava \
        --config.data.records=data/ava/records --config.data.annotations=data/ava/annotations \
        --config.train.init_from=runs/ava_classification \
        --config.train.init_skip="('classifier',)"
    python evaluate.py --workdir=runs/ava

configs/ava.py            the paper's setting: 18.6 mAP on v2.1 with two models' results combined
configs/ava.py:released   the schedule, sampling and losses of the released model (20.2 mAP)

The records hold pixels alone; data.ava_version = "2.2" reads the newer labels with them. An epoch
is every labelled keyframe once. docs/ava.md tells how the records are made and two models combined.

Both start from the classification pre-training (configs/ava_classification.py), or from Kinetics
weights alone, `python -m step_jax.convert kinetics_i3d`. Batch sizes are of all devices together.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("", "released")
CLIPS = 183_440  # annotated keyframes of v2.1's training split, as the released run counted them


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"configs/ava.py:{variant}: expected configs/ava.py or :released")
    config = common.get_config()

    config.data.ava_version = "2.1"
    config.data.fps = 12.0
    config.data.eval_split = "val"
    config.data.max_tubes = 32
    config.augment.photometric = 0.0

    config.model.backbone = "i3d"
    config.model.backbone_options = ConfigDict({"norm": "frozen"})
    config.model.head = "residual"
    config.model.head_options = ConfigDict(
        {"trunk": "mixed", "local_branch": True, "keep_regressors": True, "dropout": 0.0}
    )
    # 12 frames are 3 of the features'; the third step reads 36, from the second before to the next.
    config.model.clip_frames = 12
    config.model.extension_plan = (False, False, True)
    config.model.extension = "anticipate"
    config.model.classification = "sigmoid"
    config.model.regression = "agnostic"
    config.proposals = 34

    config.optimizer.learning_rate = 5e-5
    config.optimizer.groups = (("backbone/*", 0.1), ("*", 1.0))
    config.optimizer.schedule = "step_decay"
    config.optimizer.decay_at = (6 / 10,)  # of 10 epochs after 6
    config.train.batch_size = 4
    config.train.steps = 10 * CLIPS // 4
    config.train.checkpoint_every_steps = 5_000

    # One keyframe a second counts, docs/evaluation.md.
    config.eval.stride = 12
    config.eval.frames = "middle"
    config.eval.inclusive_nms = True
    config.eval.tubelet_nms = 0.4
    config.eval.clip_top = 300
    config.eval.frame_nms = 1.0

    if variant == "released":
        _as_released(config)
    return config.lock()


def _as_released(config: ConfigDict) -> None:
    """What the released model's training did otherwise."""
    config.augment.photometric = 0.5
    config.augment.erase = 0.5
    config.model.head_options.dropout = 0.3

    config.loss.frames = "middle"
    config.loss.keep_claims = True
    config.loss.claim_without_overlap = True
    config.loss.positive_weights = "uniform"
    config.loss.negative_weights = "softmax"
    config.loss.background_negatives = 0

    config.optimizer.learning_rate = 7.5e-5
    config.optimizer.groups = (
        ("backbone/conv_1a/*", 1 / 8),
        ("backbone/conv_2?/*", 1 / 4),
        ("backbone/mixed_3?/*", 1 / 2),
        ("backbone/mixed_4?/*", 1.0),
        ("scene_context/*", 2.0),
        ("heads_*/mixed_*", 2.0),
        ("heads_*", 10.0),
    )
    config.optimizer.bias_rate = 2.0
    config.optimizer.weight_decay = 1e-7
    config.optimizer.weight_decay_kind = "l2"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 1_000
    config.optimizer.warmup_start = 0.1
    config.optimizer.first_update = 1
    config.train.batch_size = 8
    config.train.steps = 14 * CLIPS // 8
