"""What a training run says while it runs: console, JSON lines and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from step_jax.errors import InputError
from step_jax.event_file import EventFile
from step_jax.files import not_written, write_text
from step_jax.memory import memory_mib
from step_jax.startup import Startup
from step_jax.step_time import DATA, DEVICE, StepTime
from step_jax.storage import GrowingFolder, as_path
from step_jax.training_console import console_line

FILE = "train_log.jsonl"
ELAPSED = "elapsed_seconds"
_TOTALS = ("skipped",)  # metrics that are counted, not averaged
_CHECKED = {"loss": "loss", "gradient_norm": "norm of the gradient"}


class NonFiniteLossError(InputError):
    """The loss of a step, or its gradient, is not a number any more.

    Attributes:
      step: the training step.
    """

    def __init__(self, message: str, *, step: int):
        super().__init__(message)
        self.step = step


class TrainingLog:
    """Collects the metrics of each step and reports their means every so often.

    docs/training.md lists the keys of a report.

    Args:
      workdir: gets `train_log.jsonl` and `tensorboard/`; lines after `start_step` of an earlier,
        interrupted run are dropped, because those steps are made again.
      start_step: where this run starts.
      total_steps: where it ends.
      batch_size: examples of a step, over all devices.
      every: steps between reports.
      learning_rate: step -> rate.
      group_factors: of the rate, for each group of parameters that has one of its own.
      startup: told of the first batch and the first step, whose time is left out of the speed.
      writes: False in all processes but one: metrics are checked, and nothing is said.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        start_step: int,
        total_steps: int,
        batch_size: int,
        every: int,
        learning_rate: Any,
        group_factors: Mapping[str, float] | None = None,
        startup: Startup | None = None,
        writes: bool = True,
    ):
        self._step, self._total_steps = start_step, total_steps
        self._batch_size, self._every = batch_size, every
        self._learning_rate, self._group_factors = learning_rate, group_factors or {}
        self._startup, self._is_started = startup, startup is None
        self._pending: Mapping[str, Any] | None = None
        self._sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._count = self._untimed = (
            0  # steps since the last report, and the slow first among them
        )
        self._made = self._skipped = 0  # since the start
        self._time = StepTime()
        self._step_seconds: list[float] = []  # of the last reports
        self._writes = writes
        if writes:
            self._open(workdir, start_step)

    def _open(self, workdir: epath.PathLike, start_step: int) -> None:
        self._path = as_path(workdir) / FILE
        kept = [line for line in read_log(workdir) if line["step"] <= start_step]
        with self._written():
            self._files = GrowingFolder(workdir)
            write_text(self._files.path / FILE, "".join(json.dumps(line) + "\n" for line in kept))
            self._files.put()
        before = kept[-1].get(ELAPSED, 0.0) if kept else 0.0
        ago = self._startup.total if self._startup else 0.0
        self._began = time.monotonic() - ago - before
        self._events = EventFile(as_path(workdir) / "tensorboard", first_step=start_step + 1)

    def waited_for_data(self, seconds: float) -> None:
        """Tells the time that the batch of the next step took to come."""
        self._time.waited(DATA, seconds)
        if not self._is_started:
            self._startup.done("first batch")

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of the step just dispatched, and looks at those of the one before.

        So the host never waits for the step in flight, but for the first, to time the start.
        Raises NonFiniteLossError.
        """
        if not self._is_started:
            self._end_start(metrics)
        self.flush()
        self._pending = metrics

    def flush(self) -> None:
        """Looks at the metrics still waiting; call it before saving a state. See `add`."""
        if self._pending is None:
            return
        metrics, self._pending = self._pending, None
        with self._time.waiting(DEVICE):
            fetched = jax.device_get(dict(metrics))
            values = {name: _sum_and_count(value) for name, value in fetched.items()}
        self._step += 1
        self._check_finite(values)
        for name, (total, count) in values.items():
            totals, counts = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = totals + total, counts + count
        self._count += 1
        self._made += 1
        if self._made == 1 and self._untimed:
            self._time.restart()
        if self._step % self._every == 0 or self._step == self._total_steps:
            self._report()

    def put(self) -> None:
        """Puts the reports so far where they outlast this process; call it before saving a state.

        Of an object store that is an upload, without which a run that is continued from that state
        would lack the lines before. Raises InputError.
        """
        if self._writes:
            with self._written():
                self._files.put()
            self._events.put()

    def finish(self) -> None:
        """Reports the steps since the last report, where training stops between two."""
        self.flush()
        if self._count:
            self._report()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Reports what is left, and ends; after an error without looking at the step in flight."""
        if kind is None:
            self._end()
            return
        self._pending = None
        with contextlib.suppress(InputError):  # not to hide what ended the training
            self._end()

    def _end(self) -> None:
        try:
            self.finish()
        finally:
            self.close()

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Other numbers of a step, an evaluation's say, for TensorBoard."""
        if self._writes:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside, spent on other work, out of the speed."""
        before = self._time.paused_seconds
        with self._time.paused():
            yield
        if not self._is_started:
            self._startup.skip(self._time.paused_seconds - before)

    def close(self) -> None:
        if self._writes:
            try:
                with self._written():
                    self._files.close()
            finally:
                self._events.close()

    def _end_start(self, metrics: Mapping[str, Any]) -> None:
        """Waits for the first step, with which the start of the run has ended."""
        self._startup.done("compilation")
        jax.block_until_ready(metrics)
        self._startup.done("first step")
        self._startup.end()
        self._is_started, self._untimed = True, 1
        if self._writes:
            print(self._startup.text(), flush=True)

    def _check_finite(self, values: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        for name, told in _CHECKED.items():
            if name in values and not np.isfinite(values[name]).all():
                raise NonFiniteLossError(
                    f"step {self._step}: the {told} is {values[name][0]}; the checkpoints before "
                    "it are kept. Lower optimizer.learning_rate or set "
                    "optimizer.max_gradient_norm",
                    step=self._step,
                )

    def _report(self) -> None:
        line = {name: _summary(name, *pair) for name, pair in sorted(self._sums.items())}
        timed = self._count - self._untimed
        times = self._time.take(timed) if timed else {}
        self._sums, self._count = {}, 0
        self._skipped += line.get("skipped", 0)
        if self._writes:
            self._write({"step": self._step} | line | self._rates() | self._speed(times))
        self._untimed = 0

    def _rates(self) -> dict[str, Any]:
        """The learning rates that the last step was made with."""
        rate = float(self._learning_rate(self._step - 1))
        groups = {name: rate * factor for name, factor in self._group_factors.items()}
        return {"learning_rate": rate} | ({"learning_rates": groups} if groups else {})

    def _speed(self, times: Mapping[str, float]) -> dict[str, Any]:
        found: dict[str, Any] = {"examples": self._step * self._batch_size}
        if times:
            found["clips_per_second"] = 1000 * self._batch_size / times["step_ms"]
            self._step_seconds = [*self._step_seconds[-9:], times["step_ms"] / 1000]
        found |= {**times, **memory_mib(), ELAPSED: time.monotonic() - self._began}
        if self._untimed:
            found["startup"] = self._startup.report()
        return found

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._written():
            with (self._files.path / FILE).open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._files.grown()
        write_tensorboard(self._events, line)
        left = self._seconds_left()
        text = console_line(
            line, total_steps=self._total_steps, seconds_left=left, skipped=self._skipped
        )
        print(text, flush=True)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise not_written(self._path, error) from error

    def _seconds_left(self) -> float | None:
        """As fast as lately, and with as much time for evaluations and checkpoints as so far."""
        if not self._step_seconds:
            return None
        pause = self._time.paused_seconds / self._made
        return (self._total_steps - self._step) * (float(np.median(self._step_seconds)) + pause)


def write_tensorboard(events: EventFile, line: Mapping[str, Any]) -> None:
    """A report's numbers as scalars, a list of shares as a histogram over [0, 1]."""
    step = line["step"]
    for name, value in line.items():
        if name in ("step", "startup"):
            continue
        if isinstance(value, list):
            events.add_shares(f"train/{name}", np.asarray(value), step)
        elif isinstance(value, Mapping):
            for part, number in value.items():
                events.add_scalar(f"train/{name}/{part}", number, step)
        else:
            events.add_scalar(f"train/{name}", value, step)


def read_log(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The complete lines of a run's `train_log.jsonl`; a line cut off by a crash is left out."""
    path = as_path(workdir) / FILE
    return list(_json_lines(path.read_text())) if path.exists() else []


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _sum_and_count(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """(sum, count) as it is; a plain number counts once."""
    total, count = value if isinstance(value, tuple) else (value, 1.0)
    return np.asarray(total, np.float64), np.asarray(count, np.float64)


def _summary(name: str, total: np.ndarray, count: np.ndarray) -> float | int | list[float]:
    """A metric's mean, or what was counted."""
    if name in _TOTALS:
        return int(total)
    return (total / np.maximum(count, 1e-9)).tolist()
