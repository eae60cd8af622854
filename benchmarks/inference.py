"""How fast a configuration's detector infers, and where the time and the memory go.

    python -m benchmarks.inference --config configs/ava.py [--precision bfloat16] [--batch 1]

times the whole, from uint8 clips on the host to tubelets on the device, and each part for itself:
backbone, scene context, and RoI features and head of every step. Weights are random, or those of a
run (--workdir); clips are random. The memory is the whole's, which runs before its parts.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import arithmetic, configuration, machine, parts, precision
from step_jax import inference, parallel, proposals
from step_jax.checkpoint import Checkpoints
from step_jax.cli import run_command
from step_jax.detector_loss import normalise_clips
from step_jax.files import write_json
from step_jax.inference import Predictor
from step_jax.train_state import init_variables

Array = jax.Array
PyTree = Any


def main() -> None:
    arguments = parse_arguments()
    described, variables = describe(arguments)
    result = {"machine": machine.describe(), "description": described}
    print(machine.summary(result["machine"]))
    if arguments.compare_precision:
        clips = random_clips(predictor_of(described, variables), arguments.batch)
        result["deviation"] = precision.deviation(described, variables, clips)
        print(precision.table(result["deviation"]))
    else:
        predictor = predictor_of(described, variables)
        result |= measure(predictor, arguments)
        result["batches"] = time_batches(predictor, arguments)
    if arguments.output:
        write_json(arguments.output, result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/ava.py", help="FILE or FILE:VARIANT")
    parser.add_argument("--workdir", help="a run, ours or a converted one, instead of --config")
    parser.add_argument("--precision", help="float32 or bfloat16 (the configuration's)")
    parser.add_argument("--batch", type=int, default=1, help="clips, over all devices (1)")
    parser.add_argument("--repeats", type=int, default=5, help="calls that are timed (5)")
    parser.add_argument("--whole", action="store_true", help="leave the parts out")
    parser.add_argument("--batches", type=numbers, default=(), help="e.g. 1,2,4: to be tried, too")
    parser.add_argument("--peak_tflops", type=float, help="of the hardware, for another share")
    parser.add_argument("--trace", type=pathlib.Path, help="folder for a profile of one call")
    parser.add_argument(
        "--compare_precision", action="store_true", help="bfloat16 against float32, nothing else"
    )
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    return parser.parse_args()


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def describe(arguments: argparse.Namespace) -> tuple[dict, PyTree]:
    """What a checkpoint says of itself, and its variables; those of a configuration are random."""
    if arguments.workdir:
        checkpoints = Checkpoints(arguments.workdir, read_only=True)
        step = checkpoints.find("latest")
        described = dict(checkpoints.describe(step))
        if arguments.precision:
            described = configuration.with_precision(described, arguments.precision)
        shapes = inference.abstract_predictor(described).variables
        variables = checkpoints.restore_variables(step, shapes)
        checkpoints.close()
        return described, variables
    config = configuration.load_config(arguments.config)
    described = configuration.describe(arguments.config, config, precision=arguments.precision)
    predictor = inference.abstract_predictor(described)
    variables = init_variables(
        predictor.detector,
        image_size=predictor.image_size,
        num_proposals=len(proposals.initial_boxes(predictor.proposals)),
        key=jax.random.key(0),
    )
    return described, variables


def predictor_of(described: dict, variables: PyTree) -> Predictor:
    return inference.abstract_predictor(described).with_variables(variables, step=0)


def random_clips(predictor: Predictor, batch: int) -> np.ndarray:
    """uint8 `[B, T_in, S, S, channels]`."""
    side, channels = predictor.image_size, predictor.detector.backbone.channels
    shape = (batch, predictor.input_frames, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def measure(predictor: Predictor, arguments: argparse.Namespace) -> dict:
    """The whole, then its parts on one device's share of the batch."""
    clips = random_clips(predictor, arguments.batch)
    whole, memory = time_whole(predictor, clips, repeats=arguments.repeats)
    if arguments.trace:
        with jax.profiler.trace(arguments.trace):
            jax.block_until_ready(predictor(clips))
    share = clips[: len(clips) // jax.local_device_count()]
    split = parts.Parts(arguments.repeats)
    if not arguments.whole:
        run_parts(split, predictor, share)
    reported = parts.report(
        whole,
        split.measured,
        arithmetic.matrix_rate(
            predictor.detector.backbone.dtype, precision=predictor.detector.matmul_precision
        ),
        peak_tflops=arguments.peak_tflops,
    )
    print(f"\nforward of {arguments.batch} clips, {' x '.join(map(str, clips.shape[1:]))}")
    print(parts.table(reported))
    print(parts.speed_line(whole.median, clips.shape, memory))
    return reported | memory | {"batch": arguments.batch}


def time_whole(
    predictor: Predictor, clips: np.ndarray, *, repeats: int
) -> tuple[parts.Measured, dict]:
    """As users call it; and its memory."""
    parallel.check_batch_size(len(clips))
    flops = whole_flops(predictor, clips)
    return parts.time_whole(lambda: predictor(clips), flops, repeats=repeats)


def whole_flops(predictor: Predictor, clips: np.ndarray) -> int:
    """Of one device's share."""
    tubes = predictor.initial_tubes
    step = inference.make_predict_step(predictor.detector, initial_tubes=tubes)
    share = clips[: len(clips) // jax.local_device_count()]
    return arithmetic.plain_flops(step, predictor.variables, share)


def run_parts(split: parts.Parts, predictor: Predictor, clips: np.ndarray) -> None:
    """Every part on what those before it gave."""
    detector, variables = predictor.detector, jax.device_put(predictor.variables)
    height, width = clips.shape[2:4]

    def apply(method: str | Callable, *arguments: Any) -> Callable:
        """A method of the detector as a function `(variables, *more arguments)`."""

        def applied(variables: PyTree, *given: Any) -> Any:
            with jax.default_matmul_precision(detector.matmul_precision):
                return detector.apply(variables, *arguments, *given, method=method)

        return applied

    backbone = apply(lambda module, clips: module.backbone(normalise_clips(clips)))
    maps = split.run("backbone", backbone, variables, jax.device_put(clips))
    context = None
    if detector.scene_context is not None:
        scene_context = apply(lambda module, maps: module.scene_context(maps))
        context = split.run("context", scene_context, variables, maps)
    tubes = predictor.initial_tubes
    tubes = jax.numpy.broadcast_to(tubes, (len(clips), *tubes.shape))
    for step in range(detector.plan.num_steps):
        rois = split.run(f"RoI {step + 1}", apply("roi_features", step), variables, maps, tubes)
        output = split.run(
            f"head {step + 1}", apply("run_head", step), variables, rois, context, tubes
        )
        update = jax.jit(
            lambda output, step=step: detector.next_tubes(step, output, height=height, width=width)
        )
        tubes = update(output)


def time_batches(predictor: Predictor, arguments: argparse.Namespace) -> list[dict]:
    """The whole for each batch size, up to the one that does not fit into the memory."""
    results = []
    for batch in sorted(arguments.batches):
        clips = random_clips(predictor, batch)
        try:
            whole, memory = time_whole(predictor, clips, repeats=arguments.repeats)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"batch {batch:>4}: does not fit")
            results.append({"batch": batch, "fits": False})
            break
        line = parts.speed_line(whole.median, clips.shape, memory)
        print(f"batch {batch:>4}: {line}", flush=True)
        rates = {"clips_per_second": batch / whole.median, "frames": clips.shape[1]}
        results.append({"batch": batch, "fits": True} | whole.report() | rates | memory)
    return results


if __name__ == "__main__":
    run_command(main)
