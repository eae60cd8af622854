"""Evaluates checkpoints: python evaluate.py --config=configs/moving_actors.py --workdir=DIR.

Without --config the run's own configuration is taken, which --config.KEY=VALUE changes too. Every
window of the evaluation split once; prints frame-mAP of every step and class and writes, for each
checkpoint, WORKDIR/eval/SPLIT/STEP/{detections.parquet, metrics.json}. With --config.eval.tubes
also video-mAP, and {tubelets, tubes, tubes_trimmed, report}.parquet and report.png.

Of AVA (--config.data.ava_version) every keyframe once, the official table, and detections.csv in
the official form; docs/ava.md.

--watch evaluates checkpoints as a training run makes them, and ends when the training has ended.
--detections FILE computes the numbers again from a table of detections or tubelets, without the
model.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import tqdm
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from configs import common
from input_pipeline import keyframes, records
from input_pipeline.accelerators import hide_accelerators
from step_jax import evaluations, parallel, run_folder
from step_jax.annotated_boxes import write_annotated
from step_jax.annotations import Annotations, read_native, select_videos
from step_jax.annotations.ava_folder import AvaFolder, open_ava_folder
from step_jax.annotations.ava_time import FPS
from step_jax.checkpoint import FOLDER, Checkpoints
from step_jax.cli import run_with_flags
from step_jax.detected_keyframes import KeyframeLimits, check_classes
from step_jax.errors import InputError
from step_jax.evaluation import DetectionLimits, write_table
from step_jax.inference import Predictor, restore_predictor
from step_jax.linking import LinkOptions, check_options
from step_jax.metrics.ava import evaluation as ava_evaluation
from step_jax.metrics.average_precision import check_ap_rule
from step_jax.metrics.frame_tally import check_counted_frames
from step_jax.metrics.ucf101_24 import evaluation as ucf_evaluation
from step_jax.metrics.ucf101_24.protocol import ClipLimits, Protocol
from step_jax.metrics.ucf101_24.results import TubeOptions
from step_jax.metrics.video_map import check_thresholds
from step_jax.trimming import TrimOptions
from step_jax.tubelet_table import TubeletHeader, is_tubelet_table

TABLE = "detections.parquet"
TUBELETS = "tubelets.parquet"


def define_flags() -> None:
    """Only when this file is the program: train.py imports it and has flags of its own."""
    help_text = "Configuration; the run's own if left out. Its keys: --config.KEY=VALUE."
    own = configuration_of_run(sys.argv[1:])
    if own is None:
        config_flags.DEFINE_config_file("config", None, help_text, lock_config=True)
    else:
        config_flags.DEFINE_config_dict("config", own, help_text, lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the training run.")
    flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
    flags.DEFINE_boolean("watch", False, "Evaluate checkpoints as they appear.")
    flags.DEFINE_string("detections", None, "Evaluate this table, without a model.")
    flags.DEFINE_float("poll_seconds", 5.0, "How often --watch looks for a new checkpoint.")


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


def main() -> None:
    options = flags.FLAGS
    if not options.workdir:
        raise InputError("--workdir is missing: give the folder of the training run")
    workdir = epath.Path(options.workdir)
    config = options.config or read_configuration(workdir)
    if options.detections:
        folder = epath.Path(options.detections).parent
        report, text = evaluate_table(config, folder, options.detections)
        print(text)
        print(f"wrote {evaluations.write_metrics(folder, report)}")
        return
    if options.watch:
        wait_for_training(workdir, poll_seconds=options.poll_seconds)
    checkpoints = Checkpoints(workdir, read_only=True)
    if options.watch:
        watch(config, workdir, checkpoints, poll_seconds=options.poll_seconds)
        return
    step = checkpoints.find(options.checkpoint)
    evaluate_checkpoint(config, workdir, restore_predictor(checkpoints, step))


def evaluate_checkpoint(
    config: ConfigDict, workdir: epath.Path, predictor: Predictor
) -> dict[str, Any]:
    """Runs the detector over the evaluation split; prints and writes the result, returns it."""
    check_config(config)
    if config.eval.tubes:
        check_tubes(config, predictor)
    folder = evaluations.folder(
        workdir,
        split=config.data.eval_split,
        videos=config.data.eval_videos,
        step=predictor.step,
    )
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    windows = write_tables(config, folder, predictor)
    seconds = time.monotonic() - start
    print(f"checkpoint {predictor.step}: {windows} windows in {seconds:.1f} s, {folder}")
    tubelets = folder / TUBELETS if config.eval.tubes else None
    report, text = evaluate_table(config, folder, folder / TABLE, tubelets)
    print(text, flush=True)
    report |= {"checkpoint": predictor.step, "windows": windows, "seconds": round(seconds, 2)}
    evaluations.write_metrics(folder, report)
    return report


def write_tables(config: ConfigDict, folder: epath.Path, predictor: Predictor) -> int:
    """The table of detections, and that of tubelets if it is wanted; returns the windows."""
    provenance = {"checkpoint": str(predictor.step), "split": config.data.eval_split}
    if config.data.ava_version:
        provenance |= {
            "ava_version": config.data.ava_version,
            "image_size": str(predictor.image_size),
        }
    batches = evaluation_batches(config, predictor)
    common = {"stride": config.eval.stride, "provenance": provenance}
    if config.eval.boxes == "annotated":
        return write_annotated(folder / TABLE, predictor, batches, **common)
    return write_table(
        folder / TABLE,
        predictor,
        batches,
        **common,
        limits=detection_limits(config),
        tubelets=folder / TUBELETS if config.eval.tubes else None,
        tubelet_steps=config.eval.tube_steps,
    )


def part(config: ConfigDict) -> str:
    """What is evaluated, as the folder of its results is called."""
    return evaluations.part(config.data.eval_split, config.data.eval_videos)


def records_folder(config: ConfigDict) -> str:
    if not config.data.records:
        raise InputError(
            "data.records is empty: give --config.data.records=DIR, which "
            "`python -m input_pipeline.prepare` made"
        )
    return config.data.records


def check_config(config: ConfigDict) -> None:
    """Raises InputError for what would otherwise come to light after the detector's work."""
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
        return
    if config.eval.boxes != "detected":
        raise InputError(f"eval.boxes {config.eval.boxes!r}: expected 'detected'; others are AVA's")
    read_annotations(config)


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
    return open_ava_folder(config.data.annotations, config.data.ava_version)


