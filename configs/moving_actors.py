"""The embedded benchmark: trains on two CPU cores in minutes.

    python -m input_pipeline.moving_actors --output data/moving_actors
    python -m input_pipeline.prepare --annotations data/moving_actors/annotations.json \
        --output data/moving_actors/records
    python train.py --config=configs/moving_actors.py --workdir=runs/moving_actors \
        --config.data.records=data/moving_actors/records \
        --config.data.annotations=data/moving_actors/annotations.json

`make demo` does all of it. Whatever differs from configs/common.py below is our choice, made for
the size of the model and the minutes it has.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.get_config()

    config.data.image_size = 96
    config.data.max_tubes = 4
    config.data.fps = 25.0
    config.data.background = "skip"
    config.augment.crop = 0.0
    config.augment.photometric = 0.0

    # The backbone reads RGB and two absolute frame differences (step_jax/models/tiny.py).
    config.model.backbone = "tiny"
    config.model.backbone_options = ConfigDict(
        {"stem_features": 32, "features": 64, "num_blocks": 1}
    )
    config.model.head = "two_branch"
    config.model.head_options = ConfigDict(
        {
            "global_features": (64, 96, 96),
            "global_kernels": ((1, 3, 3), (3, 2, 2), (5, 1, 1)),
            "local_features": (96, 64),
            "time_bins": 3,
            "tube_path": True,
        }
    )
    config.model.pool_size = 4
    # One box for all classes: with eight of them each would see an eighth of the samples.
    config.model.regression = "agnostic"

    # Deltas are a few tenths, where smooth-L1 is quadratic: at lambda = 5 boxes hardly get learned
    # in the minutes there are.
    config.loss.localization_weight = 30.0
    config.loss.anticipation_weight = 10.0
    # As many negatives as positives, and few of both: more clips a minute teach more.
    config.loss.max_positives = 4
    config.loss.negatives_per_positive = 1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50

    config.train.batch_size = 4
    config.train.steps = 2_200
    config.train.checkpoint_every_steps = 550
    config.train.eval_every_steps = 1_100
    config.eval.stride = 6
    return config.lock()
