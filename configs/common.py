"""Every key of a configuration, declared once. A preset changes values and adds no keys.

Boxes are in pixels of the network's input, `data.image_size` on a side; frames are counted at the
records' frame rate. B, M, K, L are batch, proposals, frames of the target clip, frames of a tube.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults, unlocked, for a preset to change and lock."""
    return ConfigDict(
        {
            "seed": 0,  # of the parameters, the data order, augmentation and sampling
            "data": data(),
            "augment": augment(),
            "model": model(),
            "proposals": 11,  # M: 11, 34, 59, 84, 109, or a tuple of (scale, overlap) pairs
            "loss": loss(),
            "optimizer": optimizer(),
            "train": train(),
            "eval": evaluation(),
        }
    )


def data() -> dict:
    return {
        "records": "",  # folder that `python -m input_pipeline.prepare` wrote
        # The native JSON the records were made from, for evaluation; AVA's folder of CSV files.
        "annotations": "",
        # "2.1" | "2.2": records of AVA's movies, whose labels are joined when they are read.
        "ava_version": "",
        "train_split": "train",
        "eval_split": "test",
        "eval_videos": "",  # glob over video ids that limits evaluation, e.g. "*_g0[12]_*"; "": all
        # What a clip's channels are: "rgb" | "flow" | "early", RGB and then flow (Section 4.1).
        "modality": "rgb",
        "flow_frames": 5,  # flow images that each frame reads, its own and those after it
        "image_size": 400,  # Section 4.1; frames are resized to a square
        # (height, width) of the records' frames, to have the device crop, resize and recolour those
        # of training, for which the host takes as long as for decoding; (): the host does it.
        # Smaller frames are filled up with nothing, larger ones shrunk on the host.
        "source_size": (),
        "max_tubes": 8,  # G, ground-truth tubes of a window, padded
        "fps": 0.0,  # of the records' frames; detection resamples to it; 0 keeps a video's own
        "background": "keep",  # "keep" | "skip" training windows without an annotated tube
        "shuffle_records": 1024,  # records held in the shuffle buffer; of AVA keyframes
        # Parts that the records are read in, each with an equal share of every batch: a multiple of
        # the processes of a run. With it, and not with the processes, the batches change.
        "streams": 1,
        "threads": 0,  # of the input pipeline; 0: one a core
        # Damaged records of a process that are skipped and counted; at one more it stops.
        "max_damaged": 0,
    }


def augment() -> dict:
    # The whole sequence gets the same transformation (Section 4.1: random flip and crop).
    return {
        "flip": 0.5,  # probability
        "flip_swaps": (),  # pairs of class names that a mirror exchanges
        "crop": 0.5,  # probability of a box-aware crop
        "crop_min_scale": 0.5,  # its least area as a share of the frame's
        # Probability of changing brightness, contrast, saturation and hue, of RGB alone.
        "photometric": 0.5,
        "erase": 0.0,  # probability of blanking one rectangle: grey, or no motion
    }


def model() -> dict:
    return {
        "backbone": "tiny",
        "backbone_options": ConfigDict(),  # keyword arguments of the backbone's module
        "head": "two_branch",
        "head_options": ConfigDict(),  # keyword arguments of the head's module
        "clip_frames": 6,  # K (Section 4.1)
        "extension_plan": (False, True, True),  # one flag per step: 6 -> 18 -> 30 frames (Fig. 5)
        # "anticipate" (Eq. 5) | "extrapolate" (Eq. 4) | "recursive", the released model's
        # extrapolation | "mean", the mean box in all frames | "none": tubes stay at K frames
        "extension": "anticipate",
        "classification": "softmax",  # with background | "sigmoid", several labels a tube
        "regression": "per_class",  # | "agnostic"
        "roi_mode": "align",  # | "pool"
        "pool_size": 7,  # P
        "scene_context": True,  # Section 3.5
        # "float32", exact on every platform | "tensorfloat32", GPUs round products to 10 bits |
        # "bfloat16"; parameters, geometry and losses stay float32
        "precision": "float32",
        # Of what the backward pass computes the activations again, for memory: "none" |
        # "backbone" | "heads" | "all"
        "remat": "none",
    }


def loss() -> dict:
    return {
        # tau per step, rising (Section 3.4); the numbers are the released model's.
        "thresholds": (0.2, 0.35, 0.5),
        "localization_weight": 5.0,  # lambda of Eq. 2, the released model's
        "anticipation_weight": 1.0,  # gamma, the released model's
        "max_positives": 5,  # |P| of a clip, the released model's
        "negatives_per_positive": 2,  # |N|, the released model's
        "background_negatives": 2,  # |N| of a clip without a tube, our choice
        "positive_weights": "score",  # hard-aware sampling | "uniform", the released model's
        "negative_weights": "score",  # hard-aware sampling | "softmax" | "uniform"
        "keep_claims": False,  # a claimed proposal belongs to the tube that claimed it
        "claim_without_overlap": False,  # a tube claims a proposal even at IoU 0
        # "all" frames have a say in overlaps and box losses | a clip's "middle" one, as released
        "frames": "all",
        "samples": "proposals",  # | "ground_truth": the annotated tubes' classes alone, one step
    }


