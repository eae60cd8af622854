"""The tubes that can still grow, of many sequences at once; a sequence is a video and a class.

One call of `advance` takes all sequences one window further by ACT's rule. The offline linker calls
it with all videos and classes, the online one with the classes of its video. numpy only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_NUMBER, _COUNT, _BORN, _START, _TIME, _SLOT = range(6)


class Advance(NamedTuple):
    """What a window did to its sequences.

    tube: int64 [S, Q], the number of the tube that each candidate joined or began, counted from 0
      in each sequence; -1 where there is no candidate.
    ended: the tubes that can grow no more, as int64 [n] sequences and int64 [n] numbers.
    """

    tube: np.ndarray
    ended: tuple[np.ndarray, np.ndarray]


class LiveTubes:
    """The live tubes of S sequences, at most L of each, in the order in which they began."""

    def __init__(self, num_sequences: int):
        self._ints = np.full((6, num_sequences, 0), -1, np.int64)
        self._total = np.zeros((num_sequences, 0))
        self._begun = np.zeros(num_sequences, np.int64)

    @property
    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every tube the window (`time`) of its last tubelet and its slot there: `[S, L]`.

        -1 where there is no tube.
        """
        return self._ints[_TIME], self._ints[_SLOT]

    def keep_first(self, num_sequences: int):
        """Forgets the sequences behind these, whose videos have ended."""
        self._ints = self._ints[:, :num_sequences]
        self._total = self._total[:num_sequences]
        self._begun = self._begun[:num_sequences]

    def advance(
        self,
        continues: np.ndarray,
        slot: np.ndarray,
        score: np.ndarray,
        *,
        start: np.ndarray,
        time: int,
        clip_frames: int,
        max_gap: int,
        max_frames: int | None = None,
    ) -> Advance:
        """Takes every sequence one window further.

        In descending order of the mean score of their tubelets (ties: who began first) the tubes
        choose among the candidates that continue them and are free: the one with the highest
        score. A tube without one ends where its last tubelet began `max_gap` frames ago or more.
        Candidates that are left begin tubes.

        Args:
          continues: bool [S, L, Q], which candidate may continue which tube.
          slot: int [S, Q], what `last` will say of the candidates; -1 for none. They are in
            descending score.
          score: float32 [S, Q].
          start: int [S], the window's first frame.
          time: the window's number, the same in all sequences.
          max_frames: a tube that a tubelet would make longer than this ends before; None: no limit.
        """
        exists = can_grow = self._ints[_NUMBER] >= 0
        if max_frames is not None:
            can_grow = exists & (start[:, None] + clip_frames - self._ints[_BORN] <= max_frames)
            continues = continues & can_grow[:, :, None]
        waits = start[:, None] - self._ints[_START] < max_gap
        tube_of, chosen = self._choose(continues, slot.shape[1])
        self._extend(chosen, slot, score, start=start, time=time)
        alive = can_grow & ((chosen >= 0) | waits)
        s, at = np.nonzero(exists & ~alive)
        ended = s, self._ints[_NUMBER, s, at]

        free = (slot >= 0) & (tube_of < 0)
        numbers = self._take_numbers(free)
        s, q = np.nonzero(tube_of >= 0)
        numbers[s, q] = self._ints[_NUMBER, s, tube_of[s, q]]
        self._begin(free, alive, numbers, slot, score, start=start, time=time)
        return Advance(numbers, ended)

    def _choose(self, continues: np.ndarray, num_candidates: int):
        """The tube's place [S, Q] for each candidate, the candidate's [S, L] for each tube; or -1.

        Tubes take turns by their means, and prefer candidates by their scores. As everybody agrees
        on both orders, the best candidate may as well take the best tube that it continues, and so
        on: the outcome is the same, in fewer turns.
        """
        S, L = self._total.shape
        tube_of = np.full((S, num_candidates), -1)
        chosen = np.full((S, L), -1)
        if not L:
            return tube_of, chosen
        mean = self._total / np.maximum(self._ints[_COUNT], 1)
        for q in np.flatnonzero(continues.any(axis=(0, 1))):
            values = np.where(continues[:, :, q], mean, -np.inf)
            best = values.argmax(axis=1)  # the first of equals
            s = np.flatnonzero(values[np.arange(S), best] > -np.inf)
            best = best[s]
            mean[s, best] = -np.inf
            tube_of[s, q] = best
            chosen[s, best] = q
        return tube_of, chosen

    def _extend(self, chosen, slot, score, *, start, time):
        s, at = np.nonzero(chosen >= 0)
        q = chosen[s, at]
        self._total[s, at] += score[s, q]
        self._ints[_COUNT, s, at] += 1
        self._ints[_START, s, at] = start[s]
        self._ints[_TIME, s, at] = time
        self._ints[_SLOT, s, at] = slot[s, q]

    def _take_numbers(self, free: np.ndarray) -> np.ndarray:
        """Numbers for the tubes that begin, [S, Q]; -1 elsewhere."""
        rank = np.cumsum(free, axis=1)
        numbers = np.where(free, self._begun[:, None] + rank - 1, -1)
        if rank.size:
            self._begun += rank[:, -1]
        return numbers

    def _begin(self, free, alive, numbers, slot, score, *, start, time):
        """Puts the tubes that begin behind those that live on, without the gaps of the dead."""
        start = np.broadcast_to(start[:, None], free.shape)
        times = np.full(free.shape, time)
        new = np.stack([numbers, np.ones_like(times), start, start, times, slot])
        keep = np.concatenate([alive, free], axis=1)
        length = int(keep.sum(axis=1).max(initial=0))
        order = np.argsort(~keep, axis=1, kind="stable")[:, :length]
        kept = np.take_along_axis(keep, order, axis=1)
        ints = np.concatenate([self._ints, new], axis=2)
        total = np.concatenate([self._total, score], axis=1)
        self._ints = np.where(kept, np.take_along_axis(ints, order[None], axis=2), -1)
        self._total = np.take_along_axis(total, order, axis=1)
