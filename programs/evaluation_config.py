"""What a configuration says about evaluation, as the library's arguments.

For the programs, which alone see the configuration; the library takes arguments with names.
"""

from __future__ import annotations

import argparse
from typing import Any

from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from configs import common
from input_pipeline import keyframes, records
from step_jax import evaluations, parallel, run_folder
from step_jax.annotations import Annotations, read_native, select_videos
from step_jax.annotations.ava_folder import AvaFolder, open_ava_folder
from step_jax.annotations.ava_time import FPS
from step_jax.detected_keyframes import KeyframeLimits
from step_jax.digests import digest
from step_jax.errors import InputError
from step_jax.evaluation import DetectionLimits
from step_jax.linking import LinkOptions, check_options
from step_jax.metrics.ava import evaluation as ava_evaluation
from step_jax.metrics.average_precision import check_ap_rule
from step_jax.metrics.frame_tally import check_counted_frames
from step_jax.metrics.ucf101_24.protocol import ClipLimits, Protocol
from step_jax.metrics.ucf101_24.results import TubeOptions
from step_jax.metrics.video_map import check_thresholds
from step_jax.storage import check_local
from step_jax.trimming import TrimOptions
from step_jax.tubelet_table import TubeletHeader, is_tubelet_table


def configuration_of_run(arguments: list[str]) -> ConfigDict | None:
    """The run's own configuration where the command line has no other, so that flags can change it.

    None where there is none to be had; `main` says why, if it is needed.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "workdir"):
        parser.add_argument(f"-{name}", f"--{name}", nargs="?")
    told, _ = parser.parse_known_args(arguments)
    if told.config or not told.workdir:
        return None
    try:
        return read_configuration(told.workdir)
    except InputError:
        return None


def read_configuration(workdir: epath.PathLike) -> ConfigDict:
    """The run's own; keys that are younger than the run have their defaults, which change nothing.

    Raises InputError where there is none.
    """
    config = common.get_config()
    with config.ignore_type():
        config.update(run_folder.read_config(workdir))
    return config


def part(config: ConfigDict) -> str:
    """What is evaluated, as the folder of its results is called."""
    return evaluations.part(config.data.eval_split, config.data.eval_videos)


def records_folder(config: ConfigDict) -> str:
    if not config.data.records:
        raise InputError(
            "data.records is empty: give --config.data.records=DIR, which "
            "`python -m input_pipeline.prepare` made"
        )
    check_local(config.data.records, what="data.records")
    return config.data.records


def check_config(config: ConfigDict) -> Annotations | None:
    """Raises InputError for what would otherwise come to light after the detector's work.

    Returns the videos that are evaluated; None of AVA.
    """
    parallel.check_batch_size(config.eval.batch_size)
    detection_limits(config)
    protocol(config)
    records.load_index(records_folder(config), config.data.eval_split)
    keyframes.check_kind(
        records.load_info(config.data.records),
        config.data.records,
        joins_labels=bool(config.data.ava_version),
    )
    if config.data.ava_version:
        check_ava(config)
        return None
    if config.eval.boxes != "detected":
        raise InputError(f"eval.boxes {config.eval.boxes!r}: expected 'detected'; others are AVA's")
    return read_annotations(config)


def check_ava(config: ConfigDict) -> None:
    """The same of what AVA alone needs."""
    ava_evaluation.check_ground_truth(
        ava_folder(config),
        config.data.eval_split,
        protocol=config.eval.ava_protocol,
        videos=config.data.eval_videos,
    )
    if config.eval.frames != "middle" or config.eval.stride != FPS:
        raise InputError(
            f"eval.frames is {config.eval.frames!r} and eval.stride {config.eval.stride}; expected "
            f"'middle' and {FPS}, AVA's keyframes (configs/ava.py)"
        )
    if config.eval.boxes not in ("detected", "annotated"):
        raise InputError(f"eval.boxes {config.eval.boxes!r}: expected one of detected, annotated")
    if config.eval.boxes == "annotated" and config.eval.tubes:
        raise InputError("eval.tubes: there are no tubelets where eval.boxes is 'annotated'")


def ava_folder(config: ConfigDict) -> AvaFolder:
    """AVA's annotation files."""
    if not config.data.annotations:
        raise InputError(
            "data.annotations is empty: give --config.data.annotations=DIR, the folder of AVA's "
            "annotation files"
        )
    check_local(config.data.annotations, what="data.annotations")
    return open_ava_folder(config.data.annotations, config.data.ava_version)


def classes_of(config: ConfigDict) -> tuple[str, ...]:
    """The classes that the records, or AVA's label map, name."""
    if config.data.ava_version:
        return ava_folder(config).label_map().names
    return records.load_info(records_folder(config)).classes


