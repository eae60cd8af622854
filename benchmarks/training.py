"""How fast a configuration trains, on batches made in memory, and whether the pipeline keeps up.

    python -m benchmarks.training --config configs/moving_actors.py [--records DIR]

prints the median of the training step, clips a second and the peak of memory. With --records it
runs `input_pipeline.throughput` on them, in a process of its own and with the step at rest, and
prints how many times faster than the step the pipeline is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from step_jax import parallel, proposals
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.models.factory import build_detector, input_frames
from step_jax.optimizer import make_optimizer, make_schedule
from step_jax.train_state import create_train_state, init_variables
from step_jax.train_step import LossOptions, make_train_step

NUM_CLASSES = 8


def main() -> None:
    arguments = parse_arguments()
    config = load_config(arguments.config)
    result = time_training(config, repeats=arguments.repeats)
    print(
        f"training step   median {result['step_seconds'] * 1e3:.0f} ms, "
        f"{result['clips_per_second']:.1f} clips/s, batch {config.train.batch_size}, "
        f"first call {result['first_call_seconds']:.1f} s, peak {result['peak_mib']:.0f} MiB"
    )
    if arguments.records:
        result["pipeline"] = time_pipeline(config, arguments.records, result["input_frames"])
        rate = result["pipeline"]["batches"]["windows_per_second"]
        result["pipeline_over_training"] = rate / result["clips_per_second"]
        print(
            f"input pipeline  {rate:.1f} clips/s, {result['pipeline_over_training']:.1f} times the "
            "training step"
        )
    if arguments.output:
        write_json(arguments.output, result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=pathlib.Path, default="configs/moving_actors.py")
    parser.add_argument("--records", type=pathlib.Path, help="clip records to time the pipeline on")
    parser.add_argument("--repeats", type=int, default=20, help="steps that are timed (20)")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    return parser.parse_args()


def load_config(path: pathlib.Path) -> ConfigDict:
    """The configuration of a file, with its defaults."""
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def time_training(config: ConfigDict, *, repeats: int) -> dict:
    """Builds what train.py builds and runs it on one random batch."""
    detector = build_detector(num_classes=NUM_CLASSES, **config.model.to_dict())
    optimizer = make_optimizer(
        make_schedule(kind="constant", learning_rate=1e-4, total_steps=repeats)
    )
    side = config.data.image_size
    tubes = proposals.initial_tubes(
        config.proposals, num_frames=detector.plan.chunk, height=side, width=side
    )
    key = jax.random.key(0)
    variables = init_variables(detector, image_size=side, num_proposals=len(tubes), key=key)
    state = create_train_state(variables, optimizer)
    options = LossOptions(**config.loss.to_dict())
    step = parallel.data_parallel(
        make_train_step(detector, optimizer, proposals=tubes, options=options), donate=True
    )
    batch = parallel.split_batch(random_batch(config, input_frames(detector)))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        state, metrics = step(state, batch, key)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[1:]))
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "precision": config.model.precision,
        "batch_size": config.train.batch_size,
        "input_frames": input_frames(detector),
        "first_call_seconds": seconds[0],
        "step_seconds": median,
        "clips_per_second": config.train.batch_size / median,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def random_batch(config: ConfigDict, frames: int) -> dict[str, np.ndarray]:
    """Noise with one ground-truth tube a clip; the shapes are what the time depends on."""
    rng = np.random.default_rng(0)
    batch, side, tubes = config.train.batch_size, config.data.image_size, config.data.max_tubes
    boxes = np.zeros((batch, tubes, frames, 4), np.float32)
    boxes[:, 0] = np.array([0.3, 0.2, 0.6, 0.8]) * side
    mask = np.zeros((batch, tubes), bool)
    mask[:, 0] = True
    labels = np.zeros((batch, tubes, NUM_CLASSES), np.float32)
    labels[:, 0, 0] = 1
    return {
        "clips": rng.integers(0, 256, (batch, frames, side, side, 3), np.uint8),
        "boxes": boxes,
        "box_mask": np.repeat(mask[:, :, None], frames, axis=2),
        "labels": labels,
        "tube_mask": mask,
    }


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
