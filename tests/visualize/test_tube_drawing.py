"""Tubes drawn on a small video: where, in which colour, and what the command says."""

import pathlib
import sys

import cv2
import numpy as np
import pytest

from step_jax import cli
from step_jax.annotations import Annotations, Tube, Video, write_native
from step_jax.errors import InputError
from step_jax.tube_table import Tubes, write_tubes
from step_jax.video import VideoWriter, read_frames
from step_jax.visualize import tubes as drawing
from step_jax.visualize.tracks import Track

CLASSES = ("walk", "run")
GREY, RED = 90, np.array([250, 20, 20], np.uint8)
FRAMES, WIDTH, HEIGHT = 12, 160, 120


def track(frames, **changes):
    """A tube of the left half, without the uppermost quarter."""
    boxes = np.tile([0.1, 0.25, 0.5, 0.9], (len(frames), 1))
    values = {"score": 0.9, "frame_scores": np.linspace(0, 1, len(frames))} | changes
    return Track("walk", RED, np.array(frames), boxes, **values)


def view(tracks, columns=1):
    size = {"frame_width": WIDTH, "frame_height": HEIGHT}
    return drawing.TubeView(tracks, num_frames=FRAMES, columns=columns, **size)


def grey():
    return np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)


def test_a_box_is_drawn_in_the_frames_of_its_tube_alone():
    pictures = view([track([4, 5])])
    shown, missing = pictures([grey()], [4]), pictures([grey()], [6])
    assert shown.shape == (pictures.height, pictures.width, 3) == missing.shape
    scale = pictures.width / WIDTH
    head = pictures.height - pictures._bars.height - round(HEIGHT * scale)
    y, x = head + round(0.6 * HEIGHT * scale), round(0.1 * WIDTH * scale)
    np.testing.assert_array_equal(shown[y, x], RED)
    np.testing.assert_array_equal(missing[y, x], [GREY] * 3)
    # The bar below is there at every frame.
    bars = missing[-pictures._bars.height :]
    assert (bars == RED).all(axis=2).any()


def test_the_truth_is_dashed_and_without_a_label():
    truth = track([4], score=None, frame_scores=None)
    pictures = view([truth])
    picture = pictures([grey()], [4])[: -pictures._bars.height].astype(int)
    reddish = picture[..., 0] > picture[..., 1] + 100  # lines of one pixel are smoothed
    rows, columns = (np.flatnonzero(reddish.any(axis=axis)) for axis in (1, 0))
    left = reddish[rows[0] : rows[-1], columns[0] : columns[0] + 2].any(axis=1)
    assert 0.2 < left.mean() < 0.8
    inside = reddish[rows[0] + 4 : rows[-1] - 4, columns[0] + 4 : columns[-1] - 4]
    assert not inside.any()


def test_a_still_is_spread_over_the_tubes():
    assert drawing.still_frames([track([3, 4]), track([8, 9])], num_frames=12, count=4) == [
        3, 5, 7, 9,
    ]  # fmt: skip
    assert drawing.still_frames([], num_frames=12, count=3) == [0, 6, 11]
    assert drawing.still_frames([track([5, 6])], num_frames=12, count=6) == [5, 6]
    assert drawing.still_frames([track([10, 11, 12])], num_frames=12, count=2) == [10, 11]


@pytest.fixture
def data(tmp_path):
    """A video file of another size than its annotation's frame, its annotations and tubes."""
    with VideoWriter(tmp_path / "a.avi", fps=25, width=WIDTH, height=HEIGHT) as writer:
        for _ in range(FRAMES):
            writer.write(grey())
    truth = Tube(labels=(0,), frames=[2, 3], boxes=[[10, 10, 40, 50]] * 2)
    video = Video("x/a", "a.avi", "test", 25, FRAMES, 80, 60, (truth,))
    write_native(tmp_path / "data.json", Annotations("data", CLASSES, [video], tmp_path))
    return tmp_path


