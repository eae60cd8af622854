"""Accuracy and time of the optical flows: `python -m benchmarks.flow --output flow.json`.

Prints the endpoint error of DIS and of Brox's flow on scenes whose flow is known, and the time a
frame at 320x240; with `--videos FOLDER` also how well the second of two real frames, warped by the
flow, agrees with the first. Run it under `taskset -c 0` for the times of one core.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import numpy as np

from benchmarks import flow_scenes, machine
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.flow.brox import BroxFlow
from step_jax.flow.brox_options import BroxOptions
from step_jax.flow.opencv_flow import dis
from step_jax.flow.sources import find_sources
from step_jax.video import read_frames

_EVERY_FRAMES = 15

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main() -> None:
    arguments = parse_arguments()
    methods = {"dis": dis(), "brox": BroxFlow(BroxOptions(), batch=1)}
    result = {"machine": machine.describe()}
    print(machine.summary(result["machine"]), flush=True)
    result["endpoint_error_px"] = endpoint_errors(methods)
    print_endpoint_errors(result["endpoint_error_px"])
    if arguments.videos:
        result["photometric_error"] = photometric_errors(methods, arguments.videos)
        print_photometric_errors(result["photometric_error"])
    result["time"] = times(arguments.batch, repeats=arguments.repeats)
    print_times(result["time"])
    if arguments.output:
        write_json(arguments.output, result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flow", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--videos", type=pathlib.Path, help="real videos, for photometric error")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="of Brox's flow")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, help="JSON file of all numbers")
    return parser.parse_args()


def endpoint_error(scene: flow_scenes.Scene, flow: np.ndarray) -> dict[str, float]:
    """Means over the visible pixels and over all, in pixels; flow [H, W, 2]."""
    error = np.linalg.norm(flow - scene.flow, axis=-1)
    return {"visible": float(error[scene.visible].mean()), "all": float(error.mean())}


def endpoint_errors(methods: dict[str, Flow]) -> dict[str, dict[str, Any]]:
    return {
        scene.name: {
            name: endpoint_error(scene, flow(scene.first[None], scene.second[None])[0])
            for name, flow in methods.items()
        }
        for scene in flow_scenes.scenes()
    }


def photometric_error(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> float:
    """Mean |first - warped second| in grey levels, of the pixels that stay inside the frame."""
    height, width = first.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    warped = cv2.remap(second.astype(np.float32), x, y, cv2.INTER_LINEAR)
    return float(np.abs(warped - first)[inside].mean())


def photometric_errors(methods: dict[str, Flow], folder: pathlib.Path) -> dict[str, Any]:
    """By video and method, over every 15th pair of frames."""
    methods = {"no flow": lambda first, second: np.zeros((*first.shape, 2), np.float32)} | methods
    errors = {}
    for source in find_sources(folder, output=folder / "none"):
        pairs = list(every_pair(frame for _, frame in read_frames(source.path)))
        errors[source.name] = {"pairs": len(pairs)} | {
            name: statistics.mean(
                photometric_error(*pair, flow(pair[0][None], pair[1][None])[0]) for pair in pairs
            )
            for name, flow in methods.items()
        }
    return errors


def every_pair(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    before = None
    for number, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if number % _EVERY_FRAMES == 1:
            yield before, grey
        before = grey


def times(batches: Iterable[int], *, repeats: int) -> dict[str, dict[str, float]]:
    """Of DIS and of Brox's flow at each batch: ms a pair, s of the first call, MiB at most."""
    scene = flow_scenes.square_over_background()
    result = {"dis": time_method(dis(), scene, batch=1, repeats=repeats)}
    for batch in batches:
        flow = BroxFlow(BroxOptions(), batch=batch)
        result[f"brox, batch {batch}"] = time_method(flow, scene, batch=batch, repeats=repeats)
    return result


def time_method(flow: Flow, scene: flow_scenes.Scene, *, batch: int, repeats: int):
    first, second = (np.stack([frame] * batch) for frame in (scene.first, scene.second))
    start = time.perf_counter()
    flow(first, second)
    compile_s = time.perf_counter() - start
    fresh = machine.forget_peak()
    milliseconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        flow(first, second)
        milliseconds.append(1e3 * (time.perf_counter() - start) / batch)
    return {
        "ms": statistics.median(milliseconds),
        "first_call_s": compile_s,
        "peak_mib": machine.peak_mib() if fresh else None,
    }


def print_endpoint_errors(errors: dict[str, Any]) -> None:
    print(f"\nendpoint error, px            {'visible pixels':>18} {'all pixels':>18}")
    methods = list(next(iter(errors.values())))
    print(" " * 30 + 2 * "".join(f"{name:>9}" for name in methods))
    for scene, by_method in errors.items():
        numbers = (by_method[name][part] for part in ("visible", "all") for name in methods)
        print(f"{scene:<30.30}" + "".join(f"{number:9.3f}" for number in numbers))


def print_photometric_errors(errors: dict[str, Any]) -> None:
    print("\nmean difference to the warped next frame, grey levels")
    for name, row in errors.items():
        numbers = "  ".join(f"{method} {error:.2f}" for method, error in row.items())
        print(f"{name:<28} {numbers}")


def print_times(rows: dict[str, Any]) -> None:
    print(f"\n320x240                {'ms a pair':>10} {'first call s':>13} {'peak MiB':>10}")
    for name, row in rows.items():
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        print(f"{name:<22} {row['ms']:10.1f} {row['first_call_s']:13.1f} {peak:>10}")


if __name__ == "__main__":
    run_command(main)
