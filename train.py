"""Trains a detector: python train.py --config=configs/moving_actors.py --workdir=DIR.

Keys of the configuration are changed by --config.KEY=VALUE. The same command continues a run that
was interrupted, with the same result as if it had not been.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

import evaluate
from input_pipeline import keyframes, records
from input_pipeline.accelerators import hide_accelerators
from programs import evaluation_config, training_config
from step_jax import (
    compilation_cache,
    evaluations,
    failures,
    hosts,
    inference,
    parallel,
    profiling,
    replay,
    run_folder,
    source_clips,
    transfer,
)
from step_jax.accumulation import check_accumulation
from step_jax.checkpoint import Checkpoints
from step_jax.cli import INTERRUPTED, run_with_flags
from step_jax.errors import InputError
from step_jax.loss_options import LossOptions
from step_jax.modality import Modality
from step_jax.models.factory import build_detector, check_modality, input_frames
from step_jax.models.step import StepDetector
from step_jax.optimizer import rate_table
from step_jax.startup import Startup, process_seconds
from step_jax.stop_signal import StopSignal
from step_jax.storage import open_folder
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
    workdir = open_folder(options.workdir, flag="--workdir")
    compilation_cache.keep_programs(options.compilation_cache)
    if options.replay:
        config = options.config or evaluation_config.read_configuration(workdir)
        return replay_step(config, options.replay)
    if options.config is None:
        raise InputError("--config is missing: give a file, e.g. configs/moving_actors.py")
    startup = Startup(import_seconds=process_seconds(), command=sys.argv)
    profile = profiling.parse(options.profile)
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
    # The data and the model; a wrong configuration comes to light here, before anything is written.
    run_folder.check_processes(config.to_dict())
    training_config.check_config(config)
    if profile:
        profile.check(total=config.train.steps)
    data = open_data(config)
    model = build_model(config, num_classes=len(data.classes))
    check_model(config, model, data)
    train_step = make_train_step(
        model.detector,
        training_config.optimizer_of(config),
        proposals=model.tubes,
        options=model.options,
        accumulate=config.train.accumulate,
    )

    # The state: new, of another run's parameters, or of the last checkpoint. One process has it.
    state, checkpoints = first_state(config, workdir, model, startup)
    state = parallel.replicate(hosts.broadcast(state))
    start, total = int(state.step), config.train.steps

    # The batches that it continues with, and what is told on the way.
    key = jax.random.key(config.seed)
    step_function = parallel.data_parallel(train_step, donate=True)
    batches = training_batches(
        config, input_frames(model.detector), keyframe_labels=data.keyframes, start_step=start
    )
    inputs = parallel.prefetch(enumerate(batches, start + 1), lambda item: for_step(*item))
    description = describe(config, data)
    log = TrainingLog(
        workdir,
        writes=hosts.is_writer(),
        start_step=start,
        total_steps=total,
        batch_size=config.train.batch_size,
        every=config.train.log_every_steps,
        learning_rate=rate_table(training_config.schedule_of(config), total).item,
        group_factors=training_config.group_factors_of(config, model.shapes["params"]),
        startup=startup,
    )
    traced = profile and profile.steps(start=start, total=total)
    if profile and not traced and hosts.is_writer():
        print(f"--profile: this start makes steps {start + 1} to {total}, not those; no trace")
    trace = profiling.Profile(
        traced if hosts.is_writer() else None,
        workdir / profiling.FOLDER,
        wait=log.flush,
        paused=log.paused,
    )
    page = drawing_summary(workdir, wanted=config.train.summary and hosts.is_writer())
    recorder = failures.FailureRecorder(workdir, key=key, classes=len(data.classes))

    def save(state: TrainState) -> None:
        log.flush()  # a state made from a broken loss is not saved
        if hosts.is_writer():
            with log.paused():
                log.put()
                checkpoints.save(state, description)
                checkpoints.wait()

    def evaluate_now(step: int) -> None:
        predictor = inference.predictor_of(description, state.variables, step=step)
        report = evaluate.evaluate_checkpoint(config, workdir, predictor)
        log.add_scalars(step, evaluation_scalars(report))
        log.put()

    def evaluate_unless_stopped(step: int) -> None:
        with log.paused():
            stop.run_interruptibly(lambda: evaluate_now(step))
        if stop.requested:
            hosts.interrupt_others()

    with page, log, trace, recorder:
        stop.begin()
        step, vote = start, hosts.StopVote()
        stopping = hosts.any_stops(stop.requested)
        if training_config.is_evaluation_due(config, start) and not is_evaluated(
            config, workdir, start
        ):
            evaluate_unless_stopped(start)  # the run was interrupted there
            stopping = hosts.any_stops(stop.requested)
        while step < total and not stopping:
            step += 1
            with trace.step(step):
                (_, batch), given = timed(inputs, log)
                state, metrics = step_function(state, given, key)
                recorder.remember(step, batch, state)
                log.add(metrics)
            stopping = vote(stop.requested)  # looked at once: a signal may come at any moment
            if stopping or training_config.is_checkpoint_due(config, step):
                save(state)
                stopping = hosts.any_stops(stop.requested)  # all that there is has been saved
            if not stopping and training_config.is_evaluation_due(config, step):
                evaluate_unless_stopped(step)
                stopping = hosts.any_stops(stop.requested)
    if checkpoints is not None:
        checkpoints.close()
    if stopping:
        saved = f"saved checkpoint {step}" if step else "nothing to save yet"
        print(f"{stopping}: {saved}; the same command continues")
        return INTERRUPTED if stopping == "SIGINT" else 0
    if hosts.is_writer():
        run_folder.mark_finished(workdir, step=step)
    print(f"trained {step} steps; checkpoints in {workdir}")
    return 0


class Data(NamedTuple):
    """What is known of the training data before a batch is read.

    keyframes: of AVA; None of other data sets.
    """

    info: records.RecordsInfo
    modality: Modality
    classes: tuple[str, ...]
    keyframes: keyframes.KeyframeLabels | None


def open_data(config: ConfigDict) -> Data:
    folder = evaluation_config.records_folder(config)
    info, modality = records.load_info(folder), training_config.modality_of(config)
    info.check_modality(modality, folder)
    keyframes.check_kind(info, folder, joins_labels=bool(config.data.ava_version))
    classes = evaluation_config.classes_of(config)
    return Data(info, modality, classes, training_keyframes(config))


class Model(NamedTuple):
    """The detector, its initial tubes `[M, K, 4]`, and how it is trained; no parameters yet.

    initialise: makes its variables. shapes: theirs.
    """

    detector: StepDetector
    tubes: np.ndarray
    options: LossOptions
    initialise: Callable[[], Any]
    shapes: Any


def build_model(config: ConfigDict, *, num_classes: int) -> Model:
    detector = build_detector(num_classes=num_classes, **config.model.to_dict())
    side = config.data.image_size
    detector.backbone.check_side(side)
    tubes = training_config.initial_tubes(config, detector.plan.chunk)

    def initialise() -> Any:
        key = jax.random.key(config.seed)
        return init_variables(detector, image_size=side, num_proposals=len(tubes), key=key)

    options = LossOptions(**config.loss.to_dict())
    return Model(detector, tubes, options, initialise, jax.eval_shape(initialise))


def check_model(config: ConfigDict, model: Model, data: Data) -> None:
    check_modality(model.detector, data.modality)
    training_config.check_groups(config, model.shapes["params"])
    check_accumulation(config.train.accumulate, model.shapes)
    if config.train.eval_every_steps > 0 and config.eval.tubes:
        plan, stride = model.detector.plan, model.detector.backbone.temporal_stride
        evaluation_config.check_tubes(
            config,
            classes=data.classes,
            clip_frames=plan.chunk * stride,
            num_steps=plan.num_steps,
        )


def first_state(
    config: ConfigDict, workdir: epath.Path, model: Model, startup: Startup
) -> tuple[TrainState, Checkpoints | None]:
    """The state to go on from, and where states are saved; both of the process that writes.

    Others return a state of the same shapes, and None.
    """
    optimizer = training_config.optimizer_of(config)
    state = create_train_state(model.initialise(), optimizer)
    startup.done("parameters")
    if not hosts.is_writer():
        return state, None
    run_folder.open_for_training(workdir, config.to_dict())
    run_folder.write_parameters(workdir, model.shapes)
    training_config.print_groups(config, model.shapes["params"])
    checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
    continues = checkpoints.latest_step() is not None
    if config.train.init_from:
        variables = initialised_from(config, state.variables, continues=continues)
        state = create_train_state(variables, optimizer)
    if continues:
        state = checkpoints.restore_latest(like=state)
        startup.done("restore")
        print(f"continuing from checkpoint {int(state.step)}", flush=True)
    return state, checkpoints


def describe(config: ConfigDict, data: Data) -> dict[str, Any]:
    """What a checkpoint says of itself, for whoever builds the detector again."""
    return inference.describe(
        model=config.model.to_dict(),
        classes=data.classes,
        image_size=config.data.image_size,
        fps=config.data.fps,
        proposals=config.proposals,
        modality=data.modality,
        flow=data.info.flow,
        flow_side=data.info.flow_side,
    )


def replay_step(config: ConfigDict, path: str) -> int:
    """Makes a failed step again and tells what of it is not finite; returns the exit status."""
    failure = failures.load(path)
    model = build_model(config, num_classes=failure.classes)

    def gradient_of(state: TrainState, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        return share_of_gradients(
            state, model.detector, model.tubes, batch, key, options=model.options
        )[:2]

    found = replay.replay(failure, variables=model.shapes, gradient_of=gradient_of)
    for line in found.lines():
        print(line)
    again = "and again" if found.is_reproduced else "but this time it and its gradients are finite"
    print(f"{failure.reason}, {again}")
    return 1 if found.is_reproduced else 0


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


def is_evaluated(config: ConfigDict, workdir: epath.Path, step: int) -> bool:
    found = evaluations.read_metrics(workdir) if hosts.is_writer() else {}
    return hosts.writers("evaluated", (evaluation_config.part(config), step) in found)


def evaluation_scalars(report: Mapping[str, Any]) -> dict[str, float]:
    """Frame-mAP of each step that has one."""
    means = {f"eval/frame_map_step_{one['step']}": one["mean"] for one in report["steps"]}
    return {name: mean for name, mean in means.items() if mean is not None}


if __name__ == "__main__":
    run_with_flags(main, define=define_flags)
