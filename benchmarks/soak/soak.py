"""Two programs beside each other, ended and started again until both have done their work."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence

import tqdm

from benchmarks.soak.lives import Program
from benchmarks.soak.schedule import TRAIN, end_number
from step_jax import evaluations, run_folder
from step_jax.errors import InputError
from step_jax.training_log import read_log

_GENTLE_SECONDS = 120  # that SIGTERM may take: saving, on a busy machine
_MOST_FAILURES = 3


class Soak:
    """Runs training and its watcher.

    Args:
      commands: by the program's name, TRAIN and WATCH.
      workdir: the folder of the run.
      logs: folder for what they print.
      environment: added to theirs.
      steps: of the training.
      end_every: seconds between two ends.
      sample_every: seconds between two looks at the memory.
      at_most: seconds, after which it is given up.

    Attributes:
      programs: with all of their lives.
      versions: of every metrics.json that was seen, what told one writing of it from another.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        workdir: pathlib.Path,
        logs: pathlib.Path,
        environment: Mapping[str, str],
        steps: int,
        end_every: float,
        sample_every: float,
        at_most: float,
    ):
        self._began = time.monotonic()
        self._workdir, self._steps = workdir, steps
        self._end_every, self._sample_every, self._at_most = end_every, sample_every, at_most
        self.programs = {
            name: Program(
                command, log=logs / f"{name}.txt", environment=environment, began=self._began
            )
            for name, command in commands.items()
        }
        self.versions: dict[pathlib.Path, set[tuple[int, int]]] = {}

    def run(self) -> None:
        """Until training has finished and its watcher has ended. Raises InputError if they fail."""
        with self._cleanly(), self._progress() as progress:
            for name in self.programs:
                self._start(name)
            ends, next_end = 0, self._now() + self._end_every
            while not self._is_done():
                self._look()
                progress.set_postfix_str(f"{ends} ends", refresh=False)
                progress.update(logged_step(self._workdir) - progress.n)
                if self._now() >= next_end and self._may_end(ends + 1):
                    ends += 1
                    self._end(ends)
                    next_end = self._now() + self._end_every
                self._restart_failed()
                time.sleep(self._sample_every)
            self._look()
            progress.update(logged_step(self._workdir) - progress.n)

    def _start(self, name: str) -> None:
        self.programs[name].start()
        if name == TRAIN:
            self._started_at = newest_step(self._workdir)

    def _may_end(self, number: int) -> bool:
        """Not once training has finished, nor before a life of it has saved a checkpoint.

        Else a machine so busy that it takes minutes to start would never come to an end.
        """
        if self._is_finished():
            return False
        return end_number(number).program != TRAIN or newest_step(self._workdir) > self._started_at

    def _progress(self) -> tqdm.tqdm:
        return tqdm.tqdm(total=self._steps, unit="step", desc="soaking", mininterval=5)

    def _end(self, number: int) -> None:
        """Ends a program, and starts it again."""
        name, how = end_number(number)
        program = self.programs[name]
        if program.is_alive:
            program.end_by(how, within_seconds=_GENTLE_SECONDS)
            self._start(name)

    def _restart_failed(self) -> None:
        """What ended without having done its work; `checks.check_ends` tells of it later."""
        finished = self._is_finished()
        for name, program in self.programs.items():
            if program.is_alive or (finished and program.lives[-1].status == 0):
                continue
            failures = sum(life.ended_by_itself for life in program.lives)
            if failures >= _MOST_FAILURES:
                raise InputError(f"{name} failed {failures} times; see its log in {self._workdir}")
            self._start(name)
        if self._now() > self._at_most:
            raise InputError(f"not done after {self._now() / 60:.0f} minutes; see the logs")

    def _look(self) -> None:
        """At the memory, and at what was evaluated."""
        for program in self.programs.values():
            program.sample()
        for path in self._workdir.glob(f"{evaluations.FOLDER}/*/*/{evaluations.METRICS}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                version = (status.st_ino, status.st_mtime_ns)
                self.versions.setdefault(path, set()).add(version)

    def _is_done(self) -> bool:
        ended = [not one.is_alive and one.lives[-1].status == 0 for one in self.programs.values()]
        return self._is_finished() and all(ended)

    def _is_finished(self) -> bool:
        return run_folder.finished_step(self._workdir) is not None

    def _now(self) -> float:
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def _cleanly(self) -> Iterator[None]:
        """Kills both programs however it ends; SIGTERM ends it as Ctrl-C does."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            for program in self.programs.values():
                program.kill()
            signal.signal(signal.SIGTERM, before)


def newest_step(workdir: pathlib.Path) -> int:
    """Of the checkpoints, 0 without any."""
    return max(checkpoint_steps(workdir), default=0)


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    """Of the complete checkpoints, ascending."""
    folders = (workdir / run_folder.CHECKPOINTS).glob("[0-9]*")
    return sorted(int(path.name) for path in folders if path.name.isdigit())


def logged_step(workdir: pathlib.Path) -> int:
    """The last step that was logged."""
    log = read_log(workdir)
    return int(log[-1]["step"]) if log else 0
