"""Trains with a watcher beside, kills both again and again, and looks whether anything was lost.

    python -m benchmarks.soak --minutes 30 --output runs/soak --straight

trains the embedded benchmark while `evaluate.py --watch` evaluates its checkpoints. Every two
minutes one of the two, in turn, is killed (SIGKILL; now and then SIGTERM) and started again. The
resident memory of both is sampled all the time. At the end it checks the log, the evaluations and
the memory; with --straight it trains a second time without disturbance and compares the parameters
bit for bit. Writes soak.json and soak.png.

The number of steps is settled first, by a short training that also fills the cache of compiled
programs: as many as take about --minutes. Flags --config.KEY=VALUE go on to train.py.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks import demo, machine
from benchmarks.soak import checks, growth
from benchmarks.soak.drawing import draw
from benchmarks.soak.lives import Life, Program
from benchmarks.soak.schedule import TRAIN, WATCH
from benchmarks.soak.soak import Soak, checkpoint_steps
from step_jax import run_folder
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.training_log import read_log

CONFIG = "configs/moving_actors.py"
_PROBE_STEPS = 40
# Of the time that there is: imports, loading of programs, steps made twice, the watcher's share.
_USEFUL_SHARE = 0.5
_LONGER = 3.0  # times --minutes, and it is given up


def main() -> int:
    arguments, flags = parse_arguments()
    if arguments.output.exists() and any(arguments.output.iterdir()):
        raise InputError(f"--output {arguments.output}: is not empty; choose another folder")
    logs = arguments.output / "logs"
    logs.mkdir(parents=True)
    run = Runs(arguments, data_flags(arguments, flags) + flags)
    rate = arguments.steps and 0.0
    if not arguments.steps:
        rate = run.probe()
        arguments.steps = max(1, round(_USEFUL_SHARE * rate * 60 * arguments.minutes))
        print(f"{rate:.2f} steps a second; {arguments.steps} steps")
    soak = run.soak()
    lives = {name: program.lives for name, program in soak.programs.items()}
    found = run.check(soak)
    if arguments.straight:
        lives["undisturbed"], more = run.straight()
        found += more
    return report(arguments, found, lives)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the flags that are train.py's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of soaking, about (30)")
    parser.add_argument("--steps", type=int, default=0, help="of training, instead of --minutes")
    parser.add_argument("--kill_every", type=float, default=120.0, help="seconds (120)")
    parser.add_argument("--sample_every", type=float, default=2.0, help="seconds (2)")
    parser.add_argument("--checkpoint_every", type=int, default=50, help="steps (50)")
    parser.add_argument("--limit", type=float, default=2.0, help="of growth, MiB a minute (2)")
    parser.add_argument("--straight", action="store_true", help="train again, undisturbed; compare")
    parser.add_argument("--config", default=CONFIG, help=f"FILE or FILE:VARIANT ({CONFIG})")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("runs/data"),
                        help="the embedded data set, made if missing (runs/data)")  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/soak"))
    arguments, flags = parser.parse_known_args()
    for flag in flags:
        if not flag.startswith("--config."):
            parser.error(f"{flag}: no such flag")
    return arguments, flags


def data_flags(arguments: argparse.Namespace, flags: list[str]) -> list[str]:
    """Where the embedded data set is, which is made if it is not there."""
    if any(flag.startswith("--config.data.records=") for flag in flags):
        return []
    data = arguments.data
    if not (data / "records" / "records.json").exists():
        size = argparse.Namespace(data=data, train_videos=320, test_videos=64)
        for phase in demo.data_phases(size):
            print(f"== {phase.name}", flush=True)
            subprocess.run(phase.command, check=True)
    return [
        f"--config.data.records={data / 'records'}",
        f"--config.data.annotations={data / 'moving_actors' / 'annotations.json'}",
        "--config.data.eval_videos=test_000*",  # a watcher that keeps up
    ]


class Runs:
    """The trainings of a soak: one to measure the speed, the soaked one, the undisturbed one."""

    def __init__(self, arguments: argparse.Namespace, flags: list[str]):
        self._arguments, self._output = arguments, arguments.output
        self._workdir, self._straight = self._output / "run", self._output / "straight"
        self._flags = [
            f"--config={arguments.config}",
            "--config.train.log_every_steps=1",
            f"--config.train.checkpoint_every_steps={arguments.checkpoint_every}",
            "--config.train.eval_every_steps=0",
            *flags,
        ]
        cache = self._output / "compiled"
        self._environment = {
            "JAX_COMPILATION_CACHE_DIR": os.environ.get(
                "JAX_COMPILATION_CACHE_DIR", str(cache.absolute())
            ),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def probe(self) -> float:
        """Steps a second of training alone."""
        workdir = self._output / "probe"
        self._train_alone(workdir, steps=_PROBE_STEPS)
        batch = run_folder.read_config(workdir)["train"]["batch_size"]
        found = [line["clips_per_second"] for line in read_log(workdir)[1:]]  # less the first
        return statistics.median(found) / batch

    def soak(self) -> Soak:
        """The soaked training and its watcher, to their ends."""
        arguments = self._arguments
        watch = [sys.executable, "evaluate.py", "--watch", f"--workdir={self._workdir}"]
        soak = Soak(
            {TRAIN: self._command(self._workdir, arguments.steps), WATCH: watch},
            workdir=self._workdir,
            logs=self._output / "logs",
            environment=self._environment,
            steps=arguments.steps,
            end_every=arguments.kill_every,
            sample_every=arguments.sample_every,
            at_most=60 * _LONGER * arguments.minutes,
        )
        soak.run()
        return soak

    def check(self, soak: Soak) -> list[checks.Check]:
        """What can be told without a second training."""
        steps, limit = self._arguments.steps, self._arguments.limit
        kept = checkpoint_steps(self._workdir)
        lives = {name: program.lives for name, program in soak.programs.items()}
        return [
            checks.check_finished(self._workdir, steps),
            checks.check_log(self._workdir, steps),
            checks.check_evaluations(self._workdir, kept, soak.versions),
            checks.check_ends(lives),
            *(checks.check_growth(name, grown(own), limit=limit) for name, own in lives.items()),
        ]

    def straight(self) -> tuple[list[Life], list[checks.Check]]:
        """The same training undisturbed, and how the soaked one compares."""
        steps = self._arguments.steps
        lives = self._train_alone(self._straight, steps=steps)
        return lives, [
            checks.check_same_arrays(self._workdir, self._straight, steps),
            checks.check_same_losses(self._workdir, self._straight),
            checks.check_growth("undisturbed", grown(lives), limit=self._arguments.limit),
        ]

    def _train_alone(self, workdir: pathlib.Path, *, steps: int) -> list[Life]:
        program = Program(
            self._command(workdir, steps),
            log=self._output / "logs" / f"{workdir.name}.txt",
            environment=self._environment,
            began=time.monotonic(),
        )
        print(f"training {steps} steps undisturbed", flush=True)
        try:
            program.start()
            while program.is_alive:
                program.sample()
                program.wait(self._arguments.sample_every)
        finally:
            program.kill()
        if program.lives[0].status != 0:
            raise InputError(f"training failed; see {self._output / 'logs'}")
        return program.lives

    def _command(self, workdir: pathlib.Path, steps: int) -> list[str]:
        return [
            sys.executable, "train.py", f"--workdir={workdir}", *self._flags,
            f"--config.train.steps={steps}",
        ]  # fmt: skip


def grown(lives: list[Life]) -> growth.Growth | None:
    return growth.common_growth([growth.settled(life.samples) for life in lives])


def report(
    arguments: argparse.Namespace, found: list[checks.Check], lives: dict[str, list[Life]]
) -> int:
    """Prints, writes and draws; the exit status."""
    output = arguments.output
    told = {
        "machine": machine.describe(),
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "checks": [vars(check) for check in found],
        "lives": {name: [vars(life) for life in own] for name, own in lives.items()},
    }
    write_json(output / "soak.json", told)
    draw(lives, output / "soak.png", title=f"resident memory, {arguments.steps} steps")
    for check in found:
        print(check)
    print(f"{output / 'soak.json'}\n{output / 'soak.png'}")
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    run_command(main)
