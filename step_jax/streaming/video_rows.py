"""A stream of frames through a detector: rows of the detections table, window by window."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from step_jax.clip_detections import clip_rows
from step_jax.inference import Predictor, Tubelets
from step_jax.stopwatch import Stopwatch
from step_jax.streaming.clip_windows import Window, batches, stack, stream_windows


class BatchRows(NamedTuple):
    """What a batch of windows gave.

    steps: columns of the detections table for each step of the detector.
    final: frames below this number are in no later batch.
    """

    steps: list[Mapping[str, np.ndarray]]
    final: int


def stream_rows(
    frames: Iterable[np.ndarray],
    predictor: Predictor,
    *,
    video: str,
    stride: int,
    batch_size: int,
    stopwatch: Stopwatch,
) -> Iterator[BatchRows]:
    """Yields the rows of one batch of windows after the other.

    While the host works on the rows of a batch, the device has the next one.

    Args:
      frames: uint8 `[S, S, channels]` of one video, in order.
      predictor: the detector.
      video: name of the video in the table.
      stride: frames between windows.
      batch_size: windows of a batch; every batch is filled up to it.
      stopwatch: gets the phases "detect" and "select".
    """
    windows = stream_windows(
        frames,
        clip_frames=predictor.clip_frames,
        input_frames=predictor.input_frames,
        stride=stride,
    )
    rows = functools.partial(
        _batch_rows,
        video=video,
        stride=stride,
        stopwatch=stopwatch,
    )
    queued: tuple[list[Window], list[Tubelets]] | None = None
    for batch in batches(windows, batch_size):
        with stopwatch("detect"):
            result = predictor(stack(batch, batch_size))
        if queued is not None:
            yield rows(*queued)
        queued = batch, result
    if queued is not None:
        yield rows(*queued)


def _batch_rows(
    windows: list[Window],
    steps: list[Tubelets],
    *,
    video: str,
    stride: int,
    stopwatch: Stopwatch,
) -> BatchRows:
    count = len(windows)
    with stopwatch("detect"):
        results = [
            (np.asarray(step.scores)[:count], np.asarray(step.tubes)[:count]) for step in steps
        ]
    with stopwatch("select"):
        rows = [
            clip_rows(
                scores,
                tubes,
                videos=[video] * count,
                starts=np.array([window.start for window in windows]),
                num_frames=np.array([window.stop for window in windows]),
                stride=stride,
                step=number,
            )
            for number, (scores, tubes) in enumerate(results, start=1)
        ]
    return BatchRows(rows, final=windows[-1].start + 1)
