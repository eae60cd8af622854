"""Trains and evaluates rows, each by the commands that users have, and keeps what is finished."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.claims import config, matrix
from step_jax import evaluations, run_folder
from step_jax.errors import InputError
from step_jax.files import write_json

SPLIT = "test"
_DONE, _SPENT, _LOG = "done.json", "spent.json", "log.txt"


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed: a training, or what is made of finished ones (`matrix.DERIVED`)."""

    row: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row}/seed{self.seed}"

    @property
    def parts(self) -> tuple[Run, ...]:
        """The trainings that it is made of, if it is none itself."""
        return tuple(Run(row, self.seed) for row in matrix.DERIVED.get(self.row, ()))

    def folder(self, output: pathlib.Path) -> pathlib.Path:
        return output / "runs" / self.row / f"seed{self.seed}"


def row_names(text: str) -> tuple[str, ...]:
    """Of a comma-separated option; `planned` checks them."""
    return tuple(name for name in text.split(",") if name)


def planned(rows: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """All rows with one seed before the next seed; each after what it is made of."""
    order = [*matrix.ROWS, *matrix.DERIVED]
    for row in rows:
        if row not in order:
            raise InputError(f"row {row!r}: expected some of {', '.join(order)}")
    needed = {*rows} | {part for row in rows for part in matrix.DERIVED.get(row, ())}
    return [Run(row, seed) for seed in seeds for row in order if row in needed]


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the benchmark lies. digest: of its records."""

    annotations: pathlib.Path
    records: pathlib.Path
    digest: str


class Runner:
    """Makes runs in a folder; several side by side, each on a core of its own.

    Args:
      scale: how large everything is.
      output: the folder; a run's is OUTPUT/runs/ROW/seedN.
      data: the benchmark.
      together: runs side by side, instead of the scale's.
    """

    def __init__(
        self,
        scale: matrix.Scale,
        output: pathlib.Path,
        data: Data,
        *,
        together: int | None = None,
    ):
        self._scale, self._output, self.data = scale, output, data
        self.together = together or scale.together
        self._stop, self._starting = threading.Event(), threading.Lock()
        self._running: set[subprocess.Popen] = set()

    def folder(self, run: Run) -> pathlib.Path:
        return run.folder(self._output)

    def done(self, run: Run) -> dict[str, Any] | None:
        """What a finished run left: its seconds, and where its metrics are; None if it has not."""
        path = self.folder(run) / _DONE
        if not path.exists():
            return None
        told = json.loads(path.read_text())
        return told if told["identity"] == self._identity(run) else None

    def metrics(self, run: Run) -> dict[str, Any]:
        """`metrics.json` of a finished run."""
        return json.loads((self._output / self.done(run)["metrics"]).read_text())

    def make(self, runs: Sequence[Run]) -> Iterator[tuple[Run, float]]:
        """Makes them, each as soon as its parts are finished; yields each with its seconds.

        A run that fails ends the others. Raises InputError, which names its log.
        """
        cores = queue.SimpleQueue()
        for core in self._cores():
            cores.put(core)
        left, futures = list(runs), {}
        with concurrent.futures.ThreadPoolExecutor(self.together) as pool:
            try:
                while left or futures:
                    ready = (run for run in left if all(map(self.done, run.parts)))
                    for run in list(itertools.islice(ready, self.together - len(futures))):
                        left.remove(run)
                        futures[pool.submit(self._make, run, cores)] = run
                    assert futures, f"{left[0].name}: its parts are neither finished nor planned"
                    first = concurrent.futures.FIRST_COMPLETED
                    for future in concurrent.futures.wait(futures, return_when=first).done:
                        yield futures.pop(future), future.result()
            finally:
                self._end_all()
                pool.shutdown(cancel_futures=True)

    def _cores(self) -> list[int | None]:
        """A core for each run that goes on at a time; None: all that there are.

        Of a scale for pinned runs also where there is one at a time: results depend on the cores.
        """
        if self._scale.together == 1 or not hasattr(os, "sched_setaffinity"):
            return [None] * self.together
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < self.together:
            raise InputError(
                f"{self.together} runs need a core each, found {len(cores)}; give --together 1"
            )
        return list(cores[: self.together])

    def _make(self, run: Run, cores: queue.SimpleQueue) -> float:
        core = cores.get()
        try:
            return self._make_on(core, run)
        finally:
            cores.put(core)

    def _make_on(self, core: int | None, run: Run) -> float:
        folder = self.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        with self._timed(run) as spent:
            if run.row in matrix.FUSIONS:
                metrics = self._fuse(core, run)
            else:
                metrics = self._train_or_copy(core, run)
        seconds = spent()
        done = {
            "identity": self._identity(run),
            "metrics": os.path.relpath(metrics, self._output),
            "seconds": round(seconds, 1),
        }
        write_json(folder / _DONE, done)
        return seconds

    @contextlib.contextmanager
    def _timed(self, run: Run) -> Iterator[Callable[[], float]]:
        """Adds the block's seconds to those of earlier calls that were interrupted; tells all."""
        path, identity = self.folder(run) / _SPENT, self._identity(run)
        told = json.loads(path.read_text()) if path.exists() else {}
        before = told["seconds"] if told.get("identity") == identity else 0.0
        start = time.monotonic()

        def spent() -> float:
            return before + time.monotonic() - start

        try:
            yield spent
        finally:
            write_json(path, {"identity": identity, "seconds": spent()})

    def _train_or_copy(self, core: int | None, run: Run) -> pathlib.Path:
        folder, options = self.folder(run), []
        if run.row in matrix.STRIDES:
            (trained,), (_, stride) = run.parts, matrix.STRIDES[run.row]
            ignored = shutil.ignore_patterns(evaluations.FOLDER, _DONE, _SPENT, _LOG)
            shutil.copytree(self.folder(trained), folder, ignore=ignored, dirs_exist_ok=True)
            options.append(f"--config.eval.stride={stride}")
        else:
            self._call(core, run, self.training_command(run))
        self._call(core, run, self._program("evaluate.py", f"--workdir={folder}", *options))
        step = run_folder.finished_step(folder)
        return evaluations.folder(folder, split=SPLIT, step=step) / evaluations.METRICS

    def training_command(self, run: Run) -> list[str]:
        return self._program(
            "train.py",
            f"--config=benchmarks/claims/config.py:{self._scale.name}/{run.row}",
            f"--workdir={self.folder(run)}",
            f"--config.seed={run.seed}",
            f"--config.data.records={self.data.records}",
            f"--config.data.annotations={self.data.annotations}",
        )

    def _program(self, *command: str) -> list[str]:
        """Other seeds of a row have the same programs, and need not compile them again."""
        return [sys.executable, *command, f"--compilation_cache={self._output / 'compiled'}"]

    def _fuse(self, core: int | None, run: Run) -> pathlib.Path:
        """Makes one table of the parts', and evaluates it as theirs were."""
        folder = self.folder(run)
        table = folder / "tubelets.parquet"
        tables = [str(self.tubelets(part)) for part in run.parts]
        command = ["-m", "step_jax.fusion", "--method", "mean", "--inputs", *tables]
        self._call(core, run, [sys.executable, *command, "--output", str(table)])
        first = self.folder(run.parts[0])
        evaluate = [sys.executable, "evaluate.py", f"--workdir={first}", f"--detections={table}"]
        self._call(core, run, evaluate)
        return folder / evaluations.METRICS

    def tubelets(self, run: Run) -> pathlib.Path:
        """The table of a finished training."""
        return (self._output / self.done(run)["metrics"]).parent / "tubelets.parquet"

    def _call(self, core: int | None, run: Run, command: Sequence[str]) -> None:
        """Runs a command; what it prints goes into the run's log."""
        if core is not None:
            pinned = [sys.executable, "-m", "benchmarks.claims.pinned", str(core)]
            command = [*pinned, *command]
        log = self.folder(run) / _LOG
        with log.open("a") as file:
            with self._starting:  # or what starts while all are ended would go on
                if self._stop.is_set():
                    raise InputError(_ended(run))
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
                self._running.add(process)
            try:
                status = process.wait()
            finally:
                self._running.discard(process)
        if self._stop.is_set():
            raise InputError(_ended(run))
        if status:
            raise InputError(f"{run.name}: ended with exit status {status}; see {log}")

    def _end_all(self) -> None:
        """However this ends, no run outlives it; trainings save what they have."""
        with self._starting:
            self._stop.set()
            running = list(self._running)
        for process in running:
            process.terminate()

    def _identity(self, run: Run) -> str:
        """Of everything that decides a result, but for the code and the machine."""
        told: list[Any] = [run.seed, self.data.digest]
        if run.parts:
            told.append([run.row, matrix.STRIDES.get(run.row)])
        for row in matrix.DERIVED.get(run.row, (run.row,)):
            of_row = config.get_config(f"{self._scale.name}/{row}")
            told.append(of_row.to_json_best_effort(sort_keys=True))
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _ended(run: Run) -> str:
    return f"{run.name}: ended with the others; the same command continues"
