"""Text labels have no tubes: boxes are joined from frame to frame, and that is all they tell."""

import itertools

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.annotations.foreign import UNASSIGNED, Source
from step_jax.annotations.frame_labels import (
    join_boxes,
    labelled_videos,
    read_frame_labels,
    write_frame_labels,
)
from step_jax.errors import InputError

NAME = "Diving/v_Diving_g20_c01"
CLASS = 6  # Diving, from 1


@pytest.fixture
def read(tmp_path):
    """Writes {frame: text} for one video and reads the folder."""

    def read_texts(texts, frames=9, **options):
        folder = tmp_path / "labels" / NAME
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
        return read_frame_labels(tmp_path / "labels", num_frames={NAME: frames}, **options)

    return read_texts


def test_a_folder_as_it_is_distributed(read, tmp_path):
    # Single spaces, whole numbers or not, with and without a newline, an empty file.
    texts = {
        "00003.txt": "6 10 20 30 40\n",
        "00004.txt": "6 11.5 20 31.5 40",
        "00005.txt": "",
        "00007.txt": "6.0 1e1 20 30 40\n\n",
    }
    [video] = read(texts).videos
    assert (video.id, video.split, video.num_frames) == (NAME, UNASSIGNED, 9)
    assert [tube.labels for tube in video.tubes] == [(5,), (5,)]
    np.testing.assert_array_equal(video.tubes[0].frames, [2, 3])  # 00001.txt is frame 0
    np.testing.assert_array_equal(video.tubes[0].boxes, [[10, 20, 30, 40], [11.5, 20, 31.5, 40]])
    np.testing.assert_array_equal(video.tubes[1].frames, [6])
    assert labelled_videos(tmp_path / "labels") == [NAME]


def test_corners_count_from_0_or_1(read):
    [tube] = read({"00001.txt": "6 10 20 30 40"}, corner_base=1).videos[0].tubes
    np.testing.assert_array_equal(tube.boxes, [[9, 19, 29, 39]])


def test_a_video_without_labels_has_no_tube(tmp_path):
    (tmp_path / "labels").mkdir()
    [video] = read_frame_labels(tmp_path / "labels", num_frames={NAME: 5}).videos
    assert video.tubes == ()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"00001.txt": "6 1 2 3"}, "00001.txt: line 1: is '6 1 2 3'; expected 'class x1 y1 x2 y2'"),
        ({"00001.txt": "6 1 2 3 4 .9"}, "expected 'class x1 y1 x2 y2'"),
        ({"00001.txt": "6 1 2 3 nan"}, "expected 'class x1 y1 x2 y2'"),
        ({"00001.txt": "6.5 1 2 3 4"}, "expected 'class x1 y1 x2 y2'"),
        ({"00001.txt": "Diving 1 2 3 4"}, "expected 'class x1 y1 x2 y2'"),
        ({"00001.txt": "6 5 2 3 4"}, "frame 0 has an empty or inverted box"),
        ({"00001.txt": "5 1 2 3 4"}, "label 4 is CricketBowling, but the video is"),
        ({"00001.txt": "0 1 2 3 4"}, "label -1 is no class"),
        ({"00010.txt": "6 1 2 3 4"}, "tube 0 covers frames 9 to 9"),
        ({"00000.txt": "6 1 2 3 4"}, "expected names like 00001.txt"),
        ({"frame1.txt": "6 1 2 3 4"}, "expected names like 00001.txt"),
        ({"1.txt": "", "00001.txt": ""}, "are of the same frame"),
    ],
)
def test_what_is_wrong_is_an_error_that_names_the_file(read, texts, message):
    with pytest.raises(InputError, match=message) as error:
        read(texts)
    assert NAME in str(error.value)


def moving(x, frames, dx=2.0, y=50):
    """An actor of 20 x 40 pixels from (x, y) on, dx pixels a frame."""
    left = x + dx * (np.array(frames) - frames[0])
    top = np.full(len(frames), float(y))
    return Tube((CLASS - 1,), frames, np.stack([left, top, left + 20, top + 40], 1))


def dataset(*tubes):
    video = Video(NAME, NAME, "test", 25.0, 30, 320, 240, tubes)
    return Annotations("ucf101_24", Source().classes, [video], "root")


def test_actors_who_cross_keep_their_tubes_where_overlap_can_tell(tmp_path):
    left, right = moving(20, range(14), dx=5), moving(85, range(14), dx=-1, y=75)
    alone = moving(250, [4, 5, 6])
    write_frame_labels(tmp_path / "labels", dataset(left, right, alone))
    [video] = read_frame_labels(tmp_path / "labels", num_frames={NAME: 30}).videos
    assert video.tubes == (left, right, alone)


def test_a_tube_that_begins_where_another_ended_becomes_its_continuation(tmp_path):
    write_frame_labels(tmp_path / "labels", dataset(moving(20, [3, 4]), moving(24, [5, 6])))
    [video] = read_frame_labels(tmp_path / "labels", num_frames={NAME: 30}).videos
    assert video.tubes == (moving(20, [3, 4, 5, 6]),)


def test_joining_takes_the_largest_overlaps_of_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = (rng.integers(0, 30, (3, 2)) for _ in range(2))
        rows = [np.column_stack([np.ones(3), low, low + 20]) for low in (first, second)]
        tubes = join_boxes([(0, rows[0]), (1, rows[1])], min_giou=-0.1)
        found = {(*tube.boxes[0], *tube.boxes[1]) for tube in tubes if len(tube.frames) == 2}
        expected = {
            tuple(np.float32([*rows[0][i, 1:], *rows[1][j, 1:]])) for i, j in best_pairs(rows)
        }
        assert found == expected


def best_pairs(rows):
    """By brute force: the largest overlap of the boxes that are left, again and again."""
    left, right, pairs = set(range(3)), set(range(3)), []
    while left and right:
        pairs_left = itertools.product(left, right)
        cost, i, j = min((-overlap(rows[0][i], rows[1][j]), i, j) for i, j in pairs_left)
        if cost > 0.1:
            break
        pairs.append((i, j))
        left.remove(i)
        right.remove(j)
    return pairs


def overlap(a, b):
    """Generalised IoU by counting pixels; the corners are whole numbers."""
    x, y = np.meshgrid(*[np.arange(50) + 0.5] * 2)
    in_a, in_b = ((box[1] < x) & (x < box[3]) & (box[2] < y) & (y < box[4]) for box in (a, b))
    low, high = np.minimum(a, b), np.maximum(a, b)
    around = (low[1] < x) & (x < high[3]) & (low[2] < y) & (y < high[4])
    union = (in_a | in_b).sum()
    return (in_a & in_b).sum() / union - (around.sum() - union) / around.sum()


@pytest.mark.parametrize("corner_base", [0, 1])
def test_what_is_written_is_read_back_box_by_box(tmp_path, corner_base):
    data = dataset(moving(0.1, [3, 4, 5], dx=1 / 3), moving(100, [5, 6]))
    path = tmp_path / "labels"
    write_frame_labels(path, data, corner_base=corner_base)
    assert len(list((path / NAME).iterdir())) == 4
    [video] = read_frame_labels(path, num_frames={NAME: 30}, corner_base=corner_base).videos
    for tube, expected in zip(video.tubes, data.videos[0].tubes, strict=True):
        np.testing.assert_allclose(tube.boxes, expected.boxes, atol=1e-5)
        np.testing.assert_array_equal(tube.frames, expected.frames)
    with pytest.raises(InputError, match="is there already"):
        write_frame_labels(path, data)
