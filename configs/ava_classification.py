"""Pre-training for AVA: classifies the annotated people, then its head goes into every step's.

    python train.py --config=configs/ava_classification.py --workdir=runs/ava_classification \
        --config.data.records=data/ava/records --config.data.annotations=data/ava/annotations \
        --config.train.init_from=runs/kinetics_i3d
    python train.py --config=configs/ava.py:released --workdir=runs/ava ... \
        --config.train.init_from=runs/ava_classification \
        --config.train.init_skip="('classifier',)"

One step without a local branch, fed the annotated boxes of the keyframe and its neighbours for the
36 frames. That the released model's pre-training is so is known; that its schedule is the
detector's, for 10 epochs, is our choice. evaluate.py classifies the annotated boxes too
(eval.boxes), so that its number is of actions alone and no detector's: what the classes would be
worth if all people were found.
"""

from ml_collections import ConfigDict

from configs import ava


def get_config() -> ConfigDict:
    config = ava.get_config("released").unlock()

    config.model.clip_frames = 36
    config.model.extension_plan = (False,)
    config.model.extension = "none"
    config.model.head_options.local_branch = False
    config.model.head_options.keep_regressors = False
    config.loss.samples = "ground_truth"
    config.eval.boxes = "annotated"
    config.train.steps = 10 * ava.CLIPS // config.train.batch_size
    return config.lock()
