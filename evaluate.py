"""Evaluates checkpoints: python evaluate.py --config=configs/moving_actors.py --workdir=DIR.

Without --config the run's own configuration is taken, which --config.KEY=VALUE changes too. Every
window of the evaluation split once; prints frame-mAP of every step and class and writes, for each
checkpoint, WORKDIR/eval/SPLIT/STEP/{detections.parquet, metrics.json}.

--watch evaluates checkpoints as a training run makes them, and ends when the training has ended.
--detections FILE computes the numbers again from a table, without the model.
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
from input_pipeline import records
from input_pipeline.accelerators import hide_accelerators
from step_jax import evaluations, parallel, run_folder
from step_jax.annotations import Annotations, read_native, select_videos
from step_jax.checkpoint import FOLDER, Checkpoints
from step_jax.cli import run_with_flags
from step_jax.detections import read_detections
from step_jax.errors import InputError
from step_jax.evaluation import DetectionLimits, write_table
from step_jax.inference import Predictor, restore_predictor
from step_jax.metrics.frame_map import evaluate_table, format_table

TABLE = "detections.parquet"


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
        report = evaluate_detections(config, options.detections)
        print(format_table(report))
        path = evaluations.write_metrics(epath.Path(options.detections).parent, report)
        print(f"wrote {path}")
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
    folder = evaluations.folder(workdir, split=config.data.eval_split, step=predictor.step)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    windows = write_table(
        folder / TABLE,
        predictor,
        evaluation_batches(config, predictor),
        stride=config.eval.stride,
        limits=detection_limits(config),
        provenance={"checkpoint": str(predictor.step), "split": config.data.eval_split},
    )
    seconds = time.monotonic() - start
    report = evaluate_detections(config, folder / TABLE)
    report |= {"checkpoint": predictor.step, "windows": windows, "seconds": round(seconds, 2)}
    evaluations.write_metrics(folder, report)
    print(f"checkpoint {predictor.step}: {windows} windows in {seconds:.1f} s, {folder}")
    print(format_table(report), flush=True)
    return report


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
    records.load_index(records_folder(config), config.data.eval_split)
    read_annotations(config)


def detection_limits(config: ConfigDict) -> DetectionLimits:
    return DetectionLimits(
        score_threshold=config.eval.score_threshold,
        per_class_top=config.eval.per_class_top,
        nms_threshold=config.eval.tubelet_nms,
        top=config.eval.clip_top,
        frames=config.eval.frames,
        inclusive_nms=config.eval.inclusive_nms,
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


def evaluate_detections(config: ConfigDict, table: epath.PathLike) -> dict[str, Any]:
    """Frame-mAP of every step from a detections table; "score" is the last step's mean."""
    report = evaluate_table(
        read_detections(table),
        read_annotations(config),
        config.data.eval_split,
        iou_threshold=config.eval.iou_threshold,
        nms_threshold=config.eval.frame_nms,
    )
    return {"score": report["steps"][-1]["mean"], **report}


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
        done = {step for split, step in evaluations.read_metrics(workdir)
                if split == config.data.eval_split}  # fmt: skip
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
