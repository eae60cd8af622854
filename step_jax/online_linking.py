"""Linking while the video runs: windows come one by one, tubes leave as soon as they have ended.

The same tubes as `step_jax.linking.link`, to the last bit: both take their candidates, matches and
turns from the same functions. What is kept is the last K frames' windows and the tubes that can
still grow. numpy only.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from step_jax.errors import InputError
from step_jax.global_nms import global_survivors
from step_jax.link_batch import make_batch
from step_jax.link_candidates import LinkWindows, find_candidates
from step_jax.link_matches import Slots, find_slots, matches
from step_jax.linked_tubes import Links, assemble
from step_jax.linking import LinkOptions, check_options
from step_jax.live_tubes import LiveTubes
from step_jax.tube_table import Tubes, no_tubes, sort_tubes
from step_jax.tubelet_table import TubeletHeader, TubeletRows, check_values

_NO_END = np.iinfo(np.int32).max


class _Window(NamedTuple):
    """What is kept of a window: its first frame, its number and its slots."""

    start: int
    time: int
    slots: Slots


class _Found(NamedTuple):
    """The candidates of one window.

    slots: see `Slots`; None where there is no candidate.
    slot, row: int [C, Q], of each candidate its slot (-1: none) and its row of `tubes`, `scores`.
    score: float32 [C, Q].
    tubes: float32 [n, K, 4], pixels; scores: float32 [n, C], or [n, 0] if they are not wanted.
    """

    slots: Slots | None
    slot: np.ndarray
    score: np.ndarray
    row: np.ndarray
    tubes: np.ndarray
    scores: np.ndarray


class OnlineLinker:
    """Links the tubelets of one video, all classes; `add` every window, then `finish`.

    What all calls return together is what `link` returns, as soon as it is sorted:
    `sort_tubes(join_tubes(parts))`. A tube leaves with the first window that shows that it has
    ended. Memory is bounded as long as tubes end; `LinkOptions.max_frames` ends those that do not.
    """

    def __init__(
        self,
        header: TubeletHeader,
        *,
        width: int,
        height: int,
        video: str = "",
        options: LinkOptions | None = None,
    ):
        """
        Args:
          header: what the tubelets are; of it count classes, clip_frames, stride and num_boxes.
          width, height: of the frame in which the boxes are wanted, in pixels.
          video: its name in the tubes.
        """
        self.options = options or LinkOptions()
        check_options(self.options, header)
        self._header = header
        self._sides = np.array([[width, height]], np.float32)
        self._video = video
        self._live = LiveTubes(len(header.classes))
        self._windows: deque[_Window] = deque()
        self._links: dict[tuple[int, int], list[tuple]] = {}
        self._last_start = -1
        self._time = 0

    def add(self, start: int, scores: np.ndarray, tubes: np.ndarray) -> Tubes:
        """Takes the next window; returns the tubes that have ended by now.

        A window of the grid that is left out counts as one in which nothing was found.

        Args:
          start: first frame, above that of the window before.
          scores: float [M, C]; M may be 0.
          tubes: float [M, R, K, 4], shares of the frame's sides, not clipped.

        Raises InputError for a window out of order and for values that are not finite.
        """
        start = int(start)
        if start <= self._last_start:
            raise InputError(
                f"{self._video}: a window at frame {start} after one at {self._last_start}; "
                "windows come in the order of their first frames"
            )
        rows = self._rows(start, scores, tubes)
        ended = []
        for skipped in self._skipped(start):
            nothing = rows.take(slice(0))
            ended += self._advance(skipped, nothing)
        ended += self._advance(start, rows)
        return self._leave(ended, num_frames=_NO_END)

    def finish(self, *, num_frames: int | None = None) -> Tubes:
        """The tubes that are left; call it once, after the last window.

        `num_frames` is the length of the video, which matters for one shorter than a window.
        """
        left = list(self._links)
        return self._leave(left, num_frames=_NO_END if num_frames is None else num_frames)

    def _rows(self, start: int, scores: np.ndarray, tubes: np.ndarray) -> TubeletRows:
        header, count = self._header, len(scores)
        shape = (count, header.num_boxes, header.clip_frames, 4)
        if np.shape(scores) != (count, len(header.classes)) or np.shape(tubes) != shape:
            raise ValueError(
                f"scores {np.shape(scores)}, tubes {np.shape(tubes)}; expected "
                f"{(count, len(header.classes))}, {shape}"
            )
        rows = TubeletRows(
            header=header,
            videos=(self._video,),
            video=np.zeros(count, np.int32),
            start=np.full(count, start, np.int32),
            step=np.full(count, header.steps[0], np.int8),
            proposal=np.arange(count, dtype=np.int32),
            scores=np.asarray(scores, np.float32),
            tubes=np.asarray(tubes, np.float32),
        )
        check_values(rows, where="tubelets")
        options = self.options
        if options.global_nms is None:
            return rows
        kept = global_survivors(
            rows, self._sides, threshold=options.global_nms, top=options.global_top
        )
        return rows.take(np.sort(kept))

    def _skipped(self, start: int) -> range:
        """First frames of the grid's windows since the last one; of a long gap only the first.

        Nothing lives through K frames without a match.
        """
        stride = self._header.stride
        first = (self._last_start // stride + 1) * stride
        return range(first, min(start, first + self._header.clip_frames), stride)

    def _advance(self, start: int, rows: TubeletRows) -> list[tuple[int, int]]:
        """Takes every class one window further; the tubes that ended, by class and number."""
        K, options, C = self._header.clip_frames, self.options, len(self._header.classes)
        found = self._find(start, rows) if len(rows) else _nothing(C)
        result = self._live.advance(
            self._continues(start, found),
            found.slot,
            found.score,
            start=np.full(C, start),
            time=self._time,
            clip_frames=K,
            max_gap=options.gap(K),
            max_frames=options.max_frames,
        )
        for label, q in zip(*np.nonzero(result.tube >= 0), strict=True):
            key = (int(label), int(result.tube[label, q]))
            row = found.row[label, q]
            link = (start, found.score[label, q], found.tubes[row].copy(), found.scores[row].copy())
            self._links.setdefault(key, []).append(link)
        if found.slots is not None:
            self._windows.append(_Window(start, self._time, found.slots))
        while self._windows and self._windows[0].start <= start - K:
            self._windows.popleft()
        self._last_start, self._time = start, self._time + 1
        return list(zip(*(column.tolist() for column in result.ended), strict=True))

    def _find(self, start: int, rows: TubeletRows) -> _Found:
        """The candidates of a window that has tubelets."""
        C, options = len(self._header.classes), self.options
        window = LinkWindows(*np.array([[0], [start], [0], [len(rows)]]))
        share = self._header.num_boxes == 1
        batch = make_batch(rows, window, self._sides, min_score=-np.inf, share=share)
        candidates = find_candidates(
            batch.scores,
            batch.tubes,
            batch.windows,
            nms_threshold=options.candidate_nms,
            top=options.candidates,
        )
        slots = find_slots(batch.tubes, batch.windows, candidates)
        row = batch.windows.first_row[:, None, None] + candidates.proposal
        return _Found(
            slots=slots,
            slot=slots.of_candidate.reshape(C, -1),
            score=candidates.score.reshape(C, -1),
            row=row.reshape(C, -1),
            tubes=batch.tubes,
            scores=rows.scores[batch.row][:, : C if options.class_scores else 0],
        )

    def _continues(self, start: int, found: _Found) -> np.ndarray:
        """Which candidate may continue which live tube: bool [C, L, Q]."""
        last_time, last_slot = self._live.last
        result = np.zeros((*last_time.shape, found.slot.shape[1]), bool)
        for window in self._windows:
            off = start - window.start
            if found.slots is None or off >= self._header.clip_frames:
                continue
            table = matches(
                window.slots.planes, found.slots.planes, off=off, threshold=self.options.match_iou
            )
            table = np.pad(table, ((0, 0), (0, 0), (0, 1)))  # a last column that matches nothing
            label, at = np.nonzero(last_time == window.time)
            rows = table[label % len(table), last_slot[label, at]]
            result[label, at] = np.take_along_axis(rows, found.slot[label], axis=1)
        return result

    def _leave(self, keys: list[tuple[int, int]], *, num_frames: int) -> Tubes:
        """The tubes of these classes and numbers, of which nothing is kept."""
        nothing = no_tubes(self._header.classes, (self._video,))
        nothing = replace(nothing, provenance=self.options.provenance())
        links = [self._links.pop(key) for key in keys]
        count = [len(tubelets) for tubelets in links]
        if not count:
            return nothing
        start, score, boxes, class_scores = zip(*itertools.chain(*links), strict=True)
        columns = Links(
            sequence=np.repeat(np.arange(len(keys)), count),
            number=np.zeros(sum(count), np.int64),
            start=np.array(start),
            score=np.array(score),
            boxes=np.stack(boxes),
            class_scores=np.stack(class_scores) if self.options.class_scores else None,
        )
        tubes = assemble(
            columns,
            video=np.zeros(sum(count), int),
            label=np.repeat([label for label, _ in keys], count),
            num_frames=np.full(sum(count), num_frames),
            min_score=self.options.min_score,
            min_frames=self.options.min_frames,
            like=nothing,
        )
        return sort_tubes(tubes)


def _nothing(num_classes: int) -> _Found:
    """A window without candidates."""
    empty = np.zeros((num_classes, 0))
    return _Found(None, empty.astype(np.int32), empty, empty, empty, empty)
