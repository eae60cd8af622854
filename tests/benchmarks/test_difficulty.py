"""The difficulty report, on tubes and videos whose answers are known by hand."""

import json
import sys

import numpy as np
import pytest

from benchmarks import difficulty
from step_jax.annotations import Annotations, Tube, Video, write_native
from step_jax.errors import InputError
from step_jax.video import VideoWriter

CLASSES = ("still", "moving")


def tube(label, *, start=0, length=40, speed=0.0, box=(10, 10, 20, 30), without=()):
    frames = np.array([start + i for i in range(length) if i not in without])
    shift = speed * (frames - start)
    boxes = np.array(box) + shift[:, None] * [1, 0, 1, 0]
    return Tube((label,), frames, boxes)


def iou(a, b):
    """The overlap of two boxes by counting half-pixels."""
    x, y = np.meshgrid(np.arange(0.25, 100, 0.5), np.arange(0.25, 100, 0.5))
    inside = [(x > x1) & (x < x2) & (y > y1) & (y < y2) for x1, y1, x2, y2 in (a, b)]
    return np.sum(inside[0] & inside[1]) / np.sum(inside[0] | inside[1])


def test_windows_skip_gaps():
    gappy = tube(0, length=40, without=(12,))
    assert list(difficulty.windows(gappy, 6, stride=1)) == [*range(7), *range(12, 34)]
    assert list(difficulty.windows(gappy, 30, stride=1)) == []


def test_a_still_box_is_its_own_cuboid():
    boxes = tube(0, length=18).boxes
    row = difficulty.measure_window(boxes, np.array([[10, 10, 20, 30], [0, 0, 96, 96]], np.float32))
    assert row["mean_box_iou"] == row["proposal_iou"] == row["extrapolated_iou"] == 1
    assert row["extent"] == row["displacement"] == 0


def test_a_moving_box_against_counted_overlaps():
    boxes = tube(1, length=18, speed=1.5).boxes
    proposals = np.array([[0, 0, 96, 96], [15, 5, 40, 35]], np.float32)
    row = difficulty.measure_window(boxes, proposals)
    mean_box = boxes.mean(axis=0)
    assert row["mean_box_iou"] == pytest.approx(
        np.mean([iou(mean_box, b) for b in boxes]), abs=0.02
    )
    best = max(np.mean([iou(p, b) for b in boxes]) for p in proposals)
    assert row["proposal_iou"] == pytest.approx(best, abs=0.02)
    assert row["extrapolated_iou"] == pytest.approx(1, abs=1e-5)  # uniform motion is Eq. 4's case
    assert row["displacement"] == pytest.approx(1.5 * 17 / 20)


def test_a_path_that_returns_has_extent_but_no_displacement():
    boxes = tube(0, length=18).boxes.copy()
    boxes[:, [0, 2]] += 20 * np.sin(np.linspace(0, np.pi, 18))[:, None]
    row = difficulty.measure_window(boxes, np.array([[0, 0, 96, 96]], np.float32))
    assert row["displacement"] == pytest.approx(0, abs=1e-5)
    assert row["extent"] == pytest.approx(1, abs=0.01)


def test_the_report_is_by_class():
    video = Video("v", "v.avi", "train", 25, 80, 96, 96, (tube(0), tube(1, speed=1.0)))
    report = difficulty.window_report([video], CLASSES, 30)
    assert list(report) == ["still", "moving", "all"]
    assert report["still"]["windows"] == report["moving"]["windows"] == 2
    assert report["all"]["windows"] == 4
    assert report["moving"]["mean_box_iou"] < 0.5 < report["still"]["mean_box_iou"] == 1
    middle = (report["moving"]["mean_box_iou"] + 1) / 2
    assert report["all"]["mean_box_iou"] == pytest.approx(middle, abs=1e-3)


def test_a_crop_is_centred_and_keeps_proportions():
    image = np.zeros((96, 96, 3), np.uint8)
    image[20:60, 40:50] = 255
    crop = difficulty.crop(image, np.array([40, 20, 50, 60]))
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert rows.mean() == pytest.approx(31.5, abs=1)
    assert columns.mean() == pytest.approx(31.5, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(64 / 1.1, abs=2)
    assert np.ptp(columns) + 1 == pytest.approx(16 / 1.1, abs=2)


@pytest.fixture
def data(tmp_path):
    """Two classes that look alike in every frame: the same bar, moving right or left."""
    rng = np.random.default_rng(0)
    videos = []
    for number in range(12):
        label, split = number % 2, "train" if number < 8 else "test"
        speed = (1, -1)[label]
        x = 27 - 20 * speed + rng.integers(-6, 7)
        known = tube(label, speed=speed, box=(x, 20, x + 10, 40))
        with VideoWriter(tmp_path / f"{number}.avi", fps=25, width=64, height=64) as writer:
            for x1, y1, x2, y2 in known.boxes.astype(int):
                frame = np.full((64, 64, 3), 90, np.uint8)
                frame[y1:y2, x1:x2] = 220
                writer.write(frame)
        videos.append(Video(str(number), f"{number}.avi", split, 25, 40, 64, 64, (known,)))
    annotations = Annotations("squares", CLASSES, tuple(videos), tmp_path)
    write_native(tmp_path / "annotations.json", annotations)
    return annotations


def test_motion_is_classified_and_the_still_frame_is_not(data):
    report = difficulty.classifier_report(data, train="train", test="test")
    assert report["chance"] == 0.5
    assert report["30 boxes, no pixels"]["accuracy"] == 1
    assert report["30 boxes, no pixels"]["confusion"] == [[4, 0], [0, 4]]
    assert report["1 frame"]["accuracy"] < 1


def test_the_command_writes_what_it_prints(data, monkeypatch, capsys):
    output = data.root / "difficulty.json"
    files = ["--annotations", str(data.root / "annotations.json"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["difficulty", *files])
    difficulty.main()
    report = json.loads(output.read_text())
    assert report["name"] == "squares"
    assert set(report["windows"]) == {"6", "18", "30"}
    assert "row: truth, column: answer" in capsys.readouterr().out


def test_tubes_that_are_too_short_are_an_error(data):
    short = Video("s", "0.avi", "short", 25, 40, 64, 64, (tube(0, length=10),))
    annotations = Annotations("squares", CLASSES, (*data.videos, short), data.root)
    with pytest.raises(InputError, match="'short' has 30 frames in a row"):
        difficulty.classifier_report(annotations, train="train", test="short")
