"""Figure 6: how fast detectors of more and more steps and proposals are, on this machine.

    python -m benchmarks.claims.speed --output runs/claims/speed.json [--scale small]

Weights are random, which the speed does not depend on. One window at a time; the detectors take
turns, so that what else the machine does falls on all of them. Frames a second are those of
windows that do not overlap: K over the median time.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import jax
import numpy as np
import tqdm

from benchmarks import configuration, inference, machine
from benchmarks.claims import config, matrix
from benchmarks.claims.layout import PROPOSALS
from configs import ucf101_24
from step_jax import proposals
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.inference import abstract_predictor
from step_jax.train_state import init_variables


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims.speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=pathlib.Path, default="runs/claims/speed.json")
    parser.add_argument("--scale", choices=matrix.SCALES, default="small")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each (15)")
    arguments = parser.parse_args()
    described = machine.describe()
    print(machine.summary(described))
    measured = measure(arguments.scale, rounds=arguments.rounds)
    for name, one in measured.items():
        print(f"{name:16}{one['frames_per_second']:10.1f} frames/s")
    write_json(arguments.output, {"machine": described, "speed": measured})


def changes() -> dict[str, matrix.Changes]:
    """What each detector has otherwise than the whole method."""
    found: dict[str, matrix.Changes] = {}
    for steps in (1, 2, 3, 4):
        found[f"steps_{steps}"] = ucf101_24.steps(steps)
        found[f"extended_{steps}"] = ucf101_24.steps(steps, extension="anticipate")
    for number, row in PROPOSALS.items():
        found[f"proposals_{number}"] = matrix.ROWS[row]
    found["dense"] = matrix.ROWS["dense"]
    return found


def measure(scale: str, *, rounds: int) -> dict[str, dict[str, Any]]:
    """name of `changes` -> median seconds of a window and frames per second."""
    preset = config.get_config(f"{scale}/{matrix.FULL}")
    calls, frames = {}, preset.model.clip_frames
    for name, own in tqdm.tqdm(changes().items(), desc="compiling"):
        calls[name] = _detector(configuration.changed(preset, own))
        calls[name]()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in tqdm.trange(rounds, desc="timing"):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "seconds": float(np.median(own)),
            "frames_per_second": frames / float(np.median(own)),
        }
        for name, own in seconds.items()
    }


def _detector(preset: Any) -> Any:
    """A call of the detector on a clip of the host's, until its result is there."""
    described = configuration.describe("configs/moving_actors.py", preset)
    boxes = proposals.initial_boxes(described["proposals"])
    abstract = abstract_predictor(described)
    variables = init_variables(
        abstract.detector,
        image_size=abstract.image_size,
        num_proposals=len(boxes),
        key=jax.random.key(0),
    )
    predictor = abstract.with_variables(variables, step=0)
    clips = inference.random_clips(predictor, batch=jax.local_device_count())
    return lambda: jax.block_until_ready(predictor(clips))


if __name__ == "__main__":
    run_command(main)
