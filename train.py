"""Trains a detector: python train.py --config=configs/moving_actors.py --workdir=DIR.

Keys of the configuration are changed by --config.KEY=VALUE. The same command continues a run that
was interrupted, with the same result as if it had not been.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

import evaluate
import evaluation_config
from input_pipeline import keyframes, records
from input_pipeline.accelerators import hide_accelerators
from step_jax import (
    compilation_cache,
    evaluations,
    failures,
    hosts,
    inference,
    parallel,
    profiling,
    proposals,
    replay,
    run_folder,
    source_clips,
    transfer,
)
from step_jax.accumulation import check_accumulation
from step_jax.checkpoint import Checkpoints
from step_jax.cli import INTERRUPTED, run_with_flags
from step_jax.errors import InputError
from step_jax.files import check_folder
from step_jax.loss_options import LossOptions
from step_jax.modality import Modality
from step_jax.models.factory import build_detector, check_modality, input_frames
from step_jax.optimizer import (
    describe_groups,
    group_factors,
    make_optimizer,
    make_schedule,
    rate_factors,
    rate_table,
    scaled_rate,
)
from step_jax.startup import Startup, process_seconds
from step_jax.stop_signal import StopSignal
from step_jax.train_state import TrainState, create_train_state, init_variables
from step_jax.train_step import make_train_step, share_of_gradients
from step_jax.training_log import TrainingLog
from step_jax.visualize.at_end import drawing_summary


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "Configuration file.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run, made if missing.")
    flags.DEFINE_string("replay", None, "Make a failed step again: a file of WORKDIR/failures.")
    flags.DEFINE_string("compilation_cache", None, compilation_cache.HELP)
    flags.DEFINE_string("profile", None, profiling.HELP)
    hosts.define_flags()


def main() -> int:
    options = flags.FLAGS
    if not options.workdir:
        raise InputError("--workdir is missing: give the folder of the run, made if missing")
    check_folder(options.workdir, flag="--workdir")
    compilation_cache.keep_programs(options.compilation_cache)
    if options.replay:
        config = options.config or evaluation_config.read_configuration(options.workdir)
        return replay_step(config, options.replay)
    if options.config is None:
        raise InputError("--config is missing: give a file, e.g. configs/moving_actors.py")
    startup = Startup(import_seconds=process_seconds(), command=sys.argv)
    profile = profiling.parse(options.profile)
    workdir = epath.Path(options.workdir)
    hosts.initialise_from_flags()
    with hosts.together():
        return train(options.config, workdir, startup=startup, profile=profile)


def train(
    config: ConfigDict,
    workdir: epath.Path,
    *,
    startup: Startup | None = None,
    profile: profiling.Wanted | None = None,
) -> int:
    """Trains to the end, or to a signal; returns the exit status."""
    startup = startup or Startup()
    with StopSignal() as stop:
        return train_until(stop, config, workdir, startup=startup, profile=profile)


def train_until(
    stop: StopSignal,
    config: ConfigDict,
    workdir: epath.Path,
    *,
    startup: Startup,
    profile: profiling.Wanted | None,
) -> int:
    run_folder.check_processes(config.to_dict())
    check_config(config)
    info = records.load_info(evaluation_config.records_folder(config))
    modality = modality_of(config)
    info.check_modality(modality, config.data.records)
    keyframes.check_kind(info, config.data.records, joins_labels=bool(config.data.ava_version))
    classes, labels = evaluation_config.classes_of(config), training_keyframes(config)

    # The model and its step; a wrong configuration comes to light here, before anything is written.
    detector = build_detector(num_classes=len(classes), **config.model.to_dict())
    detector.backbone.check_side(config.data.image_size)
    check_modality(detector, modality)
    schedule, optimizer = schedule_of(config), optimizer_of(config)
    tubes = initial_tubes(config, detector.plan.chunk)
    options = LossOptions(**config.loss.to_dict())
    train_step = make_train_step(
        detector, optimizer, proposals=tubes, options=options, accumulate=config.train.accumulate
    )
    key = jax.random.key(config.seed)

    def initialise() -> Any:
        side = config.data.image_size
        return init_variables(detector, image_size=side, num_proposals=len(tubes), key=key)

    shapes = jax.eval_shape(initialise)
    check_groups(config, shapes["params"])
    check_accumulation(config.train.accumulate, shapes)

    # The state: new, of another run's parameters, or of the last checkpoint. One process has it.
    state = create_train_state(initialise(), optimizer)
    startup.done("parameters")
    if hosts.is_writer():
        run_folder.open_for_training(workdir, config.to_dict())
        run_folder.write_parameters(workdir, shapes)
        print_groups(config, shapes["params"])
        checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
        continues = checkpoints.latest_step() is not None
        if config.train.init_from:
            variables = initialised_from(config, state.variables, continues=continues)
            state = create_train_state(variables, optimizer)
        if continues:
            state = checkpoints.restore_latest(like=state)
            startup.done("restore")
            print(f"continuing from checkpoint {int(state.step)}", flush=True)
    state = parallel.replicate(hosts.broadcast(state))
    start = int(state.step)
    traced = profile and profile.steps(start=start, total=config.train.steps)

    # The data that it continues with, and what is told on the way.
    step_function = parallel.data_parallel(train_step, donate=True)
    batches = training_batches(
        config, input_frames(detector), keyframe_labels=labels, start_step=start
    )
    inputs = parallel.prefetch(enumerate(batches, start + 1), lambda item: for_step(*item))
    description = inference.describe(
        model=config.model.to_dict(),
        classes=classes,
        image_size=config.data.image_size,
        fps=config.data.fps,
        proposals=config.proposals,
        modality=modality,
        flow=info.flow,
        flow_side=info.flow_side,
    )
    log = TrainingLog(
        workdir,
        writes=hosts.is_writer(),
        start_step=start,
        total_steps=config.train.steps,
        batch_size=config.train.batch_size,
        every=config.train.log_every_steps,
        learning_rate=rate_table(schedule, config.train.steps).item,
        group_factors=group_factors_of(config, shapes["params"]),
        startup=startup,
    )

    def save(state: TrainState) -> None:
        log.flush()  # a state made from a broken loss is not saved
        if hosts.is_writer():
            with log.paused():
                checkpoints.save(state, description)
                checkpoints.wait()

    def evaluate_now(step: int) -> None:
        predictor = inference.predictor_of(description, state.variables, step=step)
        report = evaluate.evaluate_checkpoint(config, workdir, predictor)
        log.add_scalars(step, evaluation_scalars(report))

    def evaluate_unless_stopped(step: int) -> None:
        with log.paused():
            stop.run_interruptibly(lambda: evaluate_now(step))

    folder = workdir / profiling.FOLDER
    traced = traced if hosts.is_writer() else None
    trace = profiling.Profile(traced, folder, wait=log.flush, paused=log.paused)
    page = drawing_summary(workdir, wanted=config.train.summary and hosts.is_writer())
    recorder = failures.FailureRecorder(workdir, key=key, classes=len(classes))
    with page, log, trace, recorder:
        stop.begin()
        step, vote = start, hosts.StopVote()
        stopping = hosts.any_stops(stop.requested)
        if start and is_evaluation_due(config, start) and not is_evaluated(config, workdir, start):
            evaluate_unless_stopped(start)  # the run was interrupted there
            stopping = hosts.any_stops(stop.requested)
        while step < config.train.steps and not stopping:
            step += 1
            with trace.step(step):
                (_, batch), given = timed(inputs, log)
                state, metrics = step_function(state, given, key)
                recorder.remember(step, batch, state)
                log.add(metrics)
            stopping = vote(stop.requested)  # looked at once: a signal may come at any moment
            if stopping or is_checkpoint_due(config, step):
                save(state)
                stopping = hosts.any_stops(stop.requested)  # all that there is has been saved
            if not stopping and is_evaluation_due(config, step):
                evaluate_unless_stopped(step)
                stopping = hosts.any_stops(stop.requested)
    if hosts.is_writer():
        checkpoints.close()
    if stopping:
        saved = f"saved checkpoint {step}" if step else "nothing to save yet"
        print(f"{stopping}: {saved}; the same command continues")
        return INTERRUPTED if stopping == "SIGINT" else 0
    if hosts.is_writer():
        run_folder.mark_finished(workdir, step=step)
    print(f"trained {step} steps; checkpoints in {workdir}")
    return 0


def replay_step(config: ConfigDict, path: str) -> int:
    """Makes a failed step again and tells what of it is not finite; returns the exit status."""
    failure = failures.load(path)
    detector = build_detector(num_classes=failure.classes, **config.model.to_dict())
    tubes = initial_tubes(config, detector.plan.chunk)
    options = LossOptions(**config.loss.to_dict())

    def gradient_of(state: TrainState, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        return share_of_gradients(state, detector, tubes, batch, key, options=options)[:2]

    def initialise() -> Any:
        side = config.data.image_size
        return init_variables(
            detector, image_size=side, num_proposals=len(tubes), key=jax.random.key(config.seed)
        )

    found = replay.replay(failure, variables=jax.eval_shape(initialise), gradient_of=gradient_of)
    for line in found.lines():
        print(line)
    again = "and again" if found.is_reproduced else "but this time it and its gradients are finite"
    print(f"{failure.reason}, {again}")
    return 1 if found.is_reproduced else 0


def check_config(config: ConfigDict) -> None:
    """What would otherwise come to light only after the first steps."""
    train = config.train
    parallel.check_batch_size(train.batch_size, accumulate=max(train.accumulate, 1))
    for name in ("steps", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"):
        if train[name] < 1:
            raise InputError(f"train.{name} is {train[name]}; expected 1 or more")
    if train.eval_every_steps > 0:
        evaluation_config.check_config(config)


def modality_of(config: ConfigDict) -> Modality:
    return Modality(config.data.modality, config.data.flow_frames)


def check_groups(config: ConfigDict, shapes: Any) -> None:
    """Of the parameters' `shapes`: every one has a learning rate, every rate a parameter."""
    rate_factors(shapes, groups=config.optimizer.groups, bias_rate=config.optimizer.bias_rate)


