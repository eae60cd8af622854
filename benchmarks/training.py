"""How fast a configuration trains, and where the time and the memory go.

    python -m benchmarks.training --config configs/moving_actors.py [--records DIR]

times the training step on a random batch made in memory, and each part for itself: the pass without
gradient that finds what every step is fed, backbone, scene context, RoI features and head of every
step, forward alone and forward and backward together, and the optimizer. The memory is the whole
step's, which runs before its parts. With --records it runs `input_pipeline.throughput` on them, in
a process of its own and with the step at rest, and prints how many times faster than the step the
pipeline is.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from benchmarks import arithmetic, configuration, machine, parts
from step_jax import inference, parallel
from step_jax.cli import run_command
from step_jax.detector_loss import normalise_clips
from step_jax.files import write_json
from step_jax.loss_options import LossOptions
from step_jax.models.factory import input_frames
from step_jax.models.heads import HeadOutput
from step_jax.models.step import Features, StepDetector
from step_jax.optimizer import make_optimizer, make_schedule
from step_jax.step_samples import Candidates, infer_candidates, sample_batch
from step_jax.train_state import TrainState, create_train_state, init_variables
from step_jax.train_step import make_train_step
from step_jax.training_targets import targets_of

Array = jax.Array
PyTree = Any


def main() -> None:
    arguments = parse_arguments()
    config = configuration.load_config(arguments.config)
    batch_size = arguments.batch or config.train.batch_size
    parallel.check_batch_size(batch_size)
    described = configuration.describe(arguments.config, config, precision=arguments.precision)
    result = {"machine": machine.describe(), "description": described, "batch": batch_size}
    print(machine.summary(result["machine"]))
    training = Training(config, described, batch_size)
    result |= measure(training, arguments)
    if arguments.records:
        rate = batch_size / result["whole"]["median_seconds"]
        result["pipeline"] = time_pipeline(config, arguments.records, training.input_frames)
        pipeline_rate = result["pipeline"]["batches"]["windows_per_second"]
        result["pipeline_over_training"] = pipeline_rate / rate
        print(f"input pipeline {pipeline_rate:.1f} clips/s, {pipeline_rate / rate:.1f} times that")
    if arguments.output:
        write_json(arguments.output, result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/moving_actors.py", help="FILE or FILE:VARIANT")
    parser.add_argument("--precision", help="float32 or bfloat16 (the configuration's)")
    parser.add_argument("--batch", type=int, help="clips, over all devices (the configuration's)")
    parser.add_argument("--repeats", type=int, default=5, help="calls that are timed (5)")
    parser.add_argument("--whole", action="store_true", help="leave the parts out")
    parser.add_argument("--peak_tflops", type=float, help="of the hardware, for another share")
    parser.add_argument("--trace", type=pathlib.Path, help="folder for a profile of one step")
    parser.add_argument("--records", type=pathlib.Path, help="clip records to time the pipeline on")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    return parser.parse_args()


class Training:
    """What train.py builds, and a random batch.

    Args:
      initialise: makes the variables, as `init_variables` does.

    Attributes:
      detector, optimizer, options, tubes: of the configuration; tubes are the initial ones.
      variables: random.
      batch: arrays `[B, ...]` on the host.
    """

    def __init__(
        self,
        config: ConfigDict,
        described: dict,
        batch_size: int,
        *,
        initialise: Callable[..., PyTree] | None = None,
    ):
        predictor = inference.abstract_predictor(described)
        self.detector: StepDetector = predictor.detector
        self.tubes = predictor.initial_tubes
        self.variables = (initialise or init_variables)(
            self.detector,
            image_size=predictor.image_size,
            num_proposals=len(self.tubes),
            key=jax.random.key(0),
        )
        self.options = LossOptions(**config.loss.to_dict())
        self.optimizer = optimizer_of(config)
        self._accumulate = config.train.accumulate
        self.batch = random_batch(
            batch_size,
            frames=self.input_frames,
            side=predictor.image_size,
            channels=self.detector.backbone.channels,
            tubes=config.data.max_tubes,
            classes=len(predictor.classes),
        )

    @property
    def input_frames(self) -> int:
        return input_frames(self.detector)

    def device_step(self) -> Callable:
        """`(state, batch, key) -> (state, metrics)`, of one device."""
        return make_train_step(
            self.detector,
            self.optimizer,
            proposals=self.tubes,
            options=self.options,
            accumulate=self._accumulate,
        )

    def make_step(self) -> Callable:
        """The same of all devices; traced anew for each one made."""
        return parallel.data_parallel(self.device_step(), donate=True)

    def new_state(self) -> TrainState:
        """Of copies, because a step takes its state's memory."""
        variables = jax.tree.map(jnp.copy, self.variables)
        state = create_train_state(variables, self.optimizer)
        return jax.device_put(state, parallel.replicated())

    def infer_candidates(
        self, variables: PyTree, features: Features, batch: PyTree
    ) -> list[Candidates]:
        """What each step is fed, as the training step finds it."""
        stride = self.detector.backbone.temporal_stride
        return infer_candidates(
            self.detector, variables, features, self.tubes,
            targets_of(batch, temporal_stride=stride),
            image_size=batch["clips"].shape[2:4], options=self.options,
        )  # fmt: skip

    def update(self, gradients: PyTree, state: TrainState) -> tuple[PyTree, PyTree]:
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), opt_state

    def samples(self) -> int:
        """N, slots that each step samples of a clip."""
        clips, number = len(self.batch["clips"]), len(self.tubes)
        mask = self.batch["tube_mask"]
        samples = jax.eval_shape(
            lambda: sample_batch(
                jax.random.split(jax.random.key(0), clips),
                jnp.zeros((*mask.shape, number)),
                jnp.zeros((clips, number)),
                mask,
                jnp.ones(clips, bool),
                threshold=self.options.thresholds[0],
                options=self.options,
            )
        )
        return samples.index.shape[1]


