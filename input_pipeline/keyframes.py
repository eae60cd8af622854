"""AVA's keyframes as windows: which there are, in which records, with which people.

The records hold pixels alone; whose keyframes are read, and what the people on them do, is joined
here from annotations, so that versions of them share the records. The window of a keyframe is its
target clip, the K frames around it; the keyframe is frame K // 2 of it, and T // 2 of the input.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from input_pipeline import records
from input_pipeline.clips import WindowShape
from input_pipeline.plans import GridPlan
from input_pipeline.records import RecordsIndex, RecordsInfo
from step_jax.annotations.ava_csv import FIRST_KEYFRAME, LAST_KEYFRAME, Keyframes
from step_jax.annotations.ava_folder import AvaFolder
from step_jax.annotations.ava_targets import (
    People,
    labelled_keyframes,
    people_of,
    rows_of_keyframes,
)
from step_jax.annotations.ava_time import FPS, frame_of_second, second_of_frame
from step_jax.annotations.selection import matching
from step_jax.errors import InputError

REACH = 18  # frames before a keyframe, and from it on, that the longest input holds
KIND = "ava"  # of the records


@dataclass(frozen=True, eq=False)
class KeyframeLabels:
    """What is read of a split.

    classes: names of the C classes.
    people: who is on the keyframes; None: nobody, where boxes and labels are not needed.
    keyframes: those that are read; None: all 897 of every video.
    """

    classes: tuple[str, ...]
    people: People | None = None
    keyframes: Keyframes | None = None


def training_labels(annotations: AvaFolder, split: str) -> KeyframeLabels:
    """The keyframes that have labels and are not excluded. Raises InputError as the readers."""
    label_map, path = annotations.label_map(), annotations.labels_path(split)
    people = _people(annotations, split)
    keyframes = labelled_keyframes(people, annotations.exclusions(split))
    if not len(keyframes):
        raise InputError(f"{path}: no keyframe is left to train on; expected labels of some")
    return KeyframeLabels(label_map.names, people, keyframes)


def evaluation_labels(
    annotations: AvaFolder, split: str, *, with_people: bool = False
) -> KeyframeLabels:
    """All keyframes of every video, with the annotated people if they are to be classified."""
    people = _people(annotations, split) if with_people else None
    return KeyframeLabels(annotations.label_map().names, people)


def describe(
    labels: KeyframeLabels,
    records_dir: str | os.PathLike,
    split: str,
    *,
    clip_frames: int,
    videos: str = "",
) -> list[str]:
    """What of the annotations is read, and what is not, for the user. Errors as
    `keyframe_windows`."""
    info, index = records.load_info(records_dir), records.load_index(records_dir, split)
    found = keyframe_windows(
        labels, index, info, clip_frames=clip_frames, videos=videos, where=records_dir
    )
    lines = [f"{split}: {found.summary()}"]
    if labels.people is not None:
        told = labels.people.remarks
        lines.append(f"{split}: " + ", ".join(f"{n:,} {what}" for what, n in told.items()))
    return lines


def _people(annotations: AvaFolder, split: str) -> People:
    try:
        return people_of(annotations.labels(split), annotations.label_map())
    except InputError as error:
        path = annotations.labels_path(split)
        text = str(error)
        raise error if text.startswith(str(path)) else InputError(f"{path}: {text}") from error


def check_kind(info: RecordsInfo, records_dir: str | os.PathLike, *, joins_labels: bool):
    """Raises InputError for records that have labels where they are joined, or have none."""
    is_ava = info.kind == KIND
    if is_ava and not joins_labels:
        raise InputError(
            f"{records_dir}: records of AVA's pixels, without labels; set data.ava_version to the "
            "version of the annotations in data.annotations"
        )
    if joins_labels and not is_ava:
        raise InputError(
            f"{records_dir}: records of {info.name!r} with their own tubes, not of AVA's movies; "
            "build them with `python -m input_pipeline.prepare ava`, or leave data.ava_version out"
        )


@dataclass(frozen=True, eq=False)
class KeyframeWindows:
    """The windows of a split's keyframes.

    plan: the windows of each record.
    left_out: keyframes that were asked for and cannot be read, by reason.
    """

    plan: GridPlan
    left_out: dict[str, int]

    def summary(self) -> str:
        """One line for the user."""
        shown = [f"{n:,} {reason}" for reason, n in self.left_out.items() if n]
        return "; ".join([f"{len(self.plan.starts):,} keyframes", *shown])


def keyframe_windows(
    labels: KeyframeLabels,
    index: RecordsIndex,
    info: RecordsInfo,
    *,
    clip_frames: int,
    videos: str = "",
    where: str | os.PathLike,
) -> KeyframeWindows:
    """Every keyframe once, from the record that holds its frames.

    Args:
      labels: which keyframes.
      index, info: of the records, and `where` they lie, for errors.
      clip_frames: K.
      videos: a glob over the videos' ids ("": all).

    Raises InputError where no keyframe is in the records.
    """
    video, second, left_out = _wanted(labels, index)
    chosen = matching(index.video_ids, videos)[video]
    video, second = video[chosen], second[chosen]
    undecodable = _is_marked(info.missing_keyframes, index, video, second)
    left_out["could not be decoded"] = int(np.count_nonzero(undecodable))
    frame = frame_of_second(second)
    beyond = (frame + REACH > index.num_frames[video]) & ~undecodable
    left_out["are beyond the end of their video"] = int(np.count_nonzero(beyond))
    kept = ~(undecodable | beyond)
    video, frame = video[kept], frame[kept]
    if not len(video):
        raise InputError(
            f"{where}: none of the keyframes that are wanted is in the records "
            f"({', '.join(f'{n:,} {reason}' for reason, n in left_out.items())}); expected the "
            "records of the annotated videos"
        )
    record = _owners(index, video, frame, where=where)
    order = np.lexsort((frame, record))
    count = np.bincount(record, minlength=index.num_records)
    starts = (frame[order] - clip_frames // 2).astype(np.int32)
    return KeyframeWindows(GridPlan(starts, np.cumsum(count) - count, count), left_out)


def _wanted(
    labels: KeyframeLabels, index: RecordsIndex
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Videos (indices of the records') and seconds of the keyframes; what the records lack."""
    if labels.keyframes is None:
        seconds = np.arange(FIRST_KEYFRAME, LAST_KEYFRAME + 1)
        count = len(index.video_ids)
        return np.repeat(np.arange(count), len(seconds)), np.tile(seconds, count), {}
    number = {str(name): i for i, name in enumerate(index.video_ids)}
    ours = np.array([number.get(name, -1) for name in labels.keyframes.videos], np.int64)
    video = ours[labels.keyframes.video]
    known = video >= 0
    lacking = {"are of videos that the records lack": int(np.count_nonzero(~known))}
    return video[known], labels.keyframes.timestamp[known], lacking