def check_tubes(
    config: ConfigDict, *, classes: tuple[str, ...], clip_frames: int, num_steps: int
) -> None:
    """Raises InputError for what tubes of such a detector cannot be made with."""
    if config.eval.frames != "all" and not config.data.ava_version:
        raise InputError(
            f"eval.tubes: eval.frames is {config.eval.frames!r}; tubes need all frames of a window"
        )
    steps = range(1, num_steps + 1)
    for step in config.eval.tube_steps:
        if step not in steps:
            raise InputError(f"eval.tube_steps: step {step}; the detector has steps {list(steps)}")
    if config.data.ava_version:
        return  # the tubelets alone
    header = TubeletHeader(
        classes=classes,
        clip_frames=clip_frames,
        stride=config.eval.stride,
        num_steps=num_steps,
        num_boxes=1,
    )
    check_options(tube_options(config).link, header)


def detection_limits(config: ConfigDict) -> DetectionLimits:
    return DetectionLimits(
        score_threshold=config.eval.score_threshold,
        per_class_top=config.eval.per_class_top,
        nms_threshold=config.eval.tubelet_nms,
        top=config.eval.clip_top,
        frames=config.eval.frames,
        inclusive_nms=config.eval.inclusive_nms,
    )


def clip_limits(config: ConfigDict) -> ClipLimits:
    """The same of a table of tubelets."""
    return ClipLimits(
        score_threshold=config.eval.score_threshold,
        per_class_top=config.eval.per_class_top,
        nms_threshold=config.eval.tubelet_nms,
        top=config.eval.clip_top,
    )


def keyframe_limits(config: ConfigDict) -> KeyframeLimits:
    """And of a table of AVA's tubelets."""
    return KeyframeLimits(
        score_threshold=config.eval.score_threshold,
        nms=config.eval.tubelet_nms,
        per_class_top=config.eval.per_class_top,
        top=config.eval.clip_top,
    )


def check_table(config: ConfigDict, table: epath.PathLike) -> None:
    """Raises InputError for tubelets of which the configuration wants what they cannot give."""
    if is_tubelet_table(table) and (config.eval.inclusive_nms or config.eval.frames != "all"):
        raise InputError(
            f"{table}: eval.inclusive_nms and eval.frames are not for tubelets; evaluate the "
            "table of detections"
        )


def protocol(config: ConfigDict) -> Protocol:
    return Protocol(
        iou_threshold=config.eval.iou_threshold,
        frame_nms=config.eval.frame_nms,
        tube_nms=config.eval.tube_nms,
        thresholds=check_thresholds(config.eval.video_map_thresholds),
        ap=check_ap_rule(config.eval.ap),
        frames=check_counted_frames(config.eval.counted_frames),
    )


def tube_options(config: ConfigDict) -> TubeOptions | None:
    """How tubes are made; None where none are wanted."""
    if not config.eval.tubes:
        return None
    link = config.eval.link.to_dict()
    for key, means_none in (("global_nms", 0), ("max_gap", -1), ("max_frames", 0)):
        if link[key] == means_none:
            link[key] = None
    return TubeOptions(link=LinkOptions(**link), trim=TrimOptions(**config.eval.trim.to_dict()))


def read_annotations(config: ConfigDict) -> Annotations:
    """The videos that are evaluated: those of `data.eval_videos` in `data.eval_split`."""
    if not config.data.annotations:
        raise InputError(
            "data.annotations is empty: give --config.data.annotations=FILE (native JSON)"
        )
    check_local(config.data.annotations, what="data.annotations")
    annotations = read_native(config.data.annotations)
    return select_videos(annotations, config.data.eval_videos, split=config.data.eval_split)


def identity(config: ConfigDict) -> dict[str, Any]:
    """What the result of an evaluation depends on besides the checkpoint, by key.

    `eval.batch_size` is not among it.
    """
    told = traverse_util.flatten_dict({"eval": config.eval.to_dict()}, sep=".")
    del told["eval.batch_size"]
    for key in ("eval_split", "eval_videos", "ava_version", "max_tubes"):
        told[f"data.{key}"] = config.data[key]
    return told | {
        "records": records.load_info(records_folder(config)).digest,
        "annotations": digest(*annotation_files(config)),
    }


def annotation_files(config: ConfigDict) -> list[epath.PathLike]:
    """Those that the evaluation reads."""
    if not config.data.ava_version:
        return [config.data.annotations]
    files, split = ava_folder(config), config.data.eval_split
    return [files.labels_path(split), files.exclusions_path(split), files.label_map_path()]