def optimizer() -> dict:
    return {
        "learning_rate": 5e-5,  # Section 4.1
        # The train.batch_size that the rate is meant for: another one's is in proportion; 0: any
        "reference_batch_size": 0,
        # (pattern of parameters' paths, factor of the rate) pairs, the first that matches counts,
        # e.g. (("backbone/*", 0.1), ("*", 1.0)); without any all factors are 1.
        "groups": (),
        "bias_rate": 1.0,  # another factor, for biases
        "schedule": "step_decay",  # | "cosine" | "constant"
        "warmup_steps": 0,
        "warmup_start": 0.0,  # share of the rate
        "first_update": 0,  # its step in the schedule; the released model's is 1
        "decay_at": (20 / 35, 30 / 35),  # Section 4.1: of 35 epochs after 20 and 30
        "decay_factor": 0.1,
        "weight_decay": 0.0,  # of all but biases and normalisation scales
        "weight_decay_kind": "decoupled",  # | "l2", added to the gradient
        "max_gradient_norm": 0.0,  # 0: no clipping
    }


def train() -> dict:
    return {
        "init_from": "",  # folder of a run, ours or a converted one, to take parameters from
        "init_skip": (),  # names in parameters' paths that are not taken, e.g. ("classifier",)
        "batch_size": 4,  # clips over all devices
        # Parts of a device's share that are gone through one by one: less memory, same result.
        "accumulate": 1,
        "steps": 10_000,
        "log_every_steps": 50,
        "checkpoint_every_steps": 1_000,
        "keep_checkpoints": 2,  # the latest; the best one is kept beside them
        "eval_every_steps": 0,  # 0: only at the end, by `evaluate.py`
        "summary": True,  # draw summary.png, a page of the run, whenever training stops
    }


def evaluation() -> dict:
    return {
        "batch_size": 8,  # windows over all devices
        "stride": 1,  # frames between windows
        "frames": "all",  # of a window that are reported | "middle", the keyframe models' one
        # "detected", the proposals' | "annotated", those that loss.samples = "ground_truth" is
        # trained on; of AVA alone
        "boxes": "detected",
        "ava_protocol": "2018",  # of the official evaluation: "2018" | "2019" | "2020", docs/ava.md
        # Tubelet NMS as the released model's: valid boxes in pixels of the network's input, both
        # border pixels inside, dropped at the threshold too. False: shares of the sides, above it.
        "inclusive_nms": False,
        # The ACT protocol, see docs/evaluation.md.
        "score_threshold": 0.01,
        "tubelet_nms": 0.45,
        "per_class_top": 400,
        "clip_top": 200,
        "frame_nms": 0.3,  # 1.0: none
        "iou_threshold": 0.5,
        "ap": "trapezoid",  # | "voc", for comparison with papers that count so
        "counted_frames": "all",  # | "annotated", likewise: those without ground truth do not count
        # Action tubes: tables of tubelets and tubes, video-mAP, a report on one page. Of AVA, which
        # has no tubes, the table of tubelets alone, for fusion.
        "tubes": False,
        "tube_steps": (),  # steps of the detector whose tubes are made; none given: the last
        "tube_nms": 0.3,  # iou3dt
        # Of iou3dt.
        "video_map_thresholds": (0.05, 0.1, 0.2, 0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
                                 0.9, 0.95),
        "link": linking(),
        "trim": trimming(),
    }  # fmt: skip


def linking() -> dict:
    # Of tubelets into tubes, ACT's rule with STEP's constants.
    return {
        "candidate_nms": 0.3,  # mean IoU, in each window and class
        "candidates": 10,  # survivors of it that are linked
        "global_nms": 0.0,  # mean IoU over all classes, before; ACT's is .7; 0: none, as STEP
        "global_top": 300,  # survivors of that
        "match_iou": 0.2,  # mean IoU over the shared frames, at least
        "max_gap": -1,  # frames without a match after which a tube ends; -1: K - 1
        "min_score": 0.01,  # of a tube
        "min_frames": 15,  # of a tube
        "max_frames": 0,  # of a tube, to bound memory; 0: no limit
        "class_scores": False,  # tubes.parquet holds the scores of all classes in each frame
    }


def trimming() -> dict:
    # Where in a tube the action is. The paper gives no constants; these are our choice.
    return {
        # Of a change of the label. Choose one on held-out training videos:
        # `python -m step_jax.metrics.ucf101_24.choose_trimming`.
        "penalty": 3.0,
        "min_run": 10,  # frames
        "top_frames": 40,  # whose mean is a trimmed tube's score
        "normalise": False,  # by the tube's maximum, before the labels are chosen
        "multi_label": False,  # labels are all classes, not the tube's and none
    }