def some_tubes(classes=CLASSES):
    return Tubes(
        classes=classes,
        videos=("x/a",),
        video=np.zeros(1, np.int32),
        label=np.ones(1, np.int32),
        score=np.array([0.7]),
        offset=np.array([0, 5]),
        frame=np.arange(1, 6, dtype=np.int32),
        boxes=np.tile(np.float32([8, 15, 40, 54]), (5, 1)),
        frame_score=np.full(5, 0.7, np.float32),
    )


def run(monkeypatch, folder, *arguments, video="x/a"):
    given = ["--tubes", folder / "tubes.parquet", "--annotations", folder / "data.json"]
    monkeypatch.setattr(
        sys, "argv", ["tubes", *map(str, given), "--video", video, *map(str, arguments)]
    )
    with pytest.raises(SystemExit) as status:
        cli.run_command(drawing.main)
    return status.value.code


def test_the_command_draws_every_frame_and_a_still(data, monkeypatch, capsys):
    write_tubes(data / "tubes.parquet", some_tubes())
    output, still = data / "drawn.avi", data / "still.png"
    assert run(monkeypatch, data, "--output", output, "--still", still, "--columns", 3) == 0
    assert "1 tubes found, 1 annotated" in capsys.readouterr().out
    frames = [frame for _, frame in read_frames(output)]
    assert len(frames) == FRAMES
    assert frames[0].shape[1] == 480
    assert np.abs(frames[3].astype(int) - frames[8]).max() > 100  # boxes only in the first
    picture = cv2.imread(str(still))
    assert picture.shape[1] == 3 * 320 + 2 * 4


@pytest.mark.parametrize(
    ("arguments", "video", "message"),
    [
        ((), "x/a", "nothing to draw"),
        (("--still", "a.jpg"), "x/a", "expected .png"),
        (("--output", "a.mov"), "x/a", "expected .webm or .avi"),
        (("--output", "a.webm"), "y", "no video 'y'"),
        (("--output", "a.webm", "--top", "0"), "x/a", "--top is 0; expected 1 or more"),
    ],
)
def test_bad_arguments_are_one_line(data, monkeypatch, capsys, arguments, video, message):
    write_tubes(data / "tubes.parquet", some_tubes())
    monkeypatch.chdir(data)
    assert run(monkeypatch, data, *arguments, video=video) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("replaced", ["a.avi", "tubes.parquet", "data.json"])
def test_the_drawing_replaces_nothing_that_it_is_made_of(data, monkeypatch, capsys, replaced):
    write_tubes(data / "tubes.parquet", some_tubes())
    before = (data / replaced).read_bytes()
    assert run(monkeypatch, data, "--output", data / replaced) == 1
    assert f"{replaced}: is one of the inputs" in capsys.readouterr().err
    assert (data / replaced).read_bytes() == before


def test_the_still_replaces_no_frame(data, monkeypatch, capsys):
    write_tubes(data / "tubes.parquet", some_tubes())
    (data / "a.avi").unlink()
    (data / "a.avi").mkdir()
    (data / "a.avi" / "1.png").write_bytes(b"a frame")
    assert run(monkeypatch, data, "--still", data / "a.avi" / "1.png") == 1
    assert "1.png: is one of the inputs" in capsys.readouterr().err


def test_another_video_or_other_classes(data, monkeypatch, capsys):
    write_tubes(data / "tubes.parquet", some_tubes(("walk", "hop")))
    assert run(monkeypatch, data, "--still", data / "a.png") == 1
    assert "expected tubes found on this data set" in capsys.readouterr().err
    video = Video("x/a", "a.avi", "test", 25, FRAMES + 1, 80, 60, ())
    annotations = Annotations("data", CLASSES, [video], pathlib.Path(data))
    with pytest.raises(InputError, match=r"has 12 frames, but .* 13; expected the annotated"):
        drawing.draw_still(annotations, video, [], columns=2)
