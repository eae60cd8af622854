"""Following a training run from another process: every checkpoint in its turn, until the end.

Only reads of what training writes. Both may end and start again at any time: what is to be done is
seen from the folder alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Hashable

from etils import epath

from step_jax import run_folder
from step_jax.checkpoint import FOLDER, Checkpoints, DamagedCheckpointError
from step_jax.errors import InputError
from step_jax.inference import Predictor, restore_predictor
from step_jax.storage import as_path

_MOST_SHOWN = 8


class Watch:
    """The checkpoints of a run that are still to be evaluated, as training makes them.

    Args:
      workdir: the run's folder, with a folder of checkpoints; see `wait_for_training`.
      evaluate: what is done with each checkpoint.
      is_done: whether a checkpoint, by its step, needs that no more.
      when_idle: is called when there is nothing to be done, before each wait and before the end.
      is_stopped: no other checkpoint is begun then.
      poll_seconds: between two looks for a checkpoint.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        evaluate: Callable[[Predictor], None],
        is_done: Callable[[int], bool],
        when_idle: Callable[[], None] = lambda: None,
        is_stopped: Callable[[], bool] = lambda: False,
        poll_seconds: float = 5.0,
    ):
        self._workdir = as_path(workdir)
        self._evaluate, self._is_done = evaluate, is_done
        self._when_idle, self._is_stopped = when_idle, is_stopped
        self._poll_seconds = poll_seconds
        self._checkpoints = Checkpoints(workdir, read_only=True)
        self._seen: set[int] = set()
        self._told_gone: set[int] = set()
        self._damaged: dict[int, Hashable] = {}  # which version of them
        self._waited_after: int | None = None

    def run(self) -> None:
        """Until training has ended and all that can be evaluated is.

        Raises InputError then if there were damaged checkpoints.
        """
        while True:
            finished = run_folder.finished_step(self._workdir)  # first, or the last is missed
            self._work_off()
            if self._is_stopped():
                break
            self._when_idle()
            if finished is not None:
                print(f"training ended at step {finished}", flush=True)
                break
            self._say_waiting()
            time.sleep(self._poll_seconds)
        self._checkpoints.close()
        self._check_damaged()

    def _work_off(self) -> None:
        while not self._is_stopped() and (step := self._next()) is not None:
            try:
                predictor = restore_predictor(self._checkpoints, step)
            except DamagedCheckpointError as error:
                self._note_damaged(step, error)
                continue
            self._evaluate(predictor)

    def _next(self) -> int | None:
        """The first checkpoint that is to be evaluated."""
        steps = self._checkpoints.steps()
        self._seen |= set(steps)
        self._say_gone(steps)
        todo = (s for s in steps if not self._is_known_damaged(s) and not self._is_done(s))
        return next(todo, None)

    def _say_gone(self, steps: Collection[int]) -> None:
        """Of checkpoints that training deleted before their turn; once of each."""
        seen = self._seen | run_folder.checkpoints_until(self._workdir, max(steps, default=0))
        gone = sorted(seen - set(steps) - self._told_gone)
        gone = [step for step in gone if not self._is_done(step)]
        self._told_gone |= set(gone)
        if gone:
            print(
                f"{_listed(gone)}: not there any more, and not evaluated; training keeps the best "
                "and the last few (train.keep_checkpoints)",
                flush=True,
            )

    def _note_damaged(self, step: int, error: DamagedCheckpointError) -> None:
        written = self._checkpoints.written(step)
        if written is None:
            return  # deleted or set aside meanwhile
        self._damaged[step] = written
        print(f"error: {error.what}: it is not evaluated", file=sys.stderr, flush=True)

    def _is_known_damaged(self, step: int) -> bool:
        """Unless training has written it again, after a restart from the one before."""
        return step in self._damaged and self._damaged[step] == self._checkpoints.written(step)

    def _say_waiting(self) -> None:
        last = max(self._seen, default=0)
        if last != self._waited_after:
            print(f"waiting for a checkpoint after {last}", flush=True)
        self._waited_after = last

    def _check_damaged(self) -> None:
        damaged = [step for step in sorted(self._damaged) if not self._is_done(step)]
        if damaged and not self._is_stopped():
            raise InputError(f"{self._workdir}: {_listed(damaged)}: damaged, not evaluated")


def wait_for_training(workdir: epath.PathLike, *, poll_seconds: float) -> None:
    """Until there is a folder of checkpoints: both jobs may be started together."""
    folder = as_path(workdir) / FOLDER
    if not folder.exists():
        print(f"waiting for {folder}", flush=True)
    while not folder.exists():
        time.sleep(poll_seconds)


def _listed(steps: list[int]) -> str:
    shown = ", ".join(map(str, steps[:_MOST_SHOWN]))
    more = f" and {len(steps) - _MOST_SHOWN} more" if len(steps) > _MOST_SHOWN else ""
    return f"checkpoint {shown}{more}"
