"""Evaluates checkpoints: python evaluate.py --config=configs/moving_actors.py --workdir=DIR.

Without --config the run's own configuration is taken, which --config.KEY=VALUE changes too. Every
window of the evaluation split once; prints frame-mAP of every step and class and writes, for each
checkpoint, WORKDIR/eval/SPLIT/STEP/{detections.parquet, metrics.json}. With --config.eval.tubes
also video-mAP, and {tubelets, tubes, tubes_trimmed, report}.parquet and report.png.

Of AVA (--config.data.ava_version) every keyframe once, the official table, and detections.csv in
the official form; docs/ava.md.

--watch evaluates checkpoints as a training run makes them, and ends when the training has ended.
--shard I/N, with or without it, evaluates a share of the windows; the last of N jobs merges them.
--detections FILE [--output DIR] computes the numbers again from a table of detections or tubelets,
without the model.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import tqdm
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from input_pipeline import keyframes
from input_pipeline.accelerators import hide_accelerators
from programs import evaluation_config
from step_jax import compilation_cache, evaluations, hosts, run_folder
from step_jax.annotated_boxes import write_annotated
from step_jax.checkpoint import Checkpoints
from step_jax.cli import run_with_flags
from step_jax.detected_keyframes import check_classes
from step_jax.digests import digest
from step_jax.errors import InputError
from step_jax.evaluation import write_table
from step_jax.evaluation_shards import (
    TABLE,
    TUBELETS,
    WHOLE,
    Shards,
    Share,
    complete_shards,
    is_evaluated,
    is_share_complete,
)
from step_jax.inference import Predictor, predictor_for_all, restore_predictor
from step_jax.metrics.ava import evaluation as ava_evaluation
from step_jax.metrics.ucf101_24 import evaluation as ucf_evaluation
from step_jax.stop_signal import StopSignal
from step_jax.storage import check_local, open_folder
from step_jax.watching import Watch, wait_for_training


def define_flags() -> None:
    """Only when this file is the program: train.py imports it and has flags of its own."""
    help_text = "Configuration; the run's own if left out. Its keys: --config.KEY=VALUE."
    own = evaluation_config.configuration_of_run(sys.argv[1:])
    if own is None:
        config_flags.DEFINE_config_file("config", None, help_text, lock_config=True)
    else:
        config_flags.DEFINE_config_dict("config", own, help_text, lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the training run.")
    flags.DEFINE_string("checkpoint", "latest", "latest, best, or a step.")
    flags.DEFINE_boolean("watch", False, "Evaluate checkpoints as they appear.")
    flags.DEFINE_string("compilation_cache", None, compilation_cache.HELP)
    flags.DEFINE_string("detections", None, "Evaluate this table, without a model.")
    flags.DEFINE_string("output", None, "Folder of what --detections makes (the table's own).")
    flags.DEFINE_float(
        "poll_seconds", 5.0, "How often --watch looks for a new checkpoint.", lower_bound=0.1
    )
    flags.DEFINE_string("shard", None, "I/N: the I-th of N shares; the last job merges them.")
    hosts.define_flags()


def main() -> None:
    options = flags.FLAGS
    if not options.workdir:
        raise InputError("--workdir is missing: give the folder of the training run")
    workdir = open_folder(options.workdir, flag="--workdir")
    compilation_cache.keep_programs(options.compilation_cache)
    share = Share.parse(options.shard) if options.shard is not None else None
    if hosts.initialise_from_flags():
        if options.watch or options.shard or options.detections:
            raise InputError(
                "--multihost: not with --watch, --shard or --detections, which are of one process "
                "each; several that watch share the work by --shard"
            )
        with hosts.together():
            evaluate_together(options.config, workdir, options.checkpoint)
        return
    if options.watch:
        with StopSignal() as stop:
            stop.run_interruptibly(lambda: watch(options.config, workdir, share, stop))
        return
    config = options.config or evaluation_config.read_configuration(workdir)
    if options.detections:
        folder = folder_of_table(options.detections, output=options.output)
        report, text = evaluate_table(config, folder, options.detections)
        print(text)
        print(f"wrote {evaluations.write_metrics(folder, report)}")
        return
    checkpoints = Checkpoints(workdir, read_only=True)
    predictor = restore_predictor(checkpoints, checkpoints.find(options.checkpoint))
    evaluate_one(config, workdir, predictor, share)


def folder_of_table(table: str, *, output: str | None) -> epath.Path:
    """Where what is made of a table goes. Raises InputError rather than replace an evaluation."""
    check_local(table, what="--detections")
    folder = epath.Path(table).parent if output is None else open_folder(output, flag="--output")
    if evaluations.is_of_checkpoint(folder):
        raise InputError(
            f"{folder / evaluations.METRICS}: is of a checkpoint, which training and --watch go "
            "by; give another --output=DIR for what is made of the table alone"
        )
    return folder


def evaluate_one(
    config: ConfigDict, workdir: epath.Path, predictor: Predictor, share: Share | None
) -> None:
    """A checkpoint, all of it or a share."""
    if share is None:
        evaluate_checkpoint(config, workdir, predictor)
    else:
        evaluate_as_job(config, workdir, predictor, share)


def watch(
    config: ConfigDict | None, workdir: epath.Path, share: Share | None, stop: StopSignal
) -> None:
    """Evaluates each checkpoint, or a share of it, once, in order, until training has ended."""
    poll_seconds = flags.FLAGS.poll_seconds
    wait_for_training(workdir, poll_seconds=poll_seconds)
    config = config or evaluation_config.read_configuration(workdir)
    evaluation_config.check_config(config)
    part = evaluation_config.part(config)
    results = workdir / evaluations.FOLDER / part
    identity = evaluation_config.identity(config)
    shared = {"share": share, "identity": identity}

    def evaluate_and_tell(predictor: Predictor) -> None:
        evaluate_one(config, workdir, predictor, share)
        print(evaluations.describe_best(workdir, part), flush=True)

    def is_done(step: int) -> bool:
        return is_evaluated(results / str(step), identity=identity) or (
            share is not None and is_share_complete(results / str(step), **shared)
        )

    def merge_what_is_left() -> None:
        """Of jobs that were killed before they could."""
        if share is not None:
            for shards in complete_shards(results, **shared):
                merge_shares(config, shards)

    Watch(
        workdir,
        evaluate=evaluate_and_tell,
        is_done=is_done,
        when_idle=merge_what_is_left,
        is_stopped=lambda: stop.requested is not None,
        poll_seconds=poll_seconds,
    ).run()


def evaluate_together(config: ConfigDict | None, workdir: epath.Path, checkpoint: str) -> None:
    """What one process of several does: the first reads the checkpoint, all share the windows."""
    config = config or evaluation_config.read_configuration(workdir)
    run_folder.check_processes(config.to_dict())
    predictor = description = None
    if hosts.is_writer():
        checkpoints = Checkpoints(workdir, read_only=True)
        step = checkpoints.find(checkpoint)
        predictor = restore_predictor(checkpoints, step)
        description = checkpoints.describe(step)
    evaluate_checkpoint(config, workdir, predictor_for_all(predictor, description))


def evaluate_checkpoint(
    config: ConfigDict, workdir: epath.Path, predictor: Predictor
) -> dict[str, Any]:
    """Runs the detector over the evaluation split; prints and writes the result, returns it.

    Several processes call it together, and share the windows.
    """
    share = Share(jax.process_index() + 1, jax.process_count())
    shards = open_shards(config, workdir, predictor, count=share.count)
    evaluate_share(config, shards, predictor, share)
    hosts.barrier("evaluated")
    report = merge_shares(config, shards) if hosts.is_writer() else None
    return hosts.writers("report", report)


def evaluate_as_job(
    config: ConfigDict, workdir: epath.Path, predictor: Predictor, share: Share
) -> None:
    """A share of the same, unless it is complete; the job that finds all complete merges them."""
    shards = open_shards(config, workdir, predictor, count=share.count)
    shards.join()
    if shards.result():
        print(f"checkpoint {predictor.step}: is evaluated, {shards.folder}", flush=True)
        return
    if shards.is_complete(share):
        print(f"checkpoint {predictor.step}, share {share}: is complete", flush=True)
    else:
        evaluate_share(config, shards, predictor, share)
    missing = shards.missing()
    if shards.result() or not missing:
        merge_shares(config, shards)
    else:
        others = ", ".join(map(str, missing))
        print(f"checkpoint {predictor.step}: not complete yet: share {others}", flush=True)


def open_shards(
    config: ConfigDict, workdir: epath.Path, predictor: Predictor, *, count: int = 1
) -> Shards:
    """An evaluation in so many shares. Raises InputError for what cannot be evaluated."""
    evaluation_config.check_config(config)
    if config.eval.tubes:
        evaluation_config.check_tubes(
            config,
            classes=predictor.classes,
            clip_frames=predictor.clip_frames,
            num_steps=predictor.num_steps,
        )
    data = config.data
    options = {"split": data.eval_split, "videos": data.eval_videos, "step": predictor.step}
    identity = evaluation_config.identity(config) | {
        "checkpoint": predictor.step,
        "parameters": digest(predictor.variables),
    }
    return Shards(evaluations.folder(workdir, **options), count=count, identity=identity)


def evaluate_share(config: ConfigDict, shards: Shards, predictor: Predictor, share: Share) -> None:
    """The detector's work on a share of the windows, from the beginning."""
    start = time.monotonic()
    with shards.unless_merged(), shards.work(share) as folder:
        told = write_tables(config, folder, predictor, share)
        windows, seconds = told["windows"], time.monotonic() - start
        shards.finish(share, {**told, "seconds": seconds})
        part = "" if share == WHOLE else f", share {share}"
        text = f"checkpoint {predictor.step}{part}: {windows} windows in {seconds:.1f} s"
        print(f"{text}, {shards.folder}", flush=True)