def classes_of(config: ConfigDict) -> tuple[str, ...]:
    """The classes that the records, or AVA's label map, name."""
    if config.data.ava_version:
        return ava_folder(config).label_map().names
    return records.load_info(records_folder(config)).classes


def check_tubes(config: ConfigDict, predictor: Predictor) -> None:
    """Raises InputError for what tubes cannot be made with."""
    if config.eval.frames != "all" and not config.data.ava_version:
        raise InputError(
            f"eval.tubes: eval.frames is {config.eval.frames!r}; tubes need all frames of a window"
        )
    steps = range(1, predictor.num_steps + 1)
    for step in config.eval.tube_steps:
        if step not in steps:
            raise InputError(f"eval.tube_steps: step {step}; the detector has steps {list(steps)}")
    if config.data.ava_version:
        return  # the tubelets alone
    header = TubeletHeader(
        classes=predictor.classes,
        clip_frames=predictor.clip_frames,
        stride=config.eval.stride,
        num_steps=predictor.num_steps,
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


def check_table(config: ConfigDict, table: epath.PathLike) -> None:
    """Raises InputError for tubelets of which the configuration wants what they cannot give."""
    if is_tubelet_table(table) and (config.eval.inclusive_nms or config.eval.frames != "all"):
        raise InputError(
            f"{table}: eval.inclusive_nms and eval.frames are not for tubelets; evaluate the "
            f"table of detections, {TABLE}"
        )


def evaluation_batches(config: ConfigDict, predictor: Predictor):
    """The windows of the evaluation split, under a progress bar."""
    hide_accelerators()
    from input_pipeline.pipeline import eval_batches, num_eval_batches  # TensorFlow

    windows = {
        "split": config.data.eval_split,
        "clip_frames": predictor.clip_frames,
        "stride": config.eval.stride,
        "batch_size": config.eval.batch_size,
        "videos": config.data.eval_videos,
        "keyframes": evaluation_keyframes(config, predictor),
    }
    total = num_eval_batches(config.data.records, **windows)
    batches = eval_batches(
        config.data.records,
        **windows,
        input_frames=predictor.input_frames,
        image_size=predictor.image_size,
        modality=predictor.modality.name,
        flow_frames=predictor.modality.flow_frames,
        max_tubes=config.data.max_tubes,
        num_threads=config.data.threads,
    )
    return tqdm.tqdm(batches, total=total, desc="evaluating", unit="batch")


def evaluation_keyframes(
    config: ConfigDict, predictor: Predictor
) -> keyframes.KeyframeLabels | None:
    """The keyframes of AVA, None of other data sets; says what of them is read."""
    if not config.data.ava_version:
        return None
    files, split = ava_folder(config), config.data.eval_split
    with_people = config.eval.boxes == "annotated"
    labels = keyframes.evaluation_labels(files, split, with_people=with_people)
    check_classes(predictor.classes, files.label_map(), where=f"checkpoint {predictor.step}")
    options = {"clip_frames": predictor.clip_frames, "videos": config.data.eval_videos}
    for line in keyframes.describe(labels, config.data.records, split, **options):
        print(line, flush=True)
    return labels


def evaluate_table(
    config: ConfigDict,
    folder: epath.Path,
    table: epath.PathLike,
    tubelets: epath.PathLike | None = None,
) -> tuple[dict[str, Any], str]:
    """The report for `metrics.json` and the text to print; the other results go into `folder`.

    table: of detections or of tubelets. tubelets: those beside a table of detections, for tubes.
    """
    if config.data.ava_version:
        return evaluate_ava(config, folder, table)
    annotations, split = read_annotations(config), config.data.eval_split
    options = {"protocol": protocol(config), "tubes": tube_options(config)}
    if tubelets is not None:
        results, provenance = ucf_evaluation.evaluate_both(
            table, tubelets, annotations, split, **options
        )
    else:
        check_table(config, table)
        results, provenance = ucf_evaluation.evaluate_table(
            table,
            annotations,
            split,
            limits=clip_limits(config),
            tube_steps=config.eval.tube_steps,
            **options,
        )
    report = ucf_evaluation.make_metrics(results, ap=config.eval.ap, provenance=provenance)
    ucf_evaluation.write_results(folder, results, report)
    return report, ucf_evaluation.text_of(report)


def evaluate_ava(
    config: ConfigDict, folder: epath.Path, table: epath.PathLike
) -> tuple[dict[str, Any], str]:
    """The same of AVA: the official table, the last step's detections in the official form."""
    results, provenance = ava_evaluation.evaluate_table(
        table,
        ava_folder(config),
        config.data.eval_split,
        protocol=config.eval.ava_protocol,
        videos=config.data.eval_videos,
        limits=KeyframeLimits(
            score_threshold=config.eval.score_threshold,
            nms=config.eval.tubelet_nms,
            per_class_top=config.eval.per_class_top,
            top=config.eval.clip_top,
        ),
        csv=folder / ava_evaluation.DETECTIONS_CSV,
    )
    ava_evaluation.write_page(folder, results)
    version = config.data.ava_version
    report = ava_evaluation.make_metrics(results, version=version, provenance=provenance)
    return report, ava_evaluation.text_of(results, version=version)


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
    annotations = read_native(config.data.annotations)
    return select_videos(annotations, config.data.eval_videos, split=config.data.eval_split)


def wait_for_training(workdir: epath.Path, *, poll_seconds: float) -> None:
    """Until there is a folder of checkpoints: both jobs may be started together."""
    if not (workdir / FOLDER).exists():
        print(f"waiting for {workdir / FOLDER}", flush=True)
    while not (workdir / FOLDER).exists():
        time.sleep(poll_seconds)


def watch(
    config: ConfigDict, workdir: epath.Path, checkpoints: Checkpoints, *, poll_seconds: float
) -> None:
    """Evaluates each checkpoint once, in order, until the last one of a finished training."""
    while True:
        finished = run_folder.finished_step(workdir)
        done = {step for name, step in evaluations.read_metrics(workdir) if name == part(config)}
        for step in checkpoints.steps():
            if step in done:
                continue
            try:
                predictor = restore_predictor(checkpoints, step)
            except InputError:
                if step in checkpoints.steps():
                    raise
                continue  # training went on and deleted it meanwhile
            evaluate_checkpoint(config, workdir, predictor)
        if finished is not None:
            return
        time.sleep(poll_seconds)


if __name__ == "__main__":
    run_with_flags(main, define=define_flags)