def optimizer_of(config: ConfigDict) -> optax.GradientTransformation:
    options = config.optimizer
    return make_optimizer(
        make_schedule(kind="constant", learning_rate=options.learning_rate, total_steps=1),
        weight_decay=options.weight_decay,
        weight_decay_kind=options.weight_decay_kind,
        max_gradient_norm=options.max_gradient_norm,
        groups=options.groups,
        bias_rate=options.bias_rate,
    )


def random_batch(
    batch: int, *, frames: int, side: int, channels: int, tubes: int, classes: int
) -> dict[str, np.ndarray]:
    """Noise with one ground-truth tube a clip; the shapes are what the time depends on."""
    boxes = np.zeros((batch, tubes, frames, 4), np.float32)
    boxes[:, 0] = np.array([0.3, 0.2, 0.6, 0.8]) * side
    mask = np.zeros((batch, tubes), bool)
    mask[:, 0] = True
    labels = np.zeros((batch, tubes, classes), np.float32)
    labels[:, 0, 0] = 1
    shape = (batch, frames, side, side, channels)
    return {
        "clips": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "boxes": boxes,
        "box_mask": np.repeat(mask[:, :, None], frames, axis=2),
        "labels": labels,
        "tube_mask": mask,
    }


def measure(training: Training, arguments: argparse.Namespace) -> dict:
    """The whole step, then its parts on one device's share of the batch."""
    whole, memory = time_whole(training, repeats=arguments.repeats, trace=arguments.trace)
    split, forwards = parts.Parts(arguments.repeats), parts.Parts(arguments.repeats)
    if not arguments.whole:
        run_parts(split, forwards, training)
    reported = parts.report(
        whole,
        split.measured,
        arithmetic.matrix_rate(
            training.detector.backbone.dtype, precision=training.detector.matmul_precision
        ),
        forwards=forwards.measured,
        peak_tflops=arguments.peak_tflops,
    )
    clips = training.batch["clips"]
    print(f"\ntraining step of {len(clips)} clips, {' x '.join(map(str, clips.shape[1:]))}")
    print(parts.table(reported))
    print(parts.speed_line(whole.median, clips.shape, memory))
    return reported | memory


def time_whole(
    training: Training, *, repeats: int, trace: pathlib.Path | None = None
) -> tuple[parts.Measured, dict]:
    """Steps one after the other, after a first one that compiles; and the memory of both."""
    step, key = training.make_step(), jax.random.key(0)
    batch = parallel.split_batch(training.batch)
    shapes = jax.eval_shape(training.new_state)
    state = training.new_state()

    def one_step() -> PyTree:
        nonlocal state
        state, metrics = step(state, batch, key)
        return state, metrics

    whole, memory = parts.time_whole(
        one_step,
        arithmetic.plain_flops(training.make_step(), shapes, batch, key),
        repeats=repeats,
    )
    if trace:
        with jax.profiler.trace(trace):
            jax.block_until_ready(one_step())
    return whole, memory


