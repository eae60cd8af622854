"""Streamed rows against the same detector on windows cut from the whole video at once."""

import numpy as np
import pytest

from step_jax.clip_detections import clip_rows
from step_jax.stopwatch import Stopwatch
from step_jax.streaming.video_rows import stream_rows


def stream(predictor, frames, *, stride=2, batch_size=4):
    return list(
        stream_rows(
            iter(frames),
            predictor,
            video="numbers",
            stride=stride,
            batch_size=batch_size,
            stopwatch=Stopwatch(),
        )
    )


def rows_of_whole_video(predictor, n, *, stride, step):
    last = max(n - predictor.clip_frames, 0)
    starts = sorted({*range(0, last + 1, stride), last})
    before = (predictor.input_frames - predictor.clip_frames) // 2
    places = np.array(starts)[:, None] - before + np.arange(predictor.input_frames)
    clips = np.clip(places, 0, n - 1)[..., None, None, None] * np.ones((16, 16, 3))
    tubelets = predictor(clips.astype(np.uint8))[step - 1]
    return clip_rows(
        tubelets.scores,
        tubelets.tubes,
        videos=["numbers"] * len(starts),
        starts=np.array(starts),
        num_frames=np.full(len(starts), n),
        stride=stride,
        step=step,
    )


@pytest.mark.parametrize(("n", "stride"), [(1, 1), (2, 2), (3, 1), (20, 2), (21, 3), (22, 3)])
def test_rows_are_those_of_the_whole_video(arithmetic, n, stride):
    predictor = arithmetic.Predictor()
    frames = [arithmetic.frame(number, width=16, height=16) for number in range(n)]
    batches = stream(predictor, frames, stride=stride)
    for step in (1, 2):
        expected = rows_of_whole_video(predictor, n, stride=stride, step=step)
        for name, column in expected.items():
            found = np.concatenate([batch.steps[step - 1][name] for batch in batches])
            np.testing.assert_array_equal(found, column, err_msg=f"{name} of step {step}")
        assert len(column) > 0


def test_all_videos_have_one_shape(arithmetic):
    predictor = arithmetic.Predictor()
    for n in (1, 5, 12):
        frames = [arithmetic.frame(number, width=16, height=16) for number in range(n)]
        stream(predictor, frames)
    assert predictor.shapes == {(4, 7, 16, 16, 3)}


def test_final_frames_have_no_later_rows(arithmetic):
    frames = [arithmetic.frame(number, width=16, height=16) for number in range(23)]
    batches = stream(arithmetic.Predictor(), frames, batch_size=2)
    for index, batch in enumerate(batches[:-1]):
        later = [rows["frame"].min() for b in batches[index + 1 :] for rows in b.steps]
        assert min(later) >= batch.final


def test_the_device_is_one_batch_ahead(arithmetic):
    predictor, calls = arithmetic.Predictor(), []
    inner = predictor.__class__.__call__

    class Watched(predictor.__class__):
        def __call__(self, clips):
            calls.append(len(clips))
            return inner(self, clips)

    frames = [arithmetic.frame(number, width=16, height=16) for number in range(20)]
    rows = stream_rows(frames, Watched(), video="v", stride=1, batch_size=3, stopwatch=Stopwatch())
    next(rows)
    assert len(calls) == 2
