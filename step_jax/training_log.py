"""What a training run says while it runs: console, JSON lines and TensorBoard."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorboardX
from etils import epath

from step_jax.errors import InputError
from step_jax.files import not_written, write_text

FILE = "train_log.jsonl"


class NonFiniteLossError(InputError):
    """The loss of a step is not a number any more."""


class TrainingLog:
    """Collects the metrics of each step and reports their means every so often.

    Args:
      workdir: gets `train_log.jsonl` and `tensorboard/`; lines after `start_step` of an earlier,
        interrupted run are dropped, because those steps are made again.
      start_step: where this run starts.
      total_steps: where it ends.
      batch_size: examples of a step, over all devices.
      every: steps between reports.
      learning_rate: step -> rate.
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
    ):
        self._path = epath.Path(workdir) / FILE
        kept = [line for line in read_log(workdir) if line["step"] <= start_step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._writer = tensorboardX.SummaryWriter(
            str(epath.Path(workdir) / "tensorboard"), purge_step=start_step + 1
        )
        self._step, self._total_steps = start_step, total_steps
        self._batch_size, self._every = batch_size, every
        self._learning_rate = learning_rate
        self._pending: Mapping[str, Any] | None = None
        self._sums: dict[str, np.ndarray] = {}
        self._count = 0
        self._data_seconds = 0.0
        self._last = time.monotonic()
        self._rates: list[float] = []

    def waited_for_data(self, seconds: float) -> None:
        self._data_seconds += seconds

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of the step just dispatched, and looks at those of the one before.

        So the host never waits for the step in flight. Raises NonFiniteLossError.
        """
        self.flush()
        self._pending = metrics

    def flush(self) -> None:
        """Looks at the metrics still waiting; call it before saving a state. See `add`."""
        if self._pending is None:
            return
        metrics, self._pending = self._pending, None
        self._step += 1
        values = {name: _pair(value) for name, value in metrics.items() if not _is_vector(value)}
        self._check_finite(values)
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self._step % self._every == 0 or self._step == self._total_steps:
            self._report()

    def _check_finite(self, values: Mapping[str, np.ndarray]) -> None:
        for name, told in (("loss", "loss"), ("gradient_norm", "norm of the gradient")):
            if name in values and not np.isfinite(values[name]).all():
                raise NonFiniteLossError(
                    f"step {self._step}: the {told} is {values[name][0]}; the checkpoints before "
                    "it are kept. Lower optimizer.learning_rate or set optimizer.max_gradient_norm"
                )

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Other numbers of a step, an evaluation's say, for TensorBoard."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside, spent on other work, out of the speed and the ETA."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._last += time.monotonic() - start

    def close(self) -> None:
        self._writer.close()

    def _report(self) -> None:
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        steps, self._count = self._count, 0
        line = {"step": self._step}
        line |= {name: float(total / max(count, 1e-9)) for name, (total, count) in
                 sorted(self._sums.items())}  # fmt: skip
        line["learning_rate"] = float(self._learning_rate(self._step - 1))
        line["clips_per_second"] = steps * self._batch_size / seconds
        line["data_wait"] = self._data_seconds / seconds
        self._sums, self._data_seconds = {}, 0.0
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise not_written(self._path, error) from error
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(f"train/{name}", value, self._step)
        self._writer.flush()
        self._rates = [*self._rates[-9:], seconds / steps]
        print(self._console_line(line), flush=True)

    def _console_line(self, line: Mapping[str, float]) -> str:
        left = (self._total_steps - self._step) * float(np.median(self._rates))
        eta = datetime.timedelta(seconds=round(left))
        classification = " ".join(
            f"{value:.2f}" for name, value in line.items() if name.startswith("classification")
        )
        localization = " ".join(
            f"{value:.3f}" for name, value in line.items() if name.startswith("localization")
        )
        return (
            f"step {self._step}/{self._total_steps}  loss {line['loss']:.3f}  "
            f"class {classification}  box {localization}  "
            f"{line['clips_per_second']:.1f} clips/s  data {line['data_wait']:.0%}  ETA {eta}"
        )


def read_log(workdir: epath.PathLike) -> list[dict[str, float]]:
    """The complete lines of a run's `train_log.jsonl`; a line cut off by a crash is left out."""
    path = epath.Path(workdir) / FILE
    return list(_json_lines(path.read_text())) if path.exists() else []


def _json_lines(text: str) -> Iterator[dict[str, float]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _is_vector(value: Any) -> bool:
    """(sums, count): a histogram. Nothing shows them yet."""
    return isinstance(value, tuple) and np.ndim(value[0]) > 0


def _pair(value: Any) -> np.ndarray:
    """(sum, count) as it is; a plain number counts once."""
    return np.asarray(value if isinstance(value, tuple) else (value, 1.0), np.float64)