def print_groups(config: ConfigDict, shapes: Any) -> None:
    options, rate = config.optimizer, learning_rate_of(config)
    if options.reference_batch_size:
        print(
            f"learning rate {rate:.4g}: {options.learning_rate:.4g} x train.batch_size "
            f"{config.train.batch_size} / optimizer.reference_batch_size "
            f"{options.reference_batch_size}"
        )
    for line in describe_groups(shapes, groups=options.groups, learning_rate=rate):
        print(line)


def group_factors_of(config: ConfigDict, shapes: Any) -> dict[str, float]:
    options = config.optimizer
    return group_factors(shapes, groups=options.groups, bias_rate=options.bias_rate)


def initialised_from(config: ConfigDict, variables: Any, *, continues: bool) -> Any:
    """`variables` with what the run in `train.init_from` has of them; says what it has not."""
    folder, skip = config.train.init_from, config.train.init_skip
    if continues:
        print(f"init_from {folder} is not read: the run continues from its own checkpoint")
        return variables
    names = {name for path in transfer.by_path(variables) for name in path.split("/")}
    for name in skip:
        if name not in names:
            raise InputError(
                f"train.init_skip: {name!r} is in no parameter's path; expected whole names out of "
                "paths such as heads_0/classifier/kernel (parameters.txt lists all)"
            )
    source = inference.load_predictor(folder).variables
    variables, report = transfer.transfer(variables, source, skip=skip)
    for line in report.listing():
        print(f"init_from: {line}")
    print(f"init_from {folder}: {len(report.taken)} arrays taken, {report.summary()}")
    if not report.taken:
        raise InputError(
            f"train.init_from {folder}: nothing of that model fits this one; choose a run whose "
            "configuration has the same backbone or head"
        )
    return variables


