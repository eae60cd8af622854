"""The internal form: what is wrong in itself cannot be made, and what is made cannot change."""

import dataclasses

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.errors import InputError

BOX = [1.0, 2.0, 3.0, 4.0]


def tube(frames=(3, 4), labels=(0,), boxes=None):
    return Tube(labels, np.array(frames), [BOX] * len(frames) if boxes is None else boxes)


def video(id="v", split="train", tubes=(), **changes):
    facts = {"path": f"{id}.webm", "fps": 25.0, "num_frames": 10, "width": 64, "height": 48}
    return Video(id=id, split=split, tubes=tubes, **(facts | changes))


def annotations(*videos, classes=("walk", "run")):
    return Annotations("set", classes, videos, "root")


def test_tube_holds_read_only_arrays_of_the_agreed_types():
    frames, boxes = np.array([3, 5]), np.array([BOX, BOX])
    made = Tube([1, 0], frames, boxes)
    boxes[0] = 99  # the caller's own array stays the caller's own
    assert made.labels == (1, 0)
    assert made.frames.dtype == np.int32
    assert made.boxes.dtype == np.float32
    np.testing.assert_array_equal(made.boxes, [BOX, BOX])
    with pytest.raises(ValueError, match="read-only"):
        made.boxes[0, 0] = 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ()}, "one or more different classes"),
        ({"labels": (0, 0)}, "one or more different classes"),
        ({"labels": (-1,)}, "one or more different classes"),
        ({"frames": ()}, "no box at all"),
        ({"frames": (4, 4)}, "frame 4 follows frame 4"),
        ({"frames": (5, 4)}, "frame 4 follows frame 5"),
        ({"boxes": [BOX]}, r"shape \(1, 4\); expected \(2, 4\)"),
        ({"boxes": [[1, 2, 3]] * 2}, r"shape \(2, 3\)"),
        ({"boxes": [BOX, [1, 2, 1, 4]]}, "frame 4 has an empty or inverted box"),
        ({"boxes": [BOX, [1, 5, 3, 4]]}, "frame 4 has an empty or inverted box"),
        ({"boxes": [[1, 2, np.nan, 4], BOX]}, "frame 3 has a box that is not finite"),
        ({"boxes": [[1, 2, np.inf, 4]] * 2}, "and 1 more of this tube"),
    ],
)
def test_tube_refuses_what_no_consumer_could_use(arguments, message):
    with pytest.raises(InputError, match=message):
        tube(**arguments)


def test_tubes_are_equal_by_content():
    assert tube() == tube()
    assert tube() != tube(labels=(1,))
    assert tube() != tube(frames=(3, 5))
    assert tube() != tube(boxes=[BOX, [1, 2, 3, 5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id is ''"),
        ({"path": "a\nb"}, "printable"),
        ({"split": ""}, "split is ''"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_frames": 2**40}, "num_frames is"),
        ({"width": -1}, "width is -1"),
        ({"tubes": [tube(frames=(9,)), tube(frames=(9, 10))]}, "tube 1 covers frames 9 to 10"),
        ({"tubes": [tube(frames=(-1, 0))]}, "tube 0 covers frames -1 to 0"),
    ],
)
def test_video_refuses_what_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        video(**changes)


def test_annotations_refuse_repeated_names_and_unknown_labels():
    with pytest.raises(InputError, match="class 'walk' occurs twice"):
        annotations(classes=("walk", "walk"))
    with pytest.raises(InputError, match="list of classes is empty"):
        annotations(classes=())
    with pytest.raises(InputError, match="video id 'a' occurs twice"):
        annotations(video("a"), video("b"), video("a"))
    with pytest.raises(InputError, match="video 'a', tube 1: label 2"):
        annotations(video("a", tubes=[tube(), tube(labels=(2,))]))


def test_annotations_find_splits_and_videos():
    data = annotations(video("a", "val"), video("b", "train"), video("c", "val"))
    assert data.splits == ("val", "train")
    assert [v.id for v in data.split("val")] == ["a", "c"]
    assert data.video("c") is data.videos[2]
    assert data.video_path(data.videos[0]).parts == ("root", "a.webm")
    with pytest.raises(InputError, match="no split 'test'; the splits are: 'val', 'train'"):
        data.split("test")
    with pytest.raises(InputError, match="no video 'z' among its 3 videos"):
        data.video("z")


def test_annotations_compare_by_content_wherever_they_lie():
    data = annotations(video("a", tubes=[tube()]))
    assert data == dataclasses.replace(data, root="elsewhere")
    assert data != dataclasses.replace(data, videos=[video("a")])
