"""What the paper says, as comparisons of numbers that could come out the other way.

A comparison holds when the difference of the means over the seeds exceeds the larger of the two
standard deviations and has the paper's sign; it is contradicted when it does with the other sign,
and open in between. A statement holds when all of its comparisons do, and is contradicted when one
of them is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.claims.matrix import FULL, PLAIN

HOLDS, OPEN, CONTRADICTED = "holds", "open", "contradicted"

Metrics = Mapping[str, Any]  # of one run, as `results.reduced` makes them
Results = Mapping[str, Sequence[Metrics]]  # row -> runs in the order of seeds


class Term(NamedTuple):
    """A run's frame-mAP: of which row, and after which step; -1 is the last."""

    row: str
    step: int = -1

    @property
    def text(self) -> str:
        return self.row if self.step == -1 else f"{self.row}, step {self.step}"

    def of(self, results: Results) -> np.ndarray:
        """Float [seeds]."""
        place = self.step - (self.step > 0)
        return np.array([run["frame_map"][place] for run in results[self.row]])


class Gain(NamedTuple):
    """What one term has more than another, seed by seed."""

    of_term: Term
    over: Term

    @property
    def text(self) -> str:
        return f"({self.of_term.text}) over ({self.over.text})"

    def of(self, results: Results) -> np.ndarray:
        return self.of_term.of(results) - self.over.of(results)


class OverlapMean(NamedTuple):
    """The mean overlap of a step's input proposals with the ground truth (Figure 4)."""

    row: str
    step: int

    @property
    def text(self) -> str:
        return f"overlap of step {self.step}'s input"

    def of(self, results: Results) -> np.ndarray:
        return np.array([run["overlap"][self.step - 1] for run in results[self.row]])


Quantity = Term | Gain | OverlapMean


class Comparison(NamedTuple):
    """`more` is to be larger than `less`."""

    more: Quantity
    less: Quantity


@dataclasses.dataclass(frozen=True)
class Statement:
    """One sentence of the paper's.

    Attributes:
      name: short.
      text: what is claimed.
      source: section, table or figure.
      paper: its numbers.
      comparisons: all of which must hold.
      counted: whether it is among the twelve.
    """

    name: str
    text: str
    source: str
    paper: str
    comparisons: tuple[Comparison, ...]
    counted: bool = True


def _without(row: str) -> Comparison:
    return Comparison(Term(FULL), Term(row))


def _context_gain(step: int) -> Gain:
    return Gain(Term(FULL, step), Term("without_scene_context", step))


