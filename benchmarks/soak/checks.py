"""Whether anything was lost: of the log, of the evaluations, of the parameters, of the memory."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.soak.growth import Growth
from benchmarks.soak.lives import Life
from step_jax import evaluations, run_folder
from step_jax.training_log import read_log

_MOST_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Check:
    """What was looked at, whether it is as it should be, and what was found, in words."""

    name: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.name}: {self.found}"


def check_log(workdir: pathlib.Path, steps: int) -> Check:
    """Every step once, in order."""
    logged = [line["step"] for line in read_log(workdir)]
    wrong = sorted(set(range(1, steps + 1)) ^ set(logged))
    twice = sorted({step for step in logged if logged.count(step) > 1})
    found = f"{len(logged)} lines"
    if wrong or twice:
        found += f"; missing or surplus {_some(wrong)}; twice {_some(twice)}"
    return Check(f"log has steps 1 to {steps}, once each", logged == [*range(1, steps + 1)], found)


def check_finished(workdir: pathlib.Path, steps: int) -> Check:
    step = run_folder.finished_step(workdir)
    return Check("training finished", step == steps, f"finished.json says {step}")


def check_evaluations(
    workdir: pathlib.Path, kept: Sequence[int], seen: Mapping[pathlib.Path, set]
) -> Check:
    """Every checkpoint that is there was evaluated, and no result was ever written again.

    seen: by metrics.json, what told its versions apart while it was watched.
    """
    evaluated = {step for _, step in evaluations.read_metrics(workdir)}
    missing = sorted(set(kept) - evaluated)
    again = sorted(str(path.parent.name) for path, versions in seen.items() if len(versions) > 1)
    gone = sorted(str(path.parent.name) for path in seen if not path.exists())
    found = f"{len(evaluated)} evaluated; kept {list(kept)}"
    for name, steps in (("not evaluated", missing), ("written again", again), ("gone", gone)):
        found += f"; {name} {_some(steps)}" if steps else ""
    return Check("every checkpoint evaluated once", not (missing or again or gone), found)


def check_ends(lives: Mapping[str, Sequence[Life]]) -> Check:
    """Programs end when they are told to, or when they have done their work."""
    wrong = []
    for name, own in lives.items():
        for number, life in enumerate(own, 1):
            ended_well = not life.ended_by_itself or (life.status == 0 and number == len(own))
            if not ended_well:
                wrong.append(f"{name} {number} ended by itself with status {life.status}")
            if name == "train" and life.signal == "SIGTERM" and life.status != 0:
                wrong.append(f"{name} {number} ended with status {life.status} at SIGTERM")
    counts = ", ".join(f"{len(own)} lives of {name}" for name, own in lives.items())
    return Check("no program failed", not wrong, "; ".join(wrong) or counts)


def check_growth(name: str, growth: Growth | None, *, limit: float) -> Check:
    """limit: MiB a minute."""
    title = f"memory of {name} flat, at most {limit:g} MiB a minute"
    if growth is None:
        return Check(title, False, "no life was long enough to tell")
    levels = ", ".join(f"{level:.0f}" for level in growth.levels)
    found = f"{growth.slope:+.2f} ± {growth.error:.2f} MiB a minute, lives at {levels} MiB"
    return Check(title, growth.slope <= limit, found)


def check_same_arrays(one: pathlib.Path, other: pathlib.Path, step: int) -> Check:
    """The last checkpoints of two runs, bit for bit."""
    ours, theirs = (read_arrays(workdir, step) for workdir in (one, other))
    different = sorted(ours.keys() ^ theirs.keys())
    different += [
        name for name in sorted(ours.keys() & theirs.keys()) if not _same(ours[name], theirs[name])
    ]
    found = f"{len(ours)} arrays" + (f", different: {_some(different)}" if different else "")
    return Check("parameters and optimizer as undisturbed, bit for bit", not different, found)


def check_same_losses(one: pathlib.Path, other: pathlib.Path) -> Check:
    """The losses of every step."""
    ours, theirs = ({line["step"]: line["loss"] for line in read_log(run)} for run in (one, other))
    different = [step for step in sorted(ours | theirs) if ours.get(step) != theirs.get(step)]
    found = f"{len(ours)} steps" + (f", different: {_some(different)}" if different else "")
    return Check("loss of every step as undisturbed", not different, found)


def read_arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its path."""
    arrays = {}
    for item in ("model", "training"):
        folder = pathlib.Path(workdir) / run_folder.CHECKPOINTS / str(step) / item
        tree: Any = ocp.PyTreeCheckpointer().restore(folder.absolute())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _some(items: Sequence[Any]) -> str:
    more = len(items) - _MOST_SHOWN
    shown = ", ".join(map(str, items[:_MOST_SHOWN])) or "none"
    return shown + (f" and {more} more" if more > 0 else "")
