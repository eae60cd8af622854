"""Temporal trimming: where in a linked tube the action happens (Saha et al. 2016, STEP Section 4).

Every frame of a tube of class c is labelled c or not by exact dynamic programming; the runs of c
become tubes of their own. docs/tubes.md tells the constants, which the paper does not. numpy only.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from step_jax.errors import InputError
from step_jax.label_paths import label_paths
from step_jax.nms import ranks_in_runs, starts_of_runs
from step_jax.tube_table import Tubes


@dataclass(frozen=True, kw_only=True)
class TrimOptions:
    """The constants of trimming.

    penalty: what a change of the label costs, in either direction; 0 or more. `choose_penalty` of
      `step_jax.metrics.ucf101_24.choose_trimming` finds one on held-out videos.
    min_run: frames that a run of the class needs to become a tube.
    top_frames: the score of a trimmed tube is the mean of so many best frames, or of all if it has
      fewer.
    normalise: divides a tube's scores by their maximum before the labels are chosen, not in the
      score of the result. A softmax is often under .5 on true tubes, which the labels c and not-c
      delete otherwise.
    multi_label: labels are all C classes, by `Tubes.class_scores`, instead of c and not-c, whose
      scores are s and 1 - s.
    """

    penalty: float
    min_run: int = 10
    top_frames: int = 40
    normalise: bool = False
    multi_label: bool = False

    def __post_init__(self):
        if not 0 <= self.penalty < math.inf:
            raise InputError(f"penalty is {self.penalty}; expected a number of 0 or more")
        for name in ("min_run", "top_frames"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 or more")

    def provenance(self) -> dict[str, str]:
        """The constants as texts, for a table's provenance."""
        return {f"trim.{name}": str(value) for name, value in asdict(self).items()}


def trim(tubes: Tubes, options: TrimOptions) -> Tubes:
    """The runs of frames in which each tube shows its class, in the order of the tubes, then time.

    Give it all linked tubes: the NMS of tubes comes after trimming. Raises InputError where the
    multi-label form lacks the scores of all classes.
    """
    runs = _runs(_own_class(tubes, options), tubes.row_tube)
    runs = runs[:, runs[1] - runs[0] >= options.min_run]
    first, stop = runs
    length = stop - first
    offset = np.concatenate([[0], np.cumsum(length)])
    rows = np.repeat(first - offset[:-1], length) + np.arange(offset[-1])
    source = tubes.row_tube[first]
    return replace(
        tubes.take_rows(rows),
        video=tubes.video[source],
        label=tubes.label[source],
        score=_top_means(tubes.frame_score[rows], length, options.top_frames),
        offset=offset,
        provenance=tubes.provenance | options.provenance(),
    )


def _own_class(tubes: Tubes, options: TrimOptions) -> np.ndarray:
    """In which rows a tube shows its class: bool [R]."""
    row_tube = tubes.row_tube
    if options.multi_label:
        if tubes.class_scores is None:
            raise InputError(
                "multi_label: the tubes lack the scores of all classes in each frame; link with "
                "class_scores"
            )
        scores, own = tubes.class_scores.astype(np.float64), tubes.label
    else:
        scores = tubes.frame_score.astype(np.float64)[:, None]
        own = np.zeros(len(tubes), int)
    if options.normalise:
        scores = scores / _maxima(tubes)[row_tube, None]
    if not options.multi_label:
        scores = np.concatenate([scores, 1 - scores], axis=1)
    labels = label_paths(scores, tubes.offset, penalty=options.penalty, preferred=own)
    return labels == own[row_tube]


def _maxima(tubes: Tubes) -> np.ndarray:
    """The highest score of each tube's frames, float64 [N]; 1 where that is not positive."""
    if not len(tubes):
        return np.ones(0)
    maxima = np.maximum.reduceat(tubes.frame_score, tubes.offset[:-1]).astype(np.float64)
    return np.where(maxima > 0, maxima, 1)


def _runs(chosen: np.ndarray, row_tube: np.ndarray) -> np.ndarray:
    """First row and end of each run of chosen rows of one tube: int64 [2, n]."""
    key = np.where(chosen, row_tube, -1)
    starts = np.flatnonzero(starts_of_runs(key))
    runs = np.stack([starts, np.append(starts, len(key))[1:]])
    return runs[:, chosen[starts]]


def _top_means(scores: np.ndarray, length: np.ndarray, top: int) -> np.ndarray:
    """The mean of the best scores of each run, float64 [n]; `scores` are those of all runs."""
    run = np.repeat(np.arange(len(length)), length)
    order = np.lexsort((-scores, run))
    best = order[ranks_in_runs(run[order]) < top]
    total = np.bincount(run[best], weights=scores[best], minlength=len(length))
    return total / np.minimum(length, top)