def learning_rate_of(config: ConfigDict) -> float:
    """The highest one of training, before the factors of parameters."""
    return scaled_rate(
        config.optimizer.learning_rate,
        batch_size=config.train.batch_size,
        reference_batch_size=config.optimizer.reference_batch_size,
    )


def schedule_of(config: ConfigDict):
    options, steps = config.optimizer, config.train.steps
    return make_schedule(
        kind=options.schedule,
        learning_rate=learning_rate_of(config),
        total_steps=steps,
        warmup_steps=options.warmup_steps,
        warmup_start=options.warmup_start,
        first_update=options.first_update,
        decay_steps=tuple(round(share * steps) for share in options.decay_at),
        decay_factor=options.decay_factor,
    )


def optimizer_of(config: ConfigDict):
    options = config.optimizer
    return make_optimizer(
        schedule_of(config),
        weight_decay=options.weight_decay,
        weight_decay_kind=options.weight_decay_kind,
        max_gradient_norm=options.max_gradient_norm,
        groups=options.groups,
        bias_rate=options.bias_rate,
    )


def initial_tubes(config: ConfigDict, chunk: int) -> np.ndarray:
    side = config.data.image_size
    return proposals.initial_tubes(config.proposals, num_frames=chunk, height=side, width=side)


def training_keyframes(config: ConfigDict) -> keyframes.KeyframeLabels | None:
    """The labelled keyframes of AVA, None of other data sets; says what of them is read."""
    if not config.data.ava_version:
        return None
    split = config.data.train_split
    labels = keyframes.training_labels(evaluation_config.ava_folder(config), split)
    clip_frames = config.model.clip_frames
    for line in keyframes.describe(labels, config.data.records, split, clip_frames=clip_frames):
        print(line, flush=True)
    return labels


