import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.clips import WindowShape
from input_pipeline.targets import tubes_in_target, window_targets

WINDOW = WindowShape(4, 7)  # one frame before, two after
NUM_FRAMES = 12


def make_example(seed: int) -> dict[str, np.ndarray]:
    """Up to four tubes with gaps, in a record of a video of 12 frames."""
    random = np.random.default_rng(seed)
    num_tubes = random.integers(0, 5)
    rows = [
        (tube, frame)
        for tube in range(num_tubes)
        for frame in range(NUM_FRAMES)
        if random.random() < 0.4
    ]
    return {
        "tube_ids": random.permutation(9)[:num_tubes].astype(np.int64),
        "tube_labels": random.integers(0, 2, (num_tubes, 3)),
        "tube_index": np.array([tube for tube, _ in rows], np.int64),
        "tube_frame": np.array([frame for _, frame in rows], np.int64),
        "tube_box": random.random((len(rows), 4)).astype(np.float32),
    }


def slow_targets(example, start, max_tubes):
    """Frame by frame and tube by tube."""
    boxes = np.zeros((max_tubes, 7, 4), np.float32)
    mask = np.zeros((max_tubes, 7), bool)
    labels = np.zeros((max_tubes, 3), np.float32)
    place = 0
    for tube in range(len(example["tube_ids"])):
        for time in range(7):
            for row in range(len(example["tube_box"])):
                frame = start - 1 + time
                if (example["tube_index"][row], example["tube_frame"][row]) == (tube, frame):
                    boxes[place, time] = example["tube_box"][row]
                    mask[place, time] = True
        if mask[place].any():
            labels[place] = example["tube_labels"][tube]
            place += 1
            if place == max_tubes:
                break
    return boxes, mask, labels


@pytest.mark.parametrize("seed", range(12))
def test_targets_against_loops(seed):
    example = make_example(seed)
    tensors = {name: tf.constant(value) for name, value in example.items()}
    for start in (0, 3, 8):
        found = window_targets(tensors, start, window=WINDOW, max_tubes=5)
        for ours, expected in zip(found, slow_targets(example, start, 5), strict=True):
            assert ours.dtype == expected.dtype
            np.testing.assert_array_equal(ours, expected)


def present(rows: str, *, num_frames=NUM_FRAMES, min_target_frames) -> list[bool]:
    """Masks as text, seven input frames a tube, | around the target clip."""
    mask = [[mark == "x" for mark in row if mark != "|"] for row in rows.split()]
    return tubes_in_target(
        tf.constant(mask),
        tf.constant(num_frames, tf.int64),
        window=WINDOW,
        min_target_frames=min_target_frames,
    ).numpy()


def test_presence_counts_the_target_clip_alone():
    rows = ".|xxxx|.. x|.xxx|xx x|x...|xx x|....|xx .|....|.."
    assert present(rows, min_target_frames=4).tolist() == [True, False, False, False, False]
    assert present(rows, min_target_frames=3).tolist() == [True, True, False, False, False]
    assert present(rows, min_target_frames=1).tolist() == [True, True, True, False, False]


def test_presence_in_a_video_shorter_than_the_clip():
    rows = ".|xxx.|.. .|xx..|.."
    assert present(rows, num_frames=3, min_target_frames=4).tolist() == [True, False]
