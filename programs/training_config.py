"""What a configuration says about training, as the library's arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax
from ml_collections import ConfigDict

from programs import evaluation_config
from step_jax import hosts, parallel, proposals
from step_jax.annotations import Annotations
from step_jax.errors import InputError
from step_jax.modality import Modality
from step_jax.optimizer import (
    describe_groups,
    group_factors,
    make_optimizer,
    make_schedule,
    rate_factors,
    scaled_rate,
)

# A share: 29.97 frames a second are 30, and 24 are not 25.
_RATE_TOLERANCE = 0.02


def check_config(config: ConfigDict) -> None:
    """What would otherwise come to light only after the first steps."""
    train = config.train
    parallel.check_batch_size(train.batch_size, accumulate=max(train.accumulate, 1))
    for name in ("steps", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"):
        if train[name] < 1:
            raise InputError(f"train.{name} is {train[name]}; expected 1 or more")
    if train.eval_every_steps > 0:
        annotations = evaluation_config.check_config(config)
        if annotations is not None and hosts.is_writer():
            _tell_rate(annotations, config.data.fps)


def _tell_rate(annotations: Annotations, fps: float) -> None:
    """Says so if most videos have another frame rate than the one detection brings videos to."""
    usual = float(np.median([video.fps for video in annotations.videos]))
    if fps and abs(usual - fps) > _RATE_TOLERANCE * fps:
        print(
            f"data.fps is {fps:g}, but the videos have {usual:g} frames a second: detect.py would "
            f"show actions at another speed than training; --config.data.fps={usual:g} if the "
            "annotations are right about it"
        )


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


def learning_rate_of(config: ConfigDict) -> float:
    """The highest one of training, before the factors of parameters."""
    return scaled_rate(
        config.optimizer.learning_rate,
        batch_size=config.train.batch_size,
        reference_batch_size=config.optimizer.reference_batch_size,
    )


def schedule_of(config: ConfigDict) -> optax.Schedule:
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


def optimizer_of(config: ConfigDict) -> optax.GradientTransformation:
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


def is_checkpoint_due(config: ConfigDict, step: int) -> bool:
    every, last = config.train.checkpoint_every_steps, config.train.steps
    return step % every == 0 or step == last or is_evaluation_due(config, step)


def is_evaluation_due(config: ConfigDict, step: int) -> bool:
    every, last = config.train.eval_every_steps, config.train.steps
    return step > 0 and every > 0 and (step % every == 0 or step == last)