def run_parts(split: parts.Parts, forwards: parts.Parts, training: Training) -> None:
    """Every part on what those before it gave; `forwards` gets those that have a backward pass."""
    detector, variables = training.detector, jax.device_put(training.variables)
    clips = len(training.batch["clips"]) // jax.local_device_count()
    batch = jax.device_put(jax.tree.map(lambda leaf: leaf[:clips], training.batch))
    modules = Modules(detector)

    def run(name: str, function: Callable, learned: PyTree, *given: PyTree) -> Any:
        """`function(learned, *given)`, forward, and with the gradient of `learned`."""
        output = forwards.run(name, function, learned, *given)
        split.run(name, with_gradient(function), learned, *given)
        return output

    def own(name: str) -> PyTree:
        return {key: tree for key, tree in variables["params"].items() if key == name}

    maps = run("backbone", modules.backbone, own("backbone"), variables, batch["clips"])
    context = None
    if detector.scene_context is not None:
        context = run("context", modules.context, (own("scene_context"), maps), variables)
    candidates = split.run(
        "candidates", training.infer_candidates, variables, Features(maps, context), batch
    )
    keys = jax.random.split(jax.random.key(0), clips)
    for step, candidate in enumerate(candidates):
        tubes = candidate.tubes[:, : training.samples()]
        rois = run(f"RoI {step + 1}", modules.rois(step), maps, tubes)
        learned = (own(f"heads_{step}"), rois, context)
        run(f"head {step + 1}", modules.head(step), learned, variables, tubes, keys)
    state = create_train_state(variables, training.optimizer)
    split.run("optimizer", training.update, state.params, state)


def with_gradient(function: Callable) -> Callable:
    """`function(learned, *given)`, and the gradient of its output's sum by `learned`."""

    def both(learned: PyTree, *given: PyTree) -> tuple[PyTree, PyTree]:
        output, pull_back = jax.vjp(lambda learned: function(learned, *given), learned)
        return output, pull_back(jax.tree.map(jnp.ones_like, output))

    return both


class Modules:
    """The detector's modules as functions `(learned, *given)`.

    `learned` is what their gradients go to: the parameters `own` of a module, by its name, which
    take the place of those among the variables, and its inputs.
    """

    def __init__(self, detector: StepDetector):
        self._detector = detector

    def _apply(self, own: PyTree, variables: PyTree, *arguments: Any, **options: Any) -> Any:
        variables = variables | {"params": variables["params"] | own}
        with jax.default_matmul_precision(self._detector.matmul_precision):
            return self._detector.apply(variables, *arguments, **options)

    def backbone(self, own: PyTree, variables: PyTree, clips: Array) -> Array:
        clips = normalise_clips(clips)
        return self._apply(own, variables, clips, method=lambda module, x: module.backbone(x))

    def context(self, learned: tuple[PyTree, Array], variables: PyTree) -> Array:
        own, maps = learned
        return self._apply(own, variables, maps, method=lambda module, x: module.scene_context(x))

    def rois(self, step: int) -> Callable[[Array, Array], Array]:
        def rois(maps: Array, tubes: Array) -> Array:
            return self._detector.apply({}, step, maps, tubes, method="roi_features")

        return rois

    def head(self, step: int) -> Callable[..., HeadOutput]:
        def head(learned: PyTree, variables: PyTree, tubes: Array, keys: Array) -> HeadOutput:
            own, rois, context = learned
            output = self._apply(
                own, variables, step, rois, context, tubes, dropout_keys=keys, method="run_head"
            )
            return output.head

        return head


def time_pipeline(config: ConfigDict, records: pathlib.Path, frames: int) -> dict:
    """Runs the pipeline's own timing; a process of its own, because it needs TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "throughput.json"
        command = [
            sys.executable, "-m", "input_pipeline.throughput",
            "--records", str(records),
            "--clip_frames", str(config.model.clip_frames),
            "--input_frames", str(frames),
            "--image_size", str(config.data.image_size),
            "--json", str(path),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text())


if __name__ == "__main__":
    run_command(main)
