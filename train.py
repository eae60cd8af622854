"""Trains a detector: python train.py --config=configs/moving_actors.py --workdir=DIR.

Keys of the configuration are changed by --config.KEY=VALUE. The same command continues a run that
was interrupted, with the same result as if it had not been.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

import evaluate
from input_pipeline import records
from input_pipeline.accelerators import hide_accelerators
from input_pipeline.augment import Augment
from input_pipeline.pipeline import train_batches
from step_jax import inference, parallel, proposals, run_folder
from step_jax.checkpoint import Checkpoints
from step_jax.cli import run_with_flags
from step_jax.models.factory import build_detector, input_frames
from step_jax.optimizer import make_optimizer, make_schedule
from step_jax.train_state import TrainState, create_train_state, init_variables
from step_jax.train_step import LossOptions, make_train_step
from step_jax.training_log import TrainingLog

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, made if missing.")
CACHE = flags.DEFINE_string("compilation_cache", None, "Folder that keeps compiled programs.")

INTERRUPTED = 130


def main() -> int:
    flags.mark_flags_as_required(["config", "workdir"])
    config, workdir = CONFIG.value, epath.Path(WORKDIR.value)
    hide_accelerators()
    if CACHE.value:
        jax.config.update("jax_compilation_cache_dir", CACHE.value)
    parallel.check_batch_size(config.train.batch_size)
    classes = records.load_info(config.data.records).classes
    run_folder.open_for_training(workdir, config.to_dict())

    # Model, optimizer, state.
    detector = build_detector(num_classes=len(classes), **config.model.to_dict())
    schedule = schedule_of(config)
    optimizer = make_optimizer(
        schedule,
        weight_decay=config.optimizer.weight_decay,
        max_gradient_norm=config.optimizer.max_gradient_norm,
    )
    tubes = initial_tubes(config, detector.plan.chunk)
    key = jax.random.key(config.seed)
    variables = init_variables(
        detector, image_size=config.data.image_size, num_proposals=len(tubes), key=key
    )
    run_folder.write_parameters(workdir, variables)
    state = create_train_state(variables, optimizer)
    checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
    latest = checkpoints.latest_step()
    if latest is not None:
        state = checkpoints.restore_state(latest, like=state)
        print(f"continuing from checkpoint {latest}", flush=True)

    # The step, and the data it continues with.
    step_function = parallel.data_parallel(
        make_train_step(
            detector, optimizer, proposals=tubes, options=LossOptions(**config.loss.to_dict())
        ),
        donate=True,
    )
    batches = training_batches(config, input_frames(detector), start_step=int(state.step))
    description = inference.describe(
        model=config.model.to_dict(),
        classes=classes,
        image_size=config.data.image_size,
        fps=config.data.fps,
        proposals=config.proposals,
    )
    log = TrainingLog(
        workdir,
        start_step=int(state.step),
        total_steps=config.train.steps,
        batch_size=config.train.batch_size,
        every=config.train.log_every_steps,
        learning_rate=schedule,
    )

    def save(state: TrainState) -> None:
        log.flush()  # a state made from a broken loss is not saved
        checkpoints.save(state, description)
        checkpoints.wait()

    with StopSignal() as stop:
        for step in range(int(state.step) + 1, config.train.steps + 1):
            state, metrics = step_function(state, parallel.split_batch(timed(batches, log)), key)
            log.add(metrics)
            due = step % config.train.checkpoint_every_steps == 0 or step == config.train.steps
            if due or stop.requested:
                save(state)
            if stop.requested:
                print(f"{stop.requested}: saved checkpoint {step}; the same command continues")
                return INTERRUPTED if stop.requested == "SIGINT" else 0
            if due and is_evaluation_due(config, step):
                evaluate_now(config, workdir, checkpoints, step, log)
    log.close()
    checkpoints.close()
    run_folder.mark_finished(workdir, step=config.train.steps)
    print(f"trained {config.train.steps} steps; checkpoints in {workdir}")
    return 0


def schedule_of(config: ConfigDict):
    options, steps = config.optimizer, config.train.steps
    return make_schedule(
        kind=options.schedule,
        learning_rate=options.learning_rate,
        total_steps=steps,
        warmup_steps=options.warmup_steps,
        decay_steps=tuple(round(share * steps) for share in options.decay_at),
        decay_factor=options.decay_factor,
    )


def initial_tubes(config: ConfigDict, chunk: int) -> np.ndarray:
    side = config.data.image_size
    return proposals.initial_tubes(config.proposals, num_frames=chunk, height=side, width=side)


def training_batches(config: ConfigDict, frames: int, *, start_step: int) -> Iterator[Any]:
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
        augment=Augment(**config.augment.to_dict()),
        background=data.background,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        shuffle_records=data.shuffle_records,
        num_threads=data.threads,
    )


TRAINING_KEYS = ("clips", "boxes", "box_mask", "labels", "tube_mask")


def timed(batches: Iterator[Any], log: TrainingLog) -> dict[str, np.ndarray]:
    start = time.monotonic()
    batch = next(batches)
    log.waited_for_data(time.monotonic() - start)
    return {name: batch[name] for name in TRAINING_KEYS}


def is_evaluation_due(config: ConfigDict, step: int) -> bool:
    every = config.train.eval_every_steps
    return every > 0 and (step % every == 0 or step == config.train.steps)


def evaluate_now(
    config: ConfigDict, workdir: epath.Path, checkpoints: Checkpoints, step: int, log: TrainingLog
) -> None:
    predictor = inference.restore_predictor(checkpoints, step)
    report = evaluate.evaluate_checkpoint(config, workdir, predictor)
    log.add_scalars(
        step, {f"eval/frame_map_step_{one['step']}": one["mean"] for one in report["steps"]}
    )
    log.pause()


class StopSignal:
    """SIGTERM (preemption) and SIGINT (Ctrl-C) ask for a checkpoint and a clean end.

    `requested` is the signal's name once one came; a second Ctrl-C interrupts at once.
    """

    requested: str | None = None

    def __enter__(self) -> StopSignal:
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


if __name__ == "__main__":
    run_with_flags(main)
