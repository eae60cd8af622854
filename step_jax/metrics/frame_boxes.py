"""Detections and ground truth of a split as boxes in frames, in pixels and in one order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, Video
from step_jax.detections import Detections, TableHeader
from step_jax.errors import InputError
from step_jax.windows import evaluated_frames

BLOCK_ROWS = 2**17  # what fits into a cache is faster


@dataclass(frozen=True, eq=False)
class FrameBoxes:
    """N boxes in frames.

    frame: int64 [N], counted through all videos of the split in the order of the annotations.
    label: int64 [N].
    boxes: float32 [N, 4] in pixels of the annotation's frame.
    score: float32 [N]; 1 for the ground truth.
    """

    frame: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    score: np.ndarray

    def take(self, rows: np.ndarray) -> FrameBoxes:
        return FrameBoxes(self.frame[rows], self.label[rows], self.boxes[rows], self.score[rows])

    def cells(self, num_classes: int) -> np.ndarray:
        """A number for each (frame, class), int64 [N]."""
        return self.frame * num_classes + self.label


def first_frames(videos: Sequence[Video]) -> np.ndarray:
    """Where each video begins in the count of all frames, then how many there are: `[V + 1]`."""
    return np.cumsum([0, *(video.num_frames for video in videos)])


def frames_that_count(videos: Sequence[Video], header: TableHeader) -> np.ndarray:
    """Which of all frames the detector was asked about: bool `[F]`, counted as in `FrameBoxes`."""
    return np.concatenate(
        [
            evaluated_frames(
                video.num_frames,
                frames=header.frames,
                clip_frames=header.clip_frames,
                stride=header.stride,
            )
            for video in videos
        ]
    )


def annotated_frames(videos: Sequence[Video]) -> np.ndarray:
    """Which of all frames have ground truth of any class: bool `[F]`, counted as `FrameBoxes`."""
    first = first_frames(videos)
    annotated = np.zeros(first[-1], bool)
    for start, video in zip(first, videos, strict=False):
        for tube in video.tubes:
            annotated[start + tube.frames] = True
    return annotated


def truth_boxes(annotations: Annotations, split: str, header: TableHeader) -> FrameBoxes:
    """The ground truth in the frames that count: a row for each label of each box, tube by tube.

    Raises InputError for an unknown split and for one without any box in such a frame.
    """
    videos = annotations.split(split)
    frames, labels, boxes = [], [], []
    for first, video in zip(first_frames(videos), videos, strict=False):
        for tube, label in ((t, label) for t in video.tubes for label in t.labels):
            frames.append(first + tube.frames)
            labels.append(np.full(len(tube.frames), label))
            boxes.append(tube.boxes)
    frame = np.concatenate([*frames, np.zeros(0, np.int64)])
    counts = np.flatnonzero(frames_that_count(videos, header)[frame])
    if not len(counts):
        where = "" if header.frames == "all" else " in the middle frame of any window"
        raise InputError(
            f"{annotations.name}: split {split!r} has no annotated box{where}; there is nothing to "
            "compare detections with"
        )
    score = np.ones(len(frame), np.float32)
    return FrameBoxes(frame, np.concatenate(labels), np.concatenate(boxes), score).take(counts)


def detected_boxes(
    detections: Detections, annotations: Annotations, split: str, *, step: int
) -> Iterator[FrameBoxes]:
    """One step's detections, clipped to the image, in blocks of whole videos (at least one block).

    In a block: by video (in the order of the split), frame, class, descending score, tubelet.
    Raises InputError for other classes than the annotations', for a video that is not in the split
    and for a frame beyond its video's end or one that should have no rows.
    """
    videos = annotations.split(split)
    check_classes(detections.classes, annotations)
    rows = detections.at_step(step)
    number = video_numbers(rows, annotations, split).astype(np.int32)
    order = np.argsort(number[rows.video], kind="stable")
    first = first_frames(videos)
    sides = np.array([[v.width, v.height, v.width, v.height] for v in videos], np.float32)
    counts = frames_that_count(videos, rows.header)
    for block in _blocks(number[rows.video[order]], num_videos=len(videos)):
        some = rows.take(order[block])
        video = number[some.video]
        _check_frames(some, video, videos)
        frame = first[video] + some.frame
        _check_frames_count(some, counts[frame])
        boxes = np.clip(some.boxes, 0, 1) * sides[video]
        in_order = np.lexsort((some.tubelet, -some.score, some.label, frame))
        yield FrameBoxes(frame, some.label.astype(np.int64), boxes, some.score).take(in_order)


def video_numbers(rows, annotations: Annotations, split: str) -> np.ndarray:
    """For each name of `rows.videos` its number in the split, int64; -1 for one without rows.

    `rows` are anything with `videos` and `video`: detections, tubelets, tubes. Raises InputError
    for rows of a video that is not in the split.
    """
    numbers = {video.id: i for i, video in enumerate(annotations.split(split))}
    unknown = [rows.videos[i] for i in np.unique(rows.video) if rows.videos[i] not in numbers]
    if unknown:
        raise InputError(
            f"detections of video {unknown[0]!r} ({len(unknown)} such videos), which is not among "
            f"the {len(numbers)} videos of split {split!r} of {annotations.name}; expected the "
            "annotations and the split that the detector was evaluated on"
        )
    return np.array([numbers.get(name, -1) for name in rows.videos], np.int64)


def check_classes(classes: Sequence[str], annotations: Annotations) -> None:
    """Raises InputError for other classes than the annotations', or another order."""
    if tuple(classes) != tuple(annotations.classes):
        raise InputError(
            f"the detections' classes are {list(classes)}, those of {annotations.name} are "
            f"{list(annotations.classes)}; expected the same in one order"
        )


def _blocks(video: np.ndarray, *, num_videos: int) -> Iterator[slice]:
    """Cuts rows `[N]`, ascending by video, where a video begins, about every BLOCK_ROWS rows."""
    starts = np.searchsorted(video, np.arange(num_videos))
    _, at = np.unique(starts // BLOCK_ROWS, return_index=True)
    for start, stop in itertools.pairwise([*starts[at], len(video)]):
        yield slice(int(start), int(stop))


def _check_frames(rows: Detections, video: np.ndarray, videos: Sequence[Video]):
    num_frames = np.array([v.num_frames for v in videos])[video]
    bad = np.flatnonzero(rows.frame >= num_frames)
    if len(bad):
        row = bad[0]
        raise InputError(
            f"detection in frame {rows.frame[row]} of video {videos[video[row]].id!r}, which has "
            f"{num_frames[row]} frames (from 0); expected the videos that are annotated"
        )


def _check_frames_count(rows: Detections, counts: np.ndarray):
    bad = np.flatnonzero(~counts)
    if len(bad):
        row, header = bad[0], rows.header
        raise InputError(
            f"detection in frame {rows.frame[row]} of video {rows.videos[rows.video[row]]!r}, the "
            f"middle of no window of {header.clip_frames} frames at stride {header.stride}; "
            "expected the annotations that the detector was evaluated on"
        )
