"""Linking: tubelets of overlapping windows become action tubes, as in ACT (Kalogeiton et al. 2017).

For every video and class on its own: candidates are what the NMS of a window leaves
(`link_candidates`), tubes choose among them window by window (`live_tubes`), a tube's score is the
mean of its tubelets' scores and its box in a frame the mean over the tubelets that cover the frame.
docs/tubes.md tells the algorithm and where its constants come from. numpy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from step_jax.annotations import Annotations
from step_jax.errors import InputError
from step_jax.global_nms import global_survivors
from step_jax.link_batch import LinkBatch, make_batch
from step_jax.link_candidates import (
    Candidates,
    LinkWindows,
    find_candidates,
    link_windows,
    sizes_of,
)
from step_jax.link_matches import find_slots, match_table
from step_jax.linked_tubes import Links, assemble
from step_jax.live_tubes import LiveTubes
from step_jax.nms import starts_of_runs
from step_jax.tube_table import Tubes, join_tubes, no_tubes, sort_tubes
from step_jax.tubelet_table import TubeletHeader, TubeletRows, check_values, concatenate

_BATCH_VALUES = 2**22  # floats of tubelets that are linked together
Sizes = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """The constants of linking; the defaults are STEP's.

    candidate_nms: mean IoU above which the NMS of a window and class drops the lower score.
    candidates: how many survivors of it are linked.
    global_nms: mean IoU of ACT's NMS over all classes, by the highest score of a tubelet, which
      comes before; ACT's value is .7, STEP has none: None.
    global_top: how many survivors of that go on.
    match_iou: mean IoU over the shared frames from which a candidate continues a tubelet.
    max_gap: frames without a match after which a tube ends, from the start of its last tubelet;
      None: K - 1, so that the tubelet shares a frame with every candidate that it waited for.
    min_score: tubes of a lower score are dropped.
    min_frames: shorter tubes are dropped.
    max_frames: a tube that would grow longer ends, and another begins; None: no limit. It bounds
      the memory of the online linker; ACT and STEP have none.
    class_scores: whether the tubes say the scores of all classes in each frame, which multi-label
      trimming needs: the means over the tubelets that cover it.
    """

    candidate_nms: float = 0.3
    candidates: int = 10
    global_nms: float | None = None
    global_top: int = 300
    match_iou: float = 0.2
    max_gap: int | None = None
    min_score: float = 0.01
    min_frames: int = 15
    max_frames: int | None = None
    class_scores: bool = False

    def gap(self, clip_frames: int) -> int:
        """`max_gap` for tubelets of so many frames."""
        return clip_frames - 1 if self.max_gap is None else self.max_gap

    def provenance(self) -> dict[str, str]:
        """The constants as texts, for a table's provenance."""
        return {f"link.{name}": str(value) for name, value in asdict(self).items()}


def video_sizes(annotations: Annotations, split: str | None = None) -> dict[str, tuple]:
    """(num_frames, width, height) of every video, or of those of a split, by id."""
    videos = annotations.videos if split is None else annotations.split(split)
    return {video.id: (video.num_frames, video.width, video.height) for video in videos}


def link(rows: TubeletRows, *, sizes: Sizes, options: LinkOptions | None = None) -> Tubes:
    """The tubes of one or many videos.

    Args:
      rows: tubelets of one step, in any order. In a window of the header's grid that has no rows
        nothing was found.
      sizes: (num_frames, width, height) of each video, see `video_sizes`.
      options: None: STEP's.

    Returns: tubes in the order of `sort_tubes`. Boxes lie within the frame, and no frame is past
      the video's end.

    Raises InputError for rows of several steps, for values that are not finite, for a video without
    a size, for a window beyond its video's end and for a stride that leaves no shared frames.
    """
    options = options or LinkOptions()
    check_options(options, rows.header)
    if len(rows) and (rows.step != rows.step[0]).any():
        raise InputError(
            f"tubelets of steps {np.unique(rows.step).tolist()}; linking takes those of one step"
        )
    check_values(rows, where="tubelets")
    num_frames, sides = sizes_of(rows, sizes)
    rows = _in_order(rows)
    if options.global_nms is not None:
        kept = global_survivors(rows, sides, threshold=options.global_nms, top=options.global_top)
        rows = rows.take(np.sort(kept))
    windows = link_windows(rows, num_frames=num_frames)
    parts = [replace(no_tubes(rows.header.classes, rows.videos), provenance=options.provenance())]
    for first, stop in _batches(windows, rows):
        batch = windows.of_videos(first, stop)
        parts.append(_link_batch(rows, batch, num_frames, sides, options))
    return sort_tubes(join_tubes(parts))


def link_videos(
    videos: Iterable[TubeletRows], *, sizes: Sizes, options: LinkOptions | None = None
) -> Iterator[Tubes]:
    """Tubes of videos that come one by one, `iter_tubelet_videos(path, step=...)` say.

    Several short videos are linked together, which is faster; memory does not grow with their
    number. The tubes of a video are together, videos in the order in which they came.
    """
    waiting: list[TubeletRows] = []
    values = 0
    for rows in videos:
        waiting.append(rows)
        values += rows.tubes.size + rows.scores.size
        if values >= _BATCH_VALUES:
            yield link(concatenate(rows.header, waiting), sizes=sizes, options=options)
            waiting, values = [], 0
    if waiting:
        yield link(concatenate(waiting[0].header, waiting), sizes=sizes, options=options)


