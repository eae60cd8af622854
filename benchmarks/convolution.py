"""Times the I3D detector's convolutions: `python -m benchmarks.convolution`.

Prints for every kind of layer, at one clip of 36x400x400 and 34 proposals, the arithmetic of the
plain convolution, the median time of this project's formulation and of XLA's own, forward and
forward with both gradients, and which share of the machine's matrix rate that would be. Winograd's
filters take less arithmetic than is counted, so a share may exceed 100 %.
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import arithmetic, machine
from benchmarks.roi import median_ms
from step_jax.cli import run_command
from step_jax.files import write_json
from step_jax.models import platform
from step_jax.models.conv import conv3d

Array = jax.Array
Sizes = tuple[int, int, int]


class Layer(NamedTuple):
    """One kind of convolution: `batch` maps of `sizes` (T, H, W), `calls` of it in the model."""

    name: str
    batch: int
    sizes: Sizes
    channels: int
    features: int
    taps: Sizes = (3, 3, 3)
    strides: Sizes = (1, 1, 1)
    calls: int = 1

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """The released model's: zeros of kernel - stride, the smaller half before."""
        totals = [max(k - s, 0) for k, s in zip(self.taps, self.strides, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)

    @property
    def gflop(self) -> float:
        outputs = [
            -(-size // stride) for size, stride in zip(self.sizes, self.strides, strict=True)
        ]
        pairs = self.batch * math.prod(outputs) * math.prod(self.taps)
        return 2e-9 * pairs * self.channels * self.features


LAYERS = (
    Layer("conv_1a", 1, (36, 400, 400), 3, 64, (7, 7, 7), (2, 2, 2)),
    Layer("conv_2b", 1, (18, 100, 100), 64, 64, (1, 1, 1)),
    Layer("conv_2c", 1, (18, 100, 100), 64, 192),
    Layer("3b branch 0", 1, (18, 50, 50), 192, 64, (1, 1, 1)),
    Layer("3b branch 1", 1, (18, 50, 50), 96, 128),
    Layer("3b branch 2", 1, (18, 50, 50), 16, 32),
    Layer("3c branch 0", 1, (18, 50, 50), 256, 128, (1, 1, 1)),
    Layer("3c branch 1", 1, (18, 50, 50), 128, 192),
    Layer("3c branch 2", 1, (18, 50, 50), 32, 96),
    Layer("4c branch 0", 1, (9, 25, 25), 512, 160, (1, 1, 1)),
    Layer("4b branch 1", 1, (9, 25, 25), 96, 208),
    Layer("4c branch 1", 1, (9, 25, 25), 112, 224),
    Layer("4d branch 1", 1, (9, 25, 25), 128, 256),
    Layer("4e branch 1", 1, (9, 25, 25), 144, 288),
    Layer("4f branch 1", 1, (9, 25, 25), 160, 320),
    Layer("4d branch 2", 1, (9, 25, 25), 24, 64),
    Layer("4f branch 2", 1, (9, 25, 25), 32, 128),
    Layer("5b branch 1, RoIs", 34, (3, 7, 7), 160, 320, calls=2),
    Layer("5c branch 1, RoIs", 34, (3, 7, 7), 192, 384, calls=2),
    Layer("5c branch 2, RoIs", 34, (3, 7, 7), 48, 128, calls=2),
    Layer("5c branch 0, RoIs", 34, (3, 7, 7), 832, 384, (1, 1, 1), calls=2),
    Layer("5b branch 1, long", 34, (9, 7, 7), 160, 320),
    Layer("5c branch 1, long", 34, (9, 7, 7), 192, 384),
    Layer("local 3x3", 34 * 3, (1, 7, 7), 256, 256, (1, 3, 3), calls=6),
)


def plain(x: Array, kernel: Array, *, strides: Sizes, padding: Sequence) -> Array:
    """The convolution as accelerators get it."""
    with platform.assumed("gpu"):
        return conv3d(x, kernel, strides=strides, padding=padding)


FORMULATIONS = {"ours": conv3d, "plain": plain}


def time_layer(
    convolve: Callable, layer: Layer, *, dtype: str, repeats: int, input_gradient: bool
) -> tuple[float, float]:
    """Milliseconds forward, and forward and backward together."""
    rng = np.random.default_rng(0)
    shape = (*layer.taps, layer.channels, layer.features)
    x = jnp.asarray(rng.random((layer.batch, *layer.sizes, layer.channels)), dtype)
    kernel = jnp.asarray(rng.normal(size=shape) / math.sqrt(math.prod(shape[:4])), dtype)
    convolve = functools.partial(convolve, strides=layer.strides, padding=layer.padding)

    @jax.jit
    def both(x, kernel):
        out, pull_back = jax.vjp(convolve, x, kernel)
        gradients = pull_back(out)
        return out, gradients if input_gradient else gradients[1]

    forward = median_ms(jax.jit(convolve), x, kernel, repeats=repeats)
    return forward, median_ms(both, x, kernel, repeats=repeats)


def measure(layer: Layer, names: Sequence[str], *, dtype: str, repeats: int) -> dict:
    """A row of the table: the layer, its arithmetic and every formulation's milliseconds."""
    result = {"layer": layer.name, "calls": layer.calls, "gflop": layer.gflop}
    for name in names:
        forward, both = time_layer(
            FORMULATIONS[name],
            layer,
            dtype=dtype,
            repeats=repeats,
            input_gradient=layer.name != "conv_1a",  # nothing before the first layer learns
        )
        result[name] = {"forward_ms": forward, "with_backward_ms": both}
    return result


def line(row: dict, names: Sequence[str], rate: float) -> str:
    """`rate` in operations a second; a backward pass counts twice a forward one."""
    cells = [f"{row['layer']:<19}{row['calls']:>2}{row['gflop']:>8.1f}"]
    for name in names:
        forward, both = row[name]["forward_ms"], row[name]["with_backward_ms"]
        shares = [1e14 * n * row["gflop"] / ms / rate for n, ms in ((1, forward), (3, both))]
        cells.append(f"{forward:>10.1f}{shares[0]:>5.0f}%{both:>10.1f}{shares[1]:>5.0f}%")
    return "".join(cells)


def totals(rows: Sequence[dict], name: str) -> tuple[float, float]:
    keys = ("forward_ms", "with_backward_ms")
    return tuple(sum(row["calls"] * row[name][key] for row in rows) for key in keys)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolution", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed calls (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--layers", default="", help="only those whose name contains this")
    parser.add_argument(
        "--skip_plain", action="store_true", help="its backward pass takes minutes on a CPU"
    )
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the numbers")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    names = ["ours"] if arguments.skip_plain else list(FORMULATIONS)
    described = machine.describe()
    rate = arithmetic.matrix_rate(arguments.dtype).flops_per_second
    print(machine.summary(described))
    print(f"{arguments.dtype}, matrices {rate / 1e9:.0f} GFLOP/s, median of {arguments.repeats}")
    heads = "".join(f"{name + ': ms':>10}{'':>6}{'+backward':>10}{'':>6}" for name in names)
    print(f"{'layer':<19}{'x':>2}{'GFLOP':>8}{heads}")
    rows = []
    for layer in LAYERS:
        if arguments.layers in layer.name:
            row = measure(layer, names, dtype=arguments.dtype, repeats=arguments.repeats)
            rows.append(row)
            print(line(row, names, rate), flush=True)
    for name in names:
        forward, both = totals(rows, name)
        print(f"{name}, all calls: {forward:.0f} ms forward, {both:.0f} ms with backward")
    if arguments.output:
        result = {"machine": described, "dtype": arguments.dtype, "flops_per_second": rate}
        write_json(arguments.output, result | {"layers": rows})


if __name__ == "__main__":
    run_command(main)
