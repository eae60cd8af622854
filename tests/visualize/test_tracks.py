import pathlib

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.errors import InputError
from step_jax.tube_table import Tubes
from step_jax.visualize.colors import WHITE, class_colors
from step_jax.visualize.tracks import annotated_tracks, check_same_data, found_tracks

CLASSES = ("walk", "run")


def video(id="a"):
    tube = Tube(labels=(1, 0), frames=[3, 5], boxes=[[4, 6, 20, 24], [8, 6, 24, 24]])
    facts = {"split": "test", "fps": 25, "num_frames": 20, "width": 40, "height": 30}
    return Video(id=id, path=f"{id}.avi", tubes=(tube,), **facts)


def tubes(*rows, videos=("b", "a")):
    """Of (video, label, score, first frame, frames, box); a frame's score is .1 a frame."""
    offset = np.cumsum([0, *(row[4] for row in rows)])
    frame = [np.arange(first, first + n) for _, _, _, first, n, _ in rows]
    return Tubes(
        classes=CLASSES,
        videos=videos,
        video=np.array([row[0] for row in rows], np.int32),
        label=np.array([row[1] for row in rows], np.int32),
        score=np.array([row[2] for row in rows]),
        offset=offset,
        frame=np.concatenate(frame).astype(np.int32),
        boxes=np.concatenate([np.tile(row[5], (row[4], 1)) for row in rows]).astype(np.float32),
        frame_score=np.concatenate([0.1 * np.arange(row[4]) for row in rows]),
    )


LEFT, RIGHT = [0, 0, 10, 10], [20, 0, 40, 15]


def test_the_best_tubes_of_the_video_after_nms():
    found = tubes(
        (1, 0, 0.5, 0, 4, LEFT),
        (0, 0, 0.99, 0, 4, LEFT),  # of another video
        (1, 0, 0.7, 0, 4, LEFT),  # suppresses the first
        (1, 1, 0.6, 0, 4, LEFT),  # another class
        (1, 0, 0.8, 2, 3, RIGHT),
    )
    tracks = found_tracks(found, video(), top=5)
    assert [track.title for track in tracks] == ["walk 0.80", "walk 0.70", "run 0.60"]
    assert tracks[0].frames.tolist() == [2, 3, 4]
    np.testing.assert_allclose(tracks[0].boxes[0], [0.5, 0, 1, 0.5])
    assert [tracks[0].label(row) for row in range(3)] == ["walk 0.00", "walk 0.10", "walk 0.20"]
    np.testing.assert_array_equal([track.color for track in tracks], class_colors(3))
    assert len(found_tracks(found, video(), top=2)) == 2
    assert len(found_tracks(found, video(), top=5, min_score=0.65)) == 2


def test_a_video_without_tubes():
    found = tubes((0, 0, 0.5, 0, 4, LEFT))
    assert found_tracks(found, video(), top=5) == []
    assert found_tracks(found, video("c"), top=5) == []
    nothing = found.take(np.zeros(1, bool))
    assert found_tracks(nothing, video(), top=5) == []


def test_the_truth_is_white_and_has_all_its_classes():
    (track,) = annotated_tracks(video(), CLASSES)
    assert (track.title, track.is_truth) == ("truth: run, walk", True)
    np.testing.assert_array_equal(track.color, WHITE)
    np.testing.assert_allclose(track.boxes[1], [0.2, 0.2, 0.6, 0.8])
    assert [track.row(frame) for frame in (2, 3, 4, 5, 6)] == [None, 0, None, 1, None]


def test_tubes_of_other_classes_are_refused():
    found = tubes((0, 0, 0.5, 0, 4, LEFT))
    check_same_data(found, Annotations("x", CLASSES, [video()], pathlib.Path()))
    other = Annotations("other", ("walk", "hop"), [video()], pathlib.Path())
    with pytest.raises(InputError, match=r"the annotations 'other'.*tubes found on this data set"):
        check_same_data(found, other)
