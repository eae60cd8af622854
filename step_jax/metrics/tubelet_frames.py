"""From raw tubelets straight to boxes in frames: step 1 and 2 of the frame-mAP protocol."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from step_jax.annotations import Annotations
from step_jax.clip_detections import clip_detections
from step_jax.detections import TableHeader
from step_jax.errors import InputError
from step_jax.metrics.frame_boxes import (
    FrameBoxes,
    check_classes,
    first_frames,
    video_numbers,
)
from step_jax.nms import starts_of_runs
from step_jax.tubelet_table import TubeletHeader, TubeletRows

BLOCK_TUBELETS = 2**12  # of which a block of detections is made; what fits into a cache is faster


def as_table_header(header: TubeletHeader) -> TableHeader:
    """The header of the detections table that such tubelets give."""
    return TableHeader(
        classes=header.classes,
        clip_frames=header.clip_frames,
        stride=header.stride,
        num_steps=header.num_steps,
        provenance=header.provenance,
    )


def frame_detections(
    rows: TubeletRows, annotations: Annotations, split: str, **limits
) -> Iterator[FrameBoxes]:
    """The boxes in frames of one step's tubelets, as `frame_boxes.detected_boxes` gives them.

    Args:
      rows: of whole videos, of one step, in any order; those of a video that lie beyond its end
        (of a window longer than it) are left out.
      annotations, split: their videos; the classes must be those of the rows.
      limits: of `clip_detections`.

    Raises InputError as `detected_boxes`.
    """
    check_classes(rows.header.classes, annotations)
    videos = annotations.split(split)
    number = video_numbers(rows, annotations, split)[rows.video]
    order = np.lexsort((rows.proposal, rows.start, number))
    num_frames = np.array([video.num_frames for video in videos])
    _check_starts(rows, num_frames[number])
    first = first_frames(videos)
    sides = np.array([[v.width, v.height, v.width, v.height] for v in videos], np.float32)
    for block in _blocks(number[order]):
        some, video = rows.take(order[block]), number[order[block]]
        yield _block(some, video, first=first, num_frames=num_frames, sides=sides, **limits)


def _block(
    rows: TubeletRows,
    video: np.ndarray,
    *,
    first: np.ndarray,
    num_frames: np.ndarray,
    sides: np.ndarray,
    **limits,
) -> FrameBoxes:
    """The boxes of rows that are sorted by video, window and proposal."""
    K = rows.header.clip_frames
    clips = np.cumsum(starts_of_runs(first[video] + rows.start))
    found = clip_detections(rows.scores, rows.tubes, clips=clips, **limits)
    own = video[found.tubelet]
    frame = rows.start[found.tubelet, None] + np.arange(K)
    inside = np.flatnonzero(frame < num_frames[own, None])  # of a window longer than its video
    frame = (first[own, None] + frame).ravel()
    # By frame, class and score; equal scores stay in the order of windows and proposals, which
    # they are in. One whole number for each box sorts several times faster than three columns.
    num_pairs = len(found.score)
    rank = np.empty(num_pairs, np.int64)
    rank[np.argsort(-found.score, kind="stable")] = np.arange(num_pairs)
    pair = inside // K
    cells = frame[inside] * len(rows.header.classes) + found.label[pair]
    order = inside[np.argsort(cells * num_pairs + rank[pair])]
    pair = order // K
    return FrameBoxes(
        frame=frame[order],
        label=found.label[pair],
        boxes=found.boxes.reshape(-1, 4)[order] * sides[own[pair]],
        score=found.score[pair],
    )


def _blocks(video: np.ndarray) -> Iterator[slice]:
    """Cuts rows, ascending by video, where a video begins; at least one block."""
    starts = np.append(0, np.flatnonzero(video[1:] != video[:-1]) + 1)
    _, at = np.unique(starts // BLOCK_TUBELETS, return_index=True)
    for start, stop in zip(starts[at], np.append(starts[at][1:], len(video)), strict=True):
        yield slice(int(start), int(stop))


def _check_starts(rows: TubeletRows, num_frames: np.ndarray) -> None:
    bad = np.flatnonzero(rows.start >= num_frames)
    if len(bad):
        row = bad[0]
        raise InputError(
            f"tubelets of a window at frame {rows.start[row]} of video "
            f"{rows.videos[rows.video[row]]!r}, which has {num_frames[row]} frames (from 0); "
            "expected the videos that are annotated"
        )
