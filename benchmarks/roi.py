"""Times RoI features: `python -m benchmarks.roi`.

Prints the median time of every formulation, forward and backward, at the size of the embedded
benchmark and at AVA's.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from step_jax.cli import run_command
from step_jax.models import roi


class Size(NamedTuple):
    """One workload: `frames` maps of side x side x channels, `tubes` boxes on each."""

    name: str
    frames: int
    side: int
    channels: int
    tubes: int
    output_size: int
    stride: int


SIZES = (
    Size("moving_actors", 30, side=12, channels=64, tubes=11, output_size=5, stride=8),
    Size("ucf101_24", 18, side=25, channels=512, tubes=11, output_size=7, stride=16),
    Size("ava", 9, side=25, channels=832, tubes=34, output_size=7, stride=16),
)


def align_with(interpolate, features, boxes, *, output_size, stride):
    """`roi.roi_align` with the way to interpolate fixed."""
    chosen, roi._interpolate = roi._interpolate, interpolate
    try:
        return roi.roi_align(features, boxes, output_size=output_size, stride=stride)
    finally:
        roi._interpolate = chosen


FORMULATIONS = {
    "align, one product": functools.partial(align_with, roi._interpolate_at_once),
    "align, by axis": functools.partial(align_with, roi._interpolate_by_axis),
    "pool": roi.roi_pool,
}


def make_inputs(size: Size, dtype: str):
    """Random features, valid boxes and an output gradient."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, size.side * size.stride, (size.frames, size.tubes, 2, 2))
    boxes = np.sort(corners, axis=-2).reshape(size.frames, size.tubes, 4)
    features = rng.normal(size=(size.frames, size.side, size.side, size.channels))
    grid = (size.output_size, size.output_size, size.channels)
    gradient = rng.normal(size=(size.frames, size.tubes, *grid))
    return jnp.asarray(features, dtype), jnp.asarray(boxes, "float32"), jnp.asarray(gradient, dtype)


def median_ms(function, *arguments, repeats: int) -> float:
    """The median wall time of a compiled call in milliseconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])  # the first one compiles


def time_formulation(pool, size: Size, *, dtype: str, repeats: int) -> tuple[float, float]:
    """Milliseconds forward, and forward and backward together."""
    features, boxes, gradient = make_inputs(size, dtype)
    pool = functools.partial(pool, output_size=size.output_size, stride=size.stride)

    @jax.jit
    def both(features, boxes, gradient):
        out, pull_back = jax.vjp(lambda features: pool(features, boxes), features)
        return out, pull_back(gradient)[0]

    forward = median_ms(jax.jit(pool), features, boxes, repeats=repeats)
    return forward, median_ms(both, features, boxes, gradient, repeats=repeats)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roi", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="timed calls (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {args.dtype}, median of {args.repeats} calls, ms")
    print(f"{'size':<15}{'formulation':<20}{'forward':>9}{'with backward':>15}")
    for size in SIZES:
        for name, pool in FORMULATIONS.items():
            times = time_formulation(pool, size, dtype=args.dtype, repeats=args.repeats)
            print(f"{size.name:<15}{name:<20}{times[0]:>9.1f}{times[1]:>15.1f}", flush=True)


if __name__ == "__main__":
    run_command(main)
