"""Windows: which stretches of a video the network looks at, and which of them an epoch draws.

A window is known by its video and its start s. Its *target clip* is the K frames [s, s + K), the
frames that are classified; the network's *input* is the T frames around it, [s - b, s - b + T) with
b = (T - K) // 2. Input frames beyond the video's ends repeat its first or last frame and never have
boxes.

Everything here is planning with the index's integers, in numpy; no record is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from input_pipeline.records import RecordsIndex, RecordsInfo
from step_jax.errors import InputError

NO_WINDOW = -1


@dataclass(frozen=True)
class WindowShape:
    """clip_frames: K, of the target clip. input_frames: T, of the network's input."""

    clip_frames: int
    input_frames: int

    def __post_init__(self):
        if not 1 <= self.clip_frames <= self.input_frames:
            raise InputError(
                f"clip_frames is {self.clip_frames} and input_frames {self.input_frames}; "
                "expected 1 <= clip_frames <= input_frames"
            )

    @property
    def before(self) -> int:
        """Input frames before the target clip."""
        return (self.input_frames - self.clip_frames) // 2

    @property
    def after(self) -> int:
        """Frames that a window which starts at a core's last frame needs after that frame."""
        return self.input_frames - self.before - 1

    def check_halo(self, info: RecordsInfo, records_dir: str | os.PathLike):
        """Raises InputError if windows that start in a record's core can leave its halo."""
        if info.halo_before >= self.before and info.halo_after >= self.after:
            return
        raise InputError(
            f"{records_dir}: the records keep {info.halo_before} frames before and "
            f"{info.halo_after} after the core; windows of {self.input_frames} frames around "
            f"{self.clip_frames} need {self.before} and {self.after}: build the records with "
            f"--halo_before {self.before} --halo_after {self.after}"
        )


def window_starts(num_frames: int, *, clip_frames: int, stride: int) -> np.ndarray:
    """int32: the starts of a video's window grid, the one that evaluation covers.

    0, stride, 2 stride, ... and the last start of a whole clip, num_frames - clip_frames, even off
    the grid: with stride <= clip_frames every frame is in a clip. A video shorter than a clip has
    one window, at 0.
    """
    last = max(num_frames - clip_frames, 0)
    starts = list(range(0, last + 1, stride))
    return np.array(starts if starts[-1] == last else [*starts, last], np.int32)


@dataclass(frozen=True, eq=False)
class WindowTable:
    """What is known of the window at every frame of a split, the videos one after the other [F].

    valid: bool, a whole target clip starts here (or the video's only, short one).
    occupied: bool, and at least one tube is present in the target clip.
    num_tubes: int32, tubes with a box anywhere in the input frames.
    """

    valid: np.ndarray
    occupied: np.ndarray
    num_tubes: np.ndarray


def window_table(
    index: RecordsIndex, window: WindowShape, *, min_target_frames: int
) -> WindowTable:
    """Fills the table from the index's runs.

    min_target_frames: with boxes in so many frames of the target clip (or in all of its frames,
        where the video is shorter) a tube is present in it.
    """
    total = int(index.video_offset[-1])
    table = WindowTable(np.zeros(total, bool), np.zeros(total, bool), np.zeros(total, np.int32))
    for video, num_frames in enumerate(index.num_frames):
        place = slice(*index.video_offset[video : video + 2])
        table.valid[place][: max(num_frames - window.clip_frames, 0) + 1] = True
    by_tube = np.flatnonzero((np.diff(index.runs[:, :2], axis=0) != 0).any(axis=1)) + 1
    for runs in np.split(index.runs, by_tube):
        if len(runs):
            _enter_tube(table, index, runs, window, min_target_frames)
    return table


def _enter_tube(table, index: RecordsIndex, runs: np.ndarray, window: WindowShape, needed: int):
    """Adds one tube's runs to the table: to the starts around it, which alone can reach it."""
    video, num_frames = runs[0, 0], int(index.num_frames[runs[0, 0]])
    low = max(0, runs[0, 2] - window.input_frames)
    high = min(num_frames, runs[-1, 3] + window.input_frames)
    has_box = np.zeros(high - low, np.int32)
    for _, _, start, stop in runs:
        has_box[start - low : stop - low] = 1
    boxes_before = np.concatenate([[0], np.cumsum(has_box)])  # boxes in the frames < low + i

    def boxes_in(first: np.ndarray, count: int) -> np.ndarray:
        begin, end = np.clip([first, first + count], 0, high - low)
        return boxes_before[end] - boxes_before[begin]

    starts = np.arange(high - low)
    place = slice(index.video_offset[video] + low, index.video_offset[video] + high)
    present = boxes_in(starts, window.clip_frames) >= min(needed, num_frames)
    table.occupied[place] |= table.valid[place] & present
    table.num_tubes[place] += boxes_in(starts - window.before, window.input_frames) > 0


def check_max_tubes(
    table: WindowTable, index: RecordsIndex, used: np.ndarray, *, max_tubes: int, split: str
):
    """Raises InputError if a window that may be used [F] has more tubes than `max_tubes`."""
    counts = np.where(used, table.num_tubes, 0)
    most = int(counts.max(initial=0))
    if most <= max_tubes:
        return
    flat = int(counts.argmax())
    video = int(np.searchsorted(index.video_offset, flat, side="right")) - 1
    raise InputError(
        f"split {split!r}: the window at frame {flat - index.video_offset[video]} of video "
        f"{str(index.video_ids[video])!r} has {most} tubes; max_tubes is {max_tubes}: "
        f"set it to {most} or more"
    )


def core_counts(index: RecordsIndex, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many eligible starts [F] come before each record's core, and lie in it: two int64 [R]."""
    before = np.concatenate([[0], np.cumsum(eligible, dtype=np.int64)])
    offset = index.video_offset[index.record_video]
    first = before[offset + index.core_start]
    return first, before[offset + index.core_end] - first


def draw_starts(index: RecordsIndex, eligible: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """int32 [R]: one eligible start [F] in the core of each record, NO_WINDOW where there is none.

    uniform: float64 [R] in [0, 1), which decides.
    """
    first, count = core_counts(index, eligible)
    places = np.append(np.flatnonzero(eligible), 0)
    chosen = first + np.floor(uniform * count).astype(np.int64)
    flat = places[np.minimum(chosen, len(places) - 1)]
    starts = flat - index.video_offset[index.record_video]
    return np.where(count > 0, starts, NO_WINDOW).astype(np.int32)


def grid_windows(index: RecordsIndex, *, clip_frames: int, stride: int) -> np.ndarray:
    """bool [F]: the starts of all videos' window grids."""
    on_grid = np.zeros(int(index.video_offset[-1]), bool)
    for video, num_frames in enumerate(index.num_frames):
        starts = window_starts(int(num_frames), clip_frames=clip_frames, stride=stride)
        on_grid[index.video_offset[video] + starts] = True
    return on_grid
