import pathlib
import types

import cv2
import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video
from step_jax.errors import InputError
from step_jax.inference import Tubelets
from step_jax.modality import Modality
from step_jax.visualize import montage
from step_jax.visualize.colors import class_colors
from step_jax.visualize.shot import Shot


def annotated():
    tube = Tube(labels=(0,), frames=[3, 5], boxes=[[4, 6, 20, 24], [8, 6, 24, 24]])
    facts = {"split": "test", "fps": 25, "num_frames": 20, "width": 40, "height": 30}
    videos = [
        Video(id="first", path="videos/a.avi", tubes=(), **facts),
        Video(id="second", path="videos/b.avi", tubes=(tube,), **facts),
    ]
    return Annotations("numbers", ("walk",), videos, pathlib.Path("data"))


def test_the_annotated_video_is_found_by_path_or_name():
    assert montage.find_annotated(annotated(), pathlib.Path("data/videos/b.avi")).id == "second"
    assert montage.find_annotated(annotated(), pathlib.Path("other/b.webm")).id == "second"
    assert montage.find_annotated(annotated(), pathlib.Path("first.mp4")).id == "first"
    with pytest.raises(InputError, match="not among the 2 videos"):
        montage.find_annotated(annotated(), pathlib.Path("c.avi"))


def test_true_boxes_are_those_of_the_frame():
    video = annotated().video("second")
    np.testing.assert_allclose(montage.true_boxes(video, 5), [[0.2, 0.2, 0.6, 0.8]])
    assert montage.true_boxes(video, 4).shape == (0, 4)


def tubelets(scores, corners, frames=4):
    """One class-specific step: corners `[M, R, 2]` of boxes of side .3, growing right by frame."""
    corners = np.array(corners)[:, :, None] + np.arange(frames)[:, None] * [0.02, 0]
    tubes = np.concatenate([corners, corners + 0.3], axis=-1)
    return Tubelets(np.array(scores), tubes, tubes[:, 0])


@pytest.mark.parametrize("modality", ["flow", "early"])
def test_a_detector_of_flow_is_refused(tmp_path, monkeypatch, modality):
    frame = np.zeros((30, 40, 3), np.uint8)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    reads_flow = types.SimpleNamespace(
        modality=Modality(modality), fps=0.0, clip_frames=2, input_frames=2, image_size=16
    )
    monkeypatch.setattr(montage, "load_predictor", lambda *_: reads_flow)
    arguments = ["--workdir", tmp_path, "--video", tmp_path, "--output", tmp_path / "m.png"]
    monkeypatch.setattr("sys.argv", ["montage", *map(str, arguments)])
    with pytest.raises(InputError, match="reads optical flow; montages are of detectors of RGB"):
        montage.main()


def test_best_tubelets_come_after_nms():
    step = tubelets(
        [[0.9, 0.1], [0.8, 0.2], [0.3, 0.5]],
        [[[0.1, 0.1]] * 2, [[0.11, 0.1]] * 2, [[0.6, 0.6]] * 2],
    )
    best = montage.best_tubelets(step, 2)
    assert best.tubelet.tolist() == [0, 2]
    assert best.label.tolist() == [0, 1]


def test_picture_has_a_row_per_frame_and_a_column_per_step():
    shot = Shot(
        start=7,
        numbers=(7, 8, 9, 10),
        frames=tuple(np.full((30, 40, 3), 60 + k, np.uint8) for k in range(4)),
        clip=np.zeros((8, 16, 16, 3), np.uint8),
    )
    step = tubelets([[0.2, 0.9], [0.1, 0.1]], [[[0.1, 0.1], [0.5, 0.5]]] * 2)
    truth = [np.array([[0.4, 0.1, 0.9, 0.4]])] * 4
    picture = montage.draw_montage(shot, [step, step], classes=("walk", "hop"), truth=truth)
    cell_height, cell_width = 240, 320
    header = picture.shape[0] - (3 * cell_height + 2 * 4)
    assert 10 < header < 60
    assert picture.shape[1] == 3 * cell_width + 2 * 4
    color, white = class_colors(2)[1], 255
    for row, offset in enumerate((0, 1, 3)):
        for column in range(3):
            y, x = header + row * (cell_height + 4), column * (cell_width + 4)
            cell = picture[y : y + cell_height, x : x + cell_width]
            assert (cell == 60 + offset).all(axis=2).mean() > 0.5
            assert (cell == white).all(axis=2).any()
            # The class's own box, moved by the frame; in the input column the fed one.
            left, top = (0.1, 0.1) if column == 0 else (0.5, 0.5)
            left = left + 0.02 * offset
            place = round((top + 0.15) * cell_height), round(left * cell_width)
            np.testing.assert_array_equal(cell[place], color)