STATEMENTS = (
    Statement(
        "later_steps",
        "later steps are better than the first",
        "Table 1a",
        "S = 3: 57.1, 61.8, 62.6",
        (
            Comparison(Term("table1a_s2", 2), Term("table1a_s2", 1)),
            Comparison(Term(PLAIN, 2), Term(PLAIN, 1)),
            Comparison(Term(PLAIN, 3), Term(PLAIN, 1)),
        ),
    ),
    Statement(
        "joint_training",
        "training more steps together improves the first",
        "Table 1a",
        "step 1 with S = 1, 2, 3, 4: 51.5, 56.6, 57.1, 58.2",
        (
            Comparison(Term("table1a_s2", 1), Term("table1a_s1", 1)),
            Comparison(Term(PLAIN, 1), Term("table1a_s1", 1)),
            Comparison(Term("table1a_s4", 1), Term("table1a_s1", 1)),
        ),
    ),
    Statement(
        "extension",
        "both ways of temporal extension are better than none",
        "Figure 5",
        "no numbers, a plot",
        (
            Comparison(Term("fig5_extrapolate"), Term(PLAIN)),
            Comparison(Term(FULL), Term(PLAIN)),
        ),
    ),
    Statement(
        "fixed_window",
        "a fixed window of 30 frames is worse than extending to 30",
        "Figure 5",
        "no numbers, a plot",
        (
            Comparison(Term("fig5_extrapolate"), Term("fig5_k30")),
            Comparison(Term(FULL), Term("fig5_k30")),
        ),
    ),
    Statement(
        "extension_whole",
        "extending is better than 6 frames that have all of their frame differences, too",
        "Figure 5",
        "no numbers, a plot",
        (
            Comparison(Term("fig5_extrapolate"), Term("fig5_k6_of_18", 3)),
            Comparison(Term(FULL), Term("fig5_k6_of_18", 3)),
        ),
        counted=False,
    ),
    Statement(
        "fixed_window_strides",
        "a fixed window is worse from as many windows, too, and from one at every frame as in ACT",
        "Figure 5",
        "no numbers, a plot",
        (
            Comparison(Term(FULL), Term("fig5_k30_stride25")),
            Comparison(Term("fig5_anticipate_stride1"), Term("fig5_k30_stride1")),
        ),
        counted=False,
    ),
    Statement(
        "anticipation",
        "anticipation is better than extrapolation on long windows",
        "Figure 5, step 3",
        "no numbers, a plot",
        (Comparison(Term(FULL, 3), Term("fig5_extrapolate", 3)),),
    ),
    Statement(
        "both_modalities",
        "RGB and flow together are better than either",
        "Table 1b",
        "RGB 66.7, flow 63.5; late 70.7, early 74.3",
        tuple(
            Comparison(Term(both), Term(one))
            for both in ("late", "table1b_early")
            for one in (FULL, "table1b_flow")
        ),
    ),
    Statement(
        "early_fusion",
        "early fusion is better than late",
        "Table 1b",
        "74.3, 70.7",
        (Comparison(Term("table1b_early"), Term("late")),),
    ),
    Statement(
        "hybrid_fusion",
        "hybrid fusion is best",
        "Table 1b",
        "75.0, 74.3",
        (
            Comparison(Term("hybrid"), Term("table1b_early")),
            Comparison(Term("hybrid"), Term("late")),
        ),
    ),
    Statement(
        "scene_context",
        "scene context helps",
        "Section 4.2",
        "2.5 less without",
        (_without("without_scene_context"),),
    ),
    Statement(
        "hard_sampling",
        "hard-aware sampling helps",
        "Section 4.2",
        "1.5 less without",
        (_without("without_hard_sampling"),),
    ),
    Statement(
        "rising_thresholds",
        "rising thresholds help",
        "Section 4.2",
        "1.0 less without",
        (_without("without_rising_thresholds"),),
    ),
    Statement(
        "context_later",
        "scene context helps later steps more",
        "Section 4.2",
        "no numbers",
        (Comparison(_context_gain(3), _context_gain(1)),),
    ),
    Statement(
        "overlap",
        "proposals overlap the ground truth more from step to step",
        "Figure 4",
        "no numbers, histograms",
        (
            Comparison(OverlapMean(FULL, 2), OverlapMean(FULL, 1)),
            Comparison(OverlapMean(FULL, 3), OverlapMean(FULL, 2)),
        ),
        counted=False,
    ),
    Statement(
        "third_step",
        "the third step is better than the second",
        "Table 1a",
        "S = 3: 61.8, 62.6; S = 4: 62.1, 62.8",
        (
            Comparison(Term(PLAIN, 3), Term(PLAIN, 2)),
            Comparison(Term("table1a_s4", 3), Term("table1a_s4", 2)),
        ),
        counted=False,
    ),
    Statement(
        "hard_sampling_34",
        "hard-aware sampling helps where there are 34 proposals to choose from",
        "Section 4.2",
        "1.5 less without, of 11",
        (Comparison(Term("fig6b_m34"), Term("m34_without_hard_sampling")),),
        counted=False,
    ),
    Statement(
        "more_proposals",
        "more proposals find more",
        "Figure 6b",
        "no numbers, a plot",
        (
            Comparison(Term(PLAIN), Term("fig6b_m4")),
            Comparison(Term("fig6b_m109"), Term(PLAIN)),
        ),
        counted=False,
    ),
    Statement(
        "few_proposals",
        "a few proposals in three steps have a higher frame-mAP than a dense set in one",
        "Section 4.4",
        "no numbers",
        (Comparison(Term(PLAIN), Term("dense")),),
        counted=False,
    ),
    Statement(
        "adaptive",
        "tubes extended along the movement are better than cuboids",
        "Section 3.3",
        "no numbers",
        (
            Comparison(Term("fig5_extrapolate"), Term("fig5_mean")),
            Comparison(Term(FULL), Term("fig5_mean")),
        ),
        counted=False,
    ),
)


class Compared(NamedTuple):
    """A comparison with its numbers: of each side the mean and the standard deviation.

    by_seed: how much more one side has than the other, with each seed.
    """

    comparison: Comparison
    more: tuple[float, float]
    less: tuple[float, float]
    by_seed: tuple[float, ...]
    verdict: str

    @property
    def difference(self) -> float:
        return self.more[0] - self.less[0]


class Judged(NamedTuple):
    """A statement with its comparisons; open as long as runs are missing."""

    statement: Statement
    compared: tuple[Compared, ...]
    verdict: str


def judge(statement: Statement, results: Results) -> Judged:
    """What the seeds that all of its rows have say of a statement; one seed leaves it open."""
    rows = {row for one in statement.comparisons for row in _rows(one)}
    seeds = set.intersection(*({run["seed"] for run in results.get(row, ())} for row in rows))
    if not seeds:
        return Judged(statement, (), OPEN)
    common = {row: [run for run in results[row] if run["seed"] in seeds] for row in rows}
    compared = tuple(_compare(one, common) for one in statement.comparisons)
    verdicts = {one.verdict for one in compared}
    verdict = HOLDS if verdicts == {HOLDS} else OPEN
    return Judged(statement, compared, CONTRADICTED if CONTRADICTED in verdicts else verdict)


def mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """The mean and the sample's standard deviation, which a single value does not have (nan)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def _compare(comparison: Comparison, results: Results) -> Compared:
    values = comparison.more.of(results), comparison.less.of(results)
    more, less = map(mean_and_deviation, values)
    difference, deviation = more[0] - less[0], max(more[1], less[1])
    verdict = OPEN  # also where a deviation is nan
    if difference > deviation:
        verdict = HOLDS
    elif difference < -deviation:
        verdict = CONTRADICTED
    return Compared(comparison, more, less, tuple(map(float, values[0] - values[1])), verdict)


def _rows(comparison: Comparison) -> set[str]:
    found = set()
    for side in comparison:
        terms = (side.of_term, side.over) if isinstance(side, Gain) else (side,)
        found |= {term.row for term in terms}
    return found