def merge_shares(config: ConfigDict, shards: Shards) -> dict[str, Any]:
    """The tables of all shares as one; prints and writes the result, returns it."""
    with shards.unless_merged(), shards.merging() as folder:
        tubelets = folder / TUBELETS if config.eval.tubes else None
        report, text = evaluate_table(config, folder, folder / TABLE, tubelets)
        told = shards.told()
        report |= {
            "checkpoint": shards.identity["checkpoint"],
            "windows": sum(share["windows"] for share in told),
            "seconds": round(sum(share["seconds"] for share in told), 2),
            "skipped": skipped_windows(told),
            "identity": shards.identity,
        }
        evaluations.write_metrics(folder, report)
        print(text, flush=True)
        if skipped := len(report["skipped"]):
            print(f"without {skipped} windows of damaged records, which metrics.json lists")
    return shards.result()


def skipped_windows(shares: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of damaged records, of all shares, in the order of videos and frames."""
    windows = [window for share in shares for window in share["skipped"]]
    return sorted(windows, key=lambda window: (window["video"], window["start"]))


def write_tables(
    config: ConfigDict, folder: epath.Path, predictor: Predictor, share: Share
) -> dict[str, Any]:
    """The table of detections, and that of tubelets if it is wanted.

    Returns how many windows they are of, and which were skipped, JSON-ready.
    """
    provenance = {"checkpoint": str(predictor.step), "split": config.data.eval_split}
    if config.data.ava_version:
        provenance |= {
            "ava_version": config.data.ava_version,
            "image_size": str(predictor.image_size),
        }
    batches, skipped = evaluation_batches(config, predictor, share)
    common = {"stride": config.eval.stride, "provenance": provenance}
    if config.eval.boxes == "annotated":
        windows = write_annotated(folder / TABLE, predictor, batches, **common)
    else:
        windows = write_table(
            folder / TABLE,
            predictor,
            batches,
            **common,
            limits=evaluation_config.detection_limits(config),
            tubelets=folder / TUBELETS if config.eval.tubes else None,
            tubelet_steps=config.eval.tube_steps,
        )
    return {"windows": windows, "skipped": [dataclasses.asdict(window) for window in skipped]}


def evaluation_batches(config: ConfigDict, predictor: Predictor, share: Share):
    """A share of the evaluation split's windows, under a progress bar; and those skipped so far."""
    hide_accelerators()
    from input_pipeline.pipeline import eval_batches, num_eval_batches  # TensorFlow

    windows = {
        "split": config.data.eval_split,
        "clip_frames": predictor.clip_frames,
        "stride": config.eval.stride,
        "batch_size": config.eval.batch_size // jax.process_count(),
        "videos": config.data.eval_videos,
        "keyframes": evaluation_keyframes(config, predictor),
        "process_count": share.count,
    }
    total = num_eval_batches(config.data.records, **windows)
    batches = eval_batches(
        config.data.records,
        **windows,
        process_index=share.number - 1,
        input_frames=predictor.input_frames,
        image_size=predictor.image_size,
        modality=predictor.modality.name,
        flow_frames=predictor.modality.flow_frames,
        max_tubes=config.data.max_tubes,
        num_threads=config.data.threads,
        max_damaged=config.data.max_damaged,
        tell=tqdm.tqdm.write if hosts.is_writer() else hosts.say,
    )
    quiet = not hosts.is_writer()
    shown = tqdm.tqdm(batches, total=total, desc="evaluating", unit="batch", disable=quiet)
    # Small shares end with batches that only make their number the same everywhere.
    return (batch for batch in shown if batch["example_mask"].any()), batches.skipped


def evaluation_keyframes(
    config: ConfigDict, predictor: Predictor
) -> keyframes.KeyframeLabels | None:
    """The keyframes of AVA, None of other data sets; says what of them is read."""
    if not config.data.ava_version:
        return None
    files, split = evaluation_config.ava_folder(config), config.data.eval_split
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
    annotations, split = evaluation_config.read_annotations(config), config.data.eval_split
    options = {
        "protocol": evaluation_config.protocol(config),
        "tubes": evaluation_config.tube_options(config),
    }
    if tubelets is not None:
        results, provenance = ucf_evaluation.evaluate_both(
            table, tubelets, annotations, split, **options
        )
    else:
        evaluation_config.check_table(config, table)
        results, provenance = ucf_evaluation.evaluate_table(
            table,
            annotations,
            split,
            limits=evaluation_config.clip_limits(config),
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
        evaluation_config.ava_folder(config),
        config.data.eval_split,
        protocol=config.eval.ava_protocol,
        videos=config.data.eval_videos,
        limits=evaluation_config.keyframe_limits(config),
        csv=folder / ava_evaluation.DETECTIONS_CSV,
    )
    ava_evaluation.write_page(folder, results)
    version = config.data.ava_version
    report = ava_evaluation.make_metrics(results, version=version, provenance=provenance)
    return report, ava_evaluation.text_of(results, version=version)


if __name__ == "__main__":
    run_with_flags(main, define=define_flags)
