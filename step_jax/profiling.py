"""Traces of some steps, for TensorBoard's profile page or Perfetto."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator

import jax
from etils import epath

from step_jax.errors import InputError
from step_jax.files import not_written
from step_jax.storage import GrowingFolder

FOLDER = "profile"
HELP = "Steps to write a trace of into WORKDIR/profile: FIRST:LAST, or a number of steps."
_WARM_UP_STEPS = 2  # after a start, that a number of steps leaves out: the first one compiles


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What `--profile` asks for: `count` steps from `first` on, of the run or after its start."""

    first: int | None
    count: int

    def check(self, *, total: int) -> None:
        """Raises InputError for steps that a run of so many does not have."""
        steps = self._after(0)
        if steps[-1] > total:
            raise InputError(
                f"--profile: steps {steps[0]} to {steps[-1]} are asked for; the run has {total}"
            )

    def steps(self, *, start: int, total: int) -> range | None:
        """The steps themselves; None where a run that goes on after `start` does not make them.

        They were made before, or are no more as many: the same command must continue the run.
        """
        steps = self._after(start)
        return steps if steps[0] > start and steps[-1] <= total else None

    def _after(self, start: int) -> range:
        first = start + 1 + _WARM_UP_STEPS if self.first is None else self.first
        return range(first, first + self.count)


def parse(text: str | None) -> Wanted | None:
    """Reads FIRST:LAST, steps counted from 1, or how many; None where nothing is asked for.

    Raises InputError where it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:([0-9]+):)?([0-9]+)", text.strip())
    first, last = (match[1], int(match[2])) if match else ("", 0)
    count = last - int(first) + 1 if first else last
    if count < 1 or first == "0":
        raise InputError(
            f"--profile {text!r}: expected FIRST:LAST, steps counted from 1 such as 101:105, or a "
            "number of steps such as 5"
        )
    return Wanted(int(first) if first else None, count)


class Profile:
    """Writes a trace of the wanted steps: `with Profile(...) as p:`, `with p.step(n):` in the loop.

    Args:
      steps: the wanted ones; None traces nothing.
      folder: gets the trace, in a subfolder named by date and time.
      wait: returns when the device has made the steps dispatched so far, which belong to the trace.
      paused: around the writing of the trace, which belongs to no step.
    """

    def __init__(
        self,
        steps: range | None,
        folder: epath.PathLike,
        *,
        wait: Callable[[], None],
        paused: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self._steps, self._folder = steps or range(0), epath.Path(folder)
        self._wait, self._paused = wait, paused
        self._is_running = False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_running:
            self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around one step."""
        if number not in self._steps:
            yield
            return
        if not self._is_running:
            try:
                self._files = GrowingFolder(self._folder)
            except OSError as error:
                raise not_written(self._folder, error) from error
            jax.profiler.start_trace(str(self._files.path), create_perfetto_trace=True)
            self._is_running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._steps[-1]:
            self._wait()
            self._stop()

    def _stop(self) -> None:
        self._is_running = False
        with self._paused():
            jax.profiler.stop_trace()
            newest = max(self._files.path.glob("plugins/profile/*")).relative_to(self._files.path)
            try:
                self._files.close()
            except OSError as error:
                raise not_written(self._folder, error) from error
        print(
            f"profile: {self._folder / newest}; open its perfetto_trace.json.gz at "
            f"https://ui.perfetto.dev, or run `tensorboard --logdir {self._folder}` with the "
            "package xprof",
            flush=True,
        )