def _is_marked(marked, index: RecordsIndex, video: np.ndarray, second: np.ndarray) -> np.ndarray:
    """bool [N]: which keyframes are among {video id: seconds}."""
    bad = np.zeros((len(index.video_ids), LAST_KEYFRAME + 2), bool)
    for number, name in enumerate(index.video_ids):
        seconds = np.array(marked.get(str(name), ()), np.int64)
        bad[number, seconds[(seconds >= 0) & (seconds <= LAST_KEYFRAME)]] = True
    return bad[video, second]


def _owners(
    index: RecordsIndex, video: np.ndarray, frame: np.ndarray, *, where: str | os.PathLike
) -> np.ndarray:
    """int64 [N]: of the records that hold all frames around a keyframe the first in its video.

    Whatever K: the same record serves the detector and the pre-training.
    """
    owner = np.full(len(frame), -1, np.int64)
    for number in np.unique(video):
        own = np.flatnonzero(index.record_video == number)
        own = own[np.argsort(index.stop_frame[own], kind="stable")]
        here = np.flatnonzero(video == number)
        at = np.searchsorted(index.stop_frame[own], frame[here] + REACH)
        at = own[np.minimum(at, len(own) - 1)]
        whole = index.first_frame[at] <= np.maximum(frame[here] - REACH, 0)
        whole &= index.stop_frame[at] >= frame[here] + REACH
        owner[here] = np.where(whole, at, -1)
    bad = np.flatnonzero(owner < 0)
    if len(bad):
        raise InputError(
            f"{where}: no record holds the {2 * REACH} frames around frame {frame[bad[0]]} of "
            f"video {str(index.video_ids[video[bad[0]]])!r} ({len(bad):,} such keyframes); build "
            "the records again"
        )
    return owner