def check_options(options: LinkOptions, header: TubeletHeader):
    """Raises InputError for constants that mean nothing for such tubelets."""
    K = header.clip_frames
    if header.stride >= K:
        raise InputError(
            f"windows of {K} frames every {header.stride} frames share none; linking needs a "
            f"stride below {K}: run the detector with a smaller one"
        )
    limits = {
        "candidate_nms": (0, 1),
        "candidates": (1, np.inf),
        "global_nms": (0, 1),
        "global_top": (1, np.inf),
        "match_iou": (0, 1),
        "max_gap": (0, K - 1),
        "min_score": (-np.inf, np.inf),
        "min_frames": (0, np.inf),
        "max_frames": (K, np.inf),
    }
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} is {value}; expected {low} to {high}")


# --- one batch ------------------------------------------------------------------------------------


def _in_order(rows: TubeletRows) -> TubeletRows:
    """By video, start, proposal."""
    keys = (rows.video.astype(np.int64) << 32) + rows.start
    ascending = (keys[1:] > keys[:-1]) | (
        (keys[1:] == keys[:-1]) & (rows.proposal[1:] > rows.proposal[:-1])
    )
    return rows if ascending.all() else rows.take(np.lexsort((rows.proposal, keys)))


def _batches(windows: LinkWindows, rows: TubeletRows) -> Iterator[tuple[int, int]]:
    """Ranges of videos, each of about `_BATCH_VALUES` floats or of one video."""
    classes, (R, K) = rows.scores.shape[1], rows.tubes.shape[1:3]
    values = windows.num_rows * (R * K * 4 + classes)
    batch = (np.cumsum(values) - values) // _BATCH_VALUES
    first = np.unique(windows.video[np.flatnonzero(starts_of_runs(batch))])
    return itertools.pairwise([*first.tolist(), len(rows.videos)])


def _link_batch(
    rows: TubeletRows,
    windows: LinkWindows,
    num_frames: np.ndarray,
    sides: np.ndarray,
    options: LinkOptions,
) -> Tubes:
    """The tubes of the videos of `windows`."""
    used = slice(windows.first_row[0], windows.first_row[-1] + windows.num_rows[-1])
    windows = replace(windows, first_row=windows.first_row - windows.first_row[0])
    rows = rows.take(used)
    batch = make_batch(rows, windows, sides, min_score=options.min_score)
    candidates = find_candidates(
        batch.scores,
        batch.tubes,
        batch.windows,
        nms_threshold=options.candidate_nms,
        top=options.candidates,
    )
    numbers = _number_tubes(batch, candidates, options, clip_frames=rows.header.clip_frames)
    scores = rows.scores if options.class_scores else None
    links = _links(batch, candidates, numbers, scores)
    video = batch.video[links.sequence // batch.label.shape[1]]
    return assemble(
        links,
        video=video,
        label=batch.label.ravel()[links.sequence],
        num_frames=num_frames[video],
        min_score=options.min_score,
        min_frames=options.min_frames,
        like=no_tubes(rows.header.classes, rows.videos),
    )


def _number_tubes(
    batch: LinkBatch, candidates: Candidates, options: LinkOptions, *, clip_frames: int
) -> np.ndarray:
    """Which tube of its video and class each candidate belongs to: int64 [W, C, Q], -1 for none."""
    windows = batch.windows
    slots = find_slots(batch.tubes, windows, candidates)
    table = match_table(slots, windows, threshold=options.match_iou)
    lags, W, P, _ = table.shape
    # One row a (lag, window, slot before); a last row and a last column that match nothing.
    rows = np.zeros((lags * W * P + 1, P + 1), bool)
    rows[:-1, :-1] = table.reshape(lags * W * P, P)

    first, length, label = _sequences(batch)
    live = LiveTubes(len(first))
    numbers = np.full(candidates.proposal.shape, -1, np.int64)
    for time in range(int(length.max(initial=0))):
        num_live = int(np.searchsorted(-length, -time, side="left"))
        live.keep_first(num_live)
        w, c = first[:num_live] + time, label[:num_live]
        last_time, last_slot = live.last
        lag = time - last_time
        row = ((lag - 1) * W + w[:, None]) * P + last_slot
        row = np.where((last_slot >= 0) & (lag <= lags), row, -1)
        slot = slots.of_candidate[w, c]
        numbers[w, c] = live.advance(
            np.take_along_axis(rows[row], slot[:, None], axis=2),
            slot,
            candidates.score[w, c],
            start=windows.start[w],
            time=time,
            clip_frames=clip_frames,
            max_gap=options.gap(clip_frames),
            max_frames=options.max_frames,
        ).tube
    return numbers


def _sequences(batch: LinkBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First window, number of windows and class of each sequence worth linking, longest first."""
    first = np.flatnonzero(starts_of_runs(batch.windows.video))
    length = np.diff(first, append=len(batch.windows))
    order = np.argsort(-length, kind="stable")
    which, label = np.nonzero(batch.hopeful[order])
    return first[order][which], length[order][which], label


def _links(
    batch: LinkBatch, candidates: Candidates, numbers: np.ndarray, scores: np.ndarray | None
) -> Links:
    """What `_number_tubes` found, as a list in order of time."""
    window, label, place = np.nonzero(numbers >= 0)
    row = batch.windows.first_row[window] + candidates.proposal[window, label, place]
    return Links(
        sequence=batch.windows.video[window] * numbers.shape[1] + label,
        number=numbers[window, label, place],
        start=batch.windows.start[window],
        score=candidates.score[window, label, place],
        boxes=batch.tubes[row],
        class_scores=None if scores is None else scores[batch.row[row]],
    )
