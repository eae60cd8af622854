"""What a training step costs, over everything that it grows with.

    python -m benchmarks.scaling --output runs/scaling [--config configs/moving_actors.py]

times the training step on random batches made in memory: the same batch on 1, 2, 4 and 8 devices,
and without any wrapper; 11, 34 and 109 proposals; 1 to 4 steps, with and without temporal
extension; windows, batches, accumulation, and computing again in the backward pass. Each step has
a process of its own; those of a sweep take turns, so that what else the machine does falls on all
of them. Prints tables, and writes scaling.json and scaling.png. The same command goes on where it
was interrupted.

On a CPU the devices are virtual: they share its cores, so that what more of them cost is the
wrapper's. Compared and drawn is the processor's time, of all cores together, which other programs
hardly change. On GPUs the devices are real and seconds count, and there is one sweep more: batch 1
to the largest that fits, of every precision, with and without remat. --peak_tflops (of the
hardware's data sheet) gives the share of the peak.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import tqdm

from benchmarks import configuration, machine
from benchmarks.scaling import cases, drawing
from benchmarks.scaling.cases import Case
from benchmarks.scaling.largest import measure_up_to_largest
from benchmarks.scaling.measurements import Measurement
from benchmarks.scaling.rounds import Rounds
from benchmarks.scaling.table import table
from benchmarks.scaling.workers import find_hardware
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json

_TOGETHER_ON_CPU = 8
_LARGEST = "largest"


def main() -> None:
    arguments = parse_arguments()
    config = configuration.load_config(arguments.config)
    hardware, described = find_hardware()
    print(machine.summary(described))
    planned = cases.sweeps(config, hardware, arguments.sweeps)
    scaling = Scaling(
        arguments,
        config,
        rounds=Rounds(
            arguments.config,
            hardware=hardware,
            output=arguments.output,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            # Accelerators' memory is not for several programs at a time.
            together=arguments.together or (_TOGETHER_ON_CPU if hardware.is_cpu else 1),
        ),
    )
    measured = scaling.measure(planned)
    by = "cpu_seconds" if hardware.is_cpu else "seconds"
    rows = {
        sweep: [one.row(by=by, peak_tflops=arguments.peak_tflops) for one in found]
        for sweep, found in measured.items()
    }
    for sweep, found in rows.items():
        print(f"\n{table(sweep, found)}")
    write_json(
        arguments.output / "scaling.json",
        {
            "machine": described,
            "config": arguments.config,
            "rows": rows,
            "measurements": [one.to_json() for found in measured.values() for one in found],
        },
    )
    title = f"training step of {arguments.config}, {described['processor']}"
    cost = "processor ms a clip" if hardware.is_cpu else "ms a clip"
    drawing.draw(rows, arguments.output / "scaling.png", title=title, cost=cost)
    print(f"\n{arguments.output / 'scaling.json'}\n{arguments.output / 'scaling.png'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", default="configs/moving_actors.py", help="FILE or FILE:VARIANT")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("runs/scaling"), help="(runs/scaling)"
    )
    parser.add_argument(
        "--sweeps", type=_names, default=(), help=f"some of {','.join(cases.SWEEPS)} (all)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="timings of each step (7)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a timing (1.5)")
    parser.add_argument("--together", type=int, help="steps that take turns (8; accelerators: 1)")
    parser.add_argument("--peak_tflops", type=float, help="of one device, for the share of it")
    parser.add_argument("--largest", type=int, default=1024, help="batch that is tried (1024)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        raise InputError(f"--rounds {arguments.rounds}: expected 1 or more")
    return arguments


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


class Scaling:
    """The measurements of all sweeps, on disk as they are made."""

    def __init__(self, arguments: argparse.Namespace, config: Any, *, rounds: Rounds):
        self._folder, self._limit = arguments.output / "measurements", arguments.largest
        self._config, self._rounds = config, rounds

    def measure(self, planned: dict[str, list[Case]]) -> dict[str, list[Measurement]]:
        """Every sweep's, those that were made before included."""
        measured = {}
        with tqdm.tqdm(total=sum(map(len, planned.values())), unit="step") as progress:
            for sweep, own in planned.items():
                progress.set_description(sweep)
                if sweep == _LARGEST:
                    measured[sweep] = self._measure_largest(own, progress)
                else:
                    measured[sweep] = [self._open(case) for case in own]
                    self._rounds.measure(measured[sweep], progress)
        return measured

    def _measure_largest(self, own: list[Case], progress: tqdm.tqdm) -> list[Measurement]:
        def measure(case: Case) -> Measurement:
            one = self._open(case)
            progress.total += 1
            self._rounds.measure([one], progress)
            return one

        found = []
        for case in own:
            found += measure_up_to_largest(case, measure, limit=self._limit)
        return found

    def _open(self, case: Case) -> Measurement:
        path = self._folder / f"{case.name}.json"
        return Measurement(case, path, cases.digest(self._config, case))


if __name__ == "__main__":
    run_command(main)