def training_batches(
    config: ConfigDict,
    frames: int,
    *,
    keyframe_labels: keyframes.KeyframeLabels | None,
    start_step: int,
) -> Iterator[Any]:
    hide_accelerators()
    from input_pipeline.augment import Augment  # TensorFlow
    from input_pipeline.pipeline import train_batches

    data = config.data
    return train_batches(
        data.records,
        split=data.train_split,
        clip_frames=config.model.clip_frames,
        input_frames=frames,
        image_size=data.image_size,
        max_tubes=data.max_tubes,
        batch_size=config.train.batch_size // jax.process_count(),
        seed=config.seed,
        start_step=start_step,
        streams=data.streams,
        modality=data.modality,
        flow_frames=data.flow_frames,
        augment=Augment(**config.augment.to_dict()),
        source_size=tuple(data.source_size) or None,
        background=data.background,
        keyframes=keyframe_labels,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        shuffle_records=data.shuffle_records,
        num_threads=data.threads,
        tell=hosts.say,
        max_damaged=data.max_damaged,
    )


TARGET_KEYS = ("boxes", "box_mask", "labels", "tube_mask", "example_mask")
TRAINING_KEYS = ("clips", *source_clips.KEYS, *TARGET_KEYS)


def timed(inputs: Iterator[Any], log: TrainingLog) -> Any:
    start = time.monotonic()
    found = next(inputs)
    log.waited_for_data(time.monotonic() - start)
    return found


def for_step(step: int, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the train step is given, with its number: it refuses a batch in another one's place."""
    given = {name: batch[name] for name in TRAINING_KEYS if name in batch}
    return given | {"number": np.full(len(batch["boxes"]), step, np.int32)}


def is_checkpoint_due(config: ConfigDict, step: int) -> bool:
    every, last = config.train.checkpoint_every_steps, config.train.steps
    return step % every == 0 or step == last or is_evaluation_due(config, step)


def is_evaluation_due(config: ConfigDict, step: int) -> bool:
    every, last = config.train.eval_every_steps, config.train.steps
    return every > 0 and (step % every == 0 or step == last)


def is_evaluated(config: ConfigDict, workdir: epath.Path, step: int) -> bool:
    found = evaluations.read_metrics(workdir) if hosts.is_writer() else {}
    return hosts.writers("evaluated", (evaluation_config.part(config), step) in found)


def evaluation_scalars(report: Mapping[str, Any]) -> dict[str, float]:
    """Frame-mAP of each step that has one."""
    means = {f"eval/frame_map_step_{one['step']}": one["mean"] for one in report["steps"]}
    return {name: mean for name, mean in means.items() if mean is not None}


if __name__ == "__main__":
    run_with_flags(main, define=define_flags)
