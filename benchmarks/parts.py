"""A computation's parts, each compiled, counted and timed for itself, and the table of them."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks import arithmetic, machine


@dataclasses.dataclass(frozen=True)
class Measured:
    """One part.

    Attributes:
      name: what it is called in the table.
      seconds: of every timed call.
      flops: of the plain formulation.
      temporary_bytes: what it needs beside its inputs and outputs; None where that is not known.
    """

    name: str
    seconds: tuple[float, ...]
    flops: int
    temporary_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def report(self) -> dict:
        """JSON-ready."""
        return {
            "part": self.name,
            "median_seconds": self.median,
            "minimum_seconds": min(self.seconds),
            "gflop": self.flops / 1e9,
            "temporary_mib": _mib(self.temporary_bytes),
        }


class Parts:
    """Measures one part after the other: `output = parts.run(name, function, *arguments)`.

    Attributes:
      measured: the parts so far.
    """

    def __init__(self, repeats: int):
        self.measured: list[Measured] = []
        self._repeats = repeats

    def run(self, name: str, function: Callable, *arguments: Any) -> Any:
        """Compiles `function`, times it on `arguments` and returns what it gives."""
        compiled = jax.jit(function).lower(*arguments).compile()
        output, seconds = time_calls(lambda: compiled(*arguments), repeats=self._repeats)
        memory = compiled.memory_analysis()
        self.measured.append(
            Measured(
                name,
                seconds[1:],
                arithmetic.plain_flops(function, *arguments),
                None if memory is None else memory.temp_size_in_bytes,
            )
        )
        return output


def time_calls(call: Callable[[], Any], *, repeats: int) -> tuple[Any, tuple[float, ...]]:
    """What the last of 1 + `repeats` calls gave, and the seconds of each; the first may compile."""
    seconds = []
    for _ in range(repeats + 1):
        output = None  # frees what the call before gave
        start = time.perf_counter()
        output = jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return output, tuple(seconds)


def time_whole(
    call: Callable[[], Any], flops: int, *, repeats: int
) -> tuple[Measured, dict[str, float]]:
    """The whole, after a first call that compiles; the memory that both took, JSON-ready."""
    machine.forget_peak()
    memory = {"before_mib": machine.peak_mib()}
    _, (memory["first_call_seconds"],) = time_calls(call, repeats=0)
    memory["peak_with_compilation_mib"] = machine.peak_mib()
    machine.forget_peak()
    seconds = time_calls(call, repeats=repeats)[1]
    memory["peak_mib"] = machine.peak_mib()
    return Measured("whole", seconds[1:], flops), memory


def speed_line(seconds: float, shape: Sequence[int], memory: dict[str, float]) -> str:
    """What `time_whole` found of clips `[B, T, ...]`, in a line."""
    return (
        f"{shape[0] / seconds:.3g} clips/s, {shape[0] * shape[1] / seconds:.4g} frames/s; "
        f"peak {memory['peak_mib']:.0f} MiB ({memory['before_mib']:.0f} before the first call, "
        f"{memory['peak_with_compilation_mib']:.0f} at most in it); first call "
        f"{memory['first_call_seconds']:.1f} s"
    )


def report(
    whole: Measured,
    parts: Sequence[Measured],
    rate: arithmetic.MatrixRate,
    *,
    forwards: Sequence[Measured] = (),
    peak_tflops: float | None = None,
) -> dict:
    """All numbers, JSON-ready: of the whole, its parts, and what they do not explain.

    `forwards` are those of the parts that have a backward pass, without it, by the same names.

    `share_of_matrix_rate` is the time that the operations would take at the measured rate of a
    matrix product, over the time they took; `share_of_peak` the same at the `peak_tflops` that the
    hardware is said to have.
    """

    forward_seconds = {one.name: one.median for one in forwards}

    def row(one: Measured) -> dict:
        more = {"share_of_matrix_rate": one.flops / one.median / rate.flops_per_second}
        if peak_tflops:
            more["share_of_peak"] = one.flops / one.median / (peak_tflops * 1e12)
        if one.name in forward_seconds:
            more["forward_median_seconds"] = forward_seconds[one.name]
        return one.report() | more

    return {
        "matrix_gflops_per_second": rate.flops_per_second / 1e9,
        "matrix_shape": rate.shape,
        "whole": row(whole),
        "parts": [row(part) for part in parts],
        "rest_seconds": whole.median - sum(part.median for part in parts) if parts else None,
    }


def table(reported: dict) -> str:
    """`report` as text."""
    whole = reported["whole"]
    rows = [*reported["parts"], whole]
    columns = {
        "median ms": lambda row: f"{row['median_seconds'] * 1e3:.1f}",
        "min ms": lambda row: f"{row['minimum_seconds'] * 1e3:.1f}",
        "forward ms": lambda row: f"{row['forward_median_seconds'] * 1e3:.1f}",
        "time": lambda row: f"{row['median_seconds'] / whole['median_seconds']:.0%}",
        "GFLOP": lambda row: f"{row['gflop']:.2f}",
        "of matrix rate": lambda row: f"{row['share_of_matrix_rate']:.0%}",
        "of peak": lambda row: f"{row['share_of_peak']:.1%}",
        "temporary MiB": lambda row: f"{row['temporary_mib']:.0f}",
    }
    cells = {name: [_cell(show, row) for row in rows] for name, show in columns.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    lines = [" " * 22 + "".join(f"{name:>16}" for name in cells)]
    for index, row in enumerate(rows):
        values = "".join(f"{column[index]:>16}" for column in cells.values())
        lines.append(f"{row['part']:<22}{values}")
    if reported["rest_seconds"] is not None:
        lines.append(f"{'whole less its parts':<22}{reported['rest_seconds'] * 1e3:>16.1f}")
    rate, shape = reported["matrix_gflops_per_second"], reported["matrix_shape"]
    lines.append(f"matrix rate {rate:.1f} GFLOP/s, at {' x '.join(map(str, shape))}")
    return "\n".join(lines)


def _cell(show: Callable[[dict], str], row: dict) -> str:
    """Empty where the row lacks the number."""
    try:
        return show(row)
    except (KeyError, TypeError):
        return ""


def _mib(number: int | None) -> float | None:
    return None if number is None else number / 2**20
