"""The paper's UCF101-24 model (Section 4.1): `rgb`, `flow`, or `early` fusion of both.

    python -m input_pipeline.convert_annotations pyannot --input pyannot.pkl \
        --split_file testlist01.txt --videos rgb-images --output data/ucf101_24/annotations.json
    python -m input_pipeline.prepare --annotations data/ucf101_24/annotations.json \
        --flow brox-images --output data/ucf101_24/records
    python -m step_jax.convert imagenet_vgg16 --input vgg16.pth --output runs/imagenet_vgg16
    python train.py --config=configs/ucf101_24.py:rgb --workdir=runs/ucf101_24_rgb \
        --config.data.records=data/ucf101_24/records \
        --config.data.annotations=data/ucf101_24/annotations.json \
        --config.train.init_from=runs/imagenet_vgg16

Hardware and time: not measured yet. The feature maps of a batch, four windows of 30 frames, are
21 GB in float32, and training holds a multiple; `frames_at_once`, set below, brings that to a
quarter and costs a second forward pass of the backbone. Fewer frames at once need less.

Score: not measured yet. The paper's frame-mAP at IoU 0.5 on split 1 (Table 1b), from ImageNet's
weights: rgb 66.7, flow 63.5, early 74.3.

What the paper leaves open, and is our choice here: an epoch is one window of each record, that is
of each 24 consecutive frames; lambda, gamma, thresholds and numbers of samples are the released AVA
model's (configs/common.py); photometric distortion.

`flow` and `early` need records with flow. Photometric distortion changes RGB alone; of a mirrored
flow image the x-displacements turn round.
"""

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


def get_config(variant: str = "rgb") -> ConfigDict:
    """The preset of one input: "rgb", "flow" or "early".

    Raises:
      ValueError: another variant.
    """
    if variant not in INPUTS:
        raise ValueError(
            f"configs/ucf101_24.py:{variant}: there is no such variant; "
            f"expected one of {', '.join(INPUTS)}"
        )
    config = common.get_config()

    config.data.modality = variant
    config.data.image_size = 400
    config.data.fps = 25.0
    if variant == "flow":
        config.augment.photometric = 0.0  # there are no colours

    config.model.backbone = "vgg16"
    config.model.backbone_options = ConfigDict(INPUTS[variant] | {"frames_at_once": 30})
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
    return config.lock()