class PeopleOfWindows:
    """Looks up the people of a keyframe's window, as fixed shapes."""

    def __init__(
        self,
        labels: KeyframeLabels,
        plan: GridPlan,
        index: RecordsIndex,
        *,
        window: WindowShape,
        max_tubes: int,
    ):
        """Raises InputError for a keyframe of the plan with more than `max_tubes` people."""
        self._window = window
        self._max_tubes = max_tubes
        self.classes = labels.classes
        self._people = labels.people
        self._record_video = index.record_video
        if window.input_frames > 2 * REACH:
            raise InputError(
                f"the model reads {window.input_frames} frames around a keyframe; AVA's records "
                f"hold {2 * REACH}"
            )
        if self._people is not None:
            self._first, self._count = self._tables(labels.people, index.video_ids)
            self._check_max_tubes(plan, index)

    def __call__(self, record: int, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the window at `start` of a record: boxes float32 [G, T, 4], shares of the frame, 0
        where there is none; which there are, bool [G, T]; labels float32 [G, C], 0 in padding."""
        boxes = np.zeros((self._max_tubes, self._window.input_frames, 4), np.float32)
        mask = np.zeros(boxes.shape[:2], bool)
        labels = np.zeros((self._max_tubes, len(self.classes)), np.float32)
        if self._people is not None:
            place = self._place(record, start)
            first, count = self._first[place], self._count[place]
            found, there, classes = self._people.targets(np.arange(first, first + count))
            times = self._window.input_frames // 2 + FPS * np.arange(-1, 2)
            seen = (times >= 0) & (times < self._window.input_frames)
            boxes[:count, times[seen]] = found[:, seen]
            mask[:count, times[seen]] = there[:, seen]
            labels[:count] = classes
        return boxes, mask, labels

    def _place(self, record, start):
        """Where in the tables the keyframe of a window is."""
        second = second_of_frame(start + self._window.clip_frames // 2)
        return self._record_video[record], second - FIRST_KEYFRAME

    def _tables(self, people: People, video_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """int64 [V, 897] twice: of each keyframe of the records the first of its people's rows,
        and their number."""
        number = {name: i for i, name in enumerate(people.videos)}
        ours = np.array([number.get(str(name), -1) for name in video_ids])
        seconds = np.arange(FIRST_KEYFRAME, LAST_KEYFRAME + 1)
        shape = (len(ours), len(seconds))
        every = Keyframes(people.videos, np.repeat(ours, shape[1]), np.tile(seconds, shape[0]))
        first, count = rows_of_keyframes(people, every)
        return first.reshape(shape), count.reshape(shape)

    def _check_max_tubes(self, plan: GridPlan, index: RecordsIndex):
        record = np.repeat(np.arange(index.num_records), plan.count)
        count = self._count[self._place(record, plan.starts)]
        most = int(count.max(initial=0))
        if most > self._max_tubes:
            worst = int(count.argmax())
            video, place = self._place(record[worst], plan.starts[worst])
            raise InputError(
                f"keyframe {FIRST_KEYFRAME + place} of video {str(index.video_ids[video])!r} has "
                f"{most} people; max_tubes is {self._max_tubes}: set it to {most} or more"
            )
