"""The paper's claims on the embedded benchmark: trains all rows, compares, writes the page.

    python -m benchmarks.claims --output runs/claims [--seeds 3] [--first_seed 0] [--only dense]

Renders moving_actors, computes its flow (DIS), makes records, trains and evaluates every row of
benchmarks/claims/matrix.py with every seed, fuses, and writes OUTPUT/results.json, whose numbers
`python -m benchmarks.claims.page` puts on docs/claims.md. Runs go side by side, each on a core of
its own; what is finished is kept, and what was interrupted continues: the same command goes on.
Seeds may be of different machines (--first_seed): the page puts their results together.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import time
from typing import Any

import tqdm

from benchmarks import machine
from benchmarks.claims import matrix, preparation, results
from benchmarks.claims.runs import Run, Runner, planned, row_names
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.folder_lock import locked_folder


def main() -> None:
    arguments = parse_arguments()
    scale = matrix.SCALES[arguments.scale]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    runs = planned(arguments.only or [*matrix.ROWS, *matrix.DERIVED], seeds)
    signal.signal(signal.SIGTERM, _interrupt)
    with locked_folder(arguments.output):
        data = preparation.prepare(scale, arguments.data or arguments.output / "data")
        runner = Runner(scale, arguments.output, data, together=arguments.together)
        try:
            make_all(runner, runs)
        finally:  # however it ends, what is finished counts
            write_results(arguments, scale, runner)
    print(f"{arguments.output / results.FILE}; the page: python -m benchmarks.claims.page")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", type=row_names, default=(), help="rows, comma-separated (all)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of every row (3)")
    parser.add_argument("--first_seed", type=int, default=0, help="the others follow it (0)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/claims"))
    parser.add_argument("--data", type=pathlib.Path, help="of the benchmark (OUTPUT/data)")
    parser.add_argument("--scale", choices=matrix.SCALES, default="small")
    parser.add_argument("--together", type=int, help="runs side by side (the scale's)")
    arguments = parser.parse_args()
    for name, least in (("seeds", 1), ("first_seed", 0), ("together", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: expected {least} or more")
    if arguments.first_seed + arguments.seeds > _MOST_SEEDS:
        raise InputError(f"--first_seed, --seeds: expected seeds below {_MOST_SEEDS}")
    return arguments


def _interrupt(*_: object) -> None:
    """SIGTERM ends the runs as Ctrl-C does: they save what they have."""
    raise KeyboardInterrupt


def make_all(runner: Runner, runs: list[Run]) -> None:
    """Makes what is missing, with a line for each run that is finished and the time that is left.

    A row takes as long as with another seed, or as the mean of those that are known.
    """
    known = {run: done["seconds"] for run in runs if (done := runner.done(run))}
    left = [run for run in runs if run not in known]
    print(f"{len(known)} of {len(runs)} runs are finished")
    with tqdm.tqdm(total=len(runs), initial=len(known), unit="run") as bar:
        for run, seconds in runner.make(left):
            known[run] = seconds
            left.remove(run)
            frame_map = results.reduced(runner.metrics(run))["frame_map"]
            told = " ".join(f"{value:.1f}" for value in frame_map)
            bar.write(f"{time.strftime('%H:%M:%S')}  {run.name}: {told}  ({seconds:.0f} s)")
            bar.set_postfix_str(f"{seconds_left(known, left) / runner.together / 60:.0f} min left")
            bar.update()


def seconds_left(known: dict[Run, float], left: list[Run]) -> float:
    """Of the runs that are `left`, one after the other."""
    mean = sum(known.values()) / len(known)
    of_row = {run.row: seconds for run, seconds in known.items()}
    return sum(of_row.get(run.row, mean) for run in left)


def write_results(arguments: argparse.Namespace, scale: matrix.Scale, runner: Runner) -> None:
    """Of all finished runs that are in the folder, those of earlier calls too."""
    everything = planned([*matrix.ROWS, *matrix.DERIVED], range(_MOST_SEEDS))
    write_json(
        arguments.output / results.FILE,
        {
            "machines": [_machine()],
            "records": runner.data.digest,
            **results.described(scale),
            "runs": results.collect(runner, everything),
        },
    )


def _machine() -> dict[str, Any]:
    """What numbers may depend on; the load is no part of that."""
    return {key: value for key, value in machine.describe().items() if key != "load"}


_MOST_SEEDS = 100

if __name__ == "__main__":
    run_command(main)
