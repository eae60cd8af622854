"""Figure 6: how fast detectors of more and more steps and proposals are, on this machine.

    python -m benchmarks.claims.speed --output runs/claims/speed.json [--scale small]

Weights are random, which the speed does not depend on. One window at a time; the detectors take
turns, so that what else the machine does falls on all of them. Frames a second are those of
windows that do not overlap: K over the median time. Decoding and flow are not in it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from collections.abc import Callable
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
        extension = "anticipate" if steps > 1 else "none"  # of a single step there is none
        found[f"extended_{steps}"] = ucf101_24.steps(steps, extension=extension)
    for number, row in PROPOSALS.items():
        found[f"proposals_{number}"] = matrix.ROWS[row]
    found["dense"] = matrix.ROWS["dense"]
    found["early"] = matrix.ROWS["table1b_early"]
    return found


def measure(scale: str, *, rounds: int) -> dict[str, dict[str, Any]]:
    """name of `changes` -> median seconds of a window and frames per second."""
    preset = config.get_config(f"{scale}/{matrix.FULL}")
    detectors = {
        name: configuration.describe("configs/moving_actors.py", configuration.changed(preset, own))
        for name, own in changes().items()
    }
    # What has two names is one detector, which is measured once.
    keys = {name: json.dumps(described, sort_keys=True) for name, described in detectors.items()}
    calls, frames = {}, preset.model.clip_frames
    for name, key in tqdm.tqdm(keys.items(), desc="compiling"):
        if key not in calls:
            calls[key] = _detector(detectors[name])
            calls[key]()
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    for _ in tqdm.trange(rounds, desc="timing"):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    medians = {name: float(np.median(seconds[key])) for name, key in keys.items()}
    return {
        name: {"seconds": median, "frames_per_second": frames / median}
        for name, median in medians.items()
    }


def _detector(described: dict[str, Any]) -> Callable[[], Any]:
    """A call of the detector on a clip of the host's, until its result is there."""
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
