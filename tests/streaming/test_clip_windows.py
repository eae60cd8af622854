"""Streaming windows against the definition with the whole video in memory."""

import itertools

import numpy as np
import pytest

from step_jax.streaming.clip_windows import Window, batches, stack, stream_windows

SHAPES = [(6, 30), (6, 6), (4, 7), (1, 1), (3, 5), (2, 6)]


def windows_of(n, *, clip_frames, input_frames, stride):
    """All windows of a video of n frames, from their definition."""
    starts = list(range(0, max(n - clip_frames, 0) + 1, stride))
    last = max(n - clip_frames, 0)
    if starts[-1] != last:
        starts.append(last)
    result = []
    for start in starts:
        first = start - (input_frames - clip_frames) // 2
        frames = [min(max(first + i, 0), n - 1) for i in range(input_frames)]
        result.append(Window(start, min(start + clip_frames, n), tuple(frames)))
    return result


@pytest.mark.parametrize(("clip_frames", "input_frames"), SHAPES)
def test_streamed_windows_are_those_of_the_whole_video(clip_frames, input_frames):
    for n, stride in itertools.product([1, 2, 3, 5, 6, 7, 11, 29, 30, 31, 40], [1, 2, 5, 6, 9]):
        shape = {"clip_frames": clip_frames, "input_frames": input_frames, "stride": stride}
        assert list(stream_windows(range(n), **shape)) == windows_of(n, **shape), (n, stride)


def test_no_frames_give_no_window():
    assert list(stream_windows([], clip_frames=2, input_frames=6, stride=1)) == []


def test_a_window_comes_with_its_last_frame_and_memory_is_bounded():
    class Frame:
        alive = 0

        def __init__(self):
            Frame.alive += 1

        def __del__(self):
            Frame.alive -= 1

    read, most = 0, 0

    def video():
        nonlocal read
        for _ in range(200):
            read += 1
            yield Frame()

    for window in stream_windows(video(), clip_frames=6, input_frames=18, stride=4):
        assert read <= max(window.start + 12, 12)
        most = max(most, Frame.alive)
    assert most <= 18 + 4 + 1


def test_frames_up_to_a_start_are_final():
    windows = list(stream_windows(range(23), clip_frames=6, input_frames=8, stride=4))
    starts = [window.start for window in windows]
    assert starts == sorted(set(starts))


def test_batches_keep_order_and_rest():
    assert list(batches(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batches([], 2)) == []


def test_stack_fills_up_to_one_shape():
    frames = np.arange(4)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    windows = list(stream_windows(frames, clip_frames=2, input_frames=2, stride=1))
    clips = stack(windows, 5)
    assert clips.shape == (5, 2, 2, 2, 3)
    np.testing.assert_array_equal(clips[:, 0, 0, 0, 0], [0, 1, 2, 2, 2])
    np.testing.assert_array_equal(clips[4], clips[2])
