"""Times the cases of a sweep in turn, so that what else a machine does falls on all of them."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Sequence

import tqdm

from benchmarks.scaling.cases import Hardware
from benchmarks.scaling.measurements import Measurement
from benchmarks.scaling.workers import Worker, start_worker

_MOST_STEPS = 200  # of a round


class Rounds:
    """Measures cases until each has its rounds.

    Args:
      spec: the configuration, FILE or FILE:VARIANT.
      hardware: where.
      output: folder of logs and compiled programs.
      rounds: timings of each case.
      seconds: that a round should take.
      together: how many cases' processes may live at a time.
      done: how many timings there are in all, and are made already, for the time left.
    """

    def __init__(
        self,
        spec: str,
        *,
        hardware: Hardware,
        output: pathlib.Path,
        rounds: int,
        seconds: float,
        together: int,
    ):
        self._start = lambda case: start_worker(case, spec, hardware=hardware, output=output)
        self._rounds, self._seconds, self._together = rounds, seconds, together

    def measure(self, measurements: Sequence[Measurement], progress: tqdm.tqdm) -> None:
        """Completes the measurements; those that are complete are left as they are."""
        missing = [one for one in measurements if not one.is_complete(self._rounds)]
        progress.update(len(measurements) - len(missing))
        for first in range(0, len(missing), self._together):
            self._measure_together(missing[first : first + self._together], progress)

    def _measure_together(self, missing: Sequence[Measurement], progress: tqdm.tqdm) -> None:
        with contextlib.ExitStack() as stack:
            ready = []
            for one in missing:
                progress.set_postfix_str(f"compiling {one.case.name}")
                worker = stack.enter_context(self._start(one.case))
                one.tell(worker.described)
                ready.append((one, worker, self._steps_of_round(one, worker)))
            progress.set_postfix_str(f"timing {missing[0].case.sweep}")
            while ready := [turn for turn in ready if not turn[0].is_complete(self._rounds)]:
                for one, worker, steps in ready:
                    _run_round(one, worker, steps)
        progress.update(len(missing))

    def _steps_of_round(self, one: Measurement, worker: Worker) -> int:
        """As many as fill the time, by one step that is not counted."""
        if not one.fits:
            return 1
        answer = worker.run(1)
        if "seconds" not in answer:
            one.tell(answer)
            return 1
        return min(max(1, round(self._seconds / answer["seconds"])), _MOST_STEPS)


def _run_round(one: Measurement, worker: Worker, steps: int) -> None:
    answer = worker.run(steps)
    if "seconds" in answer:
        one.add(answer)
    else:
        one.tell(answer)  # it did not fit after all
