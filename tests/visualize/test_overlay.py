import numpy as np
import pytest

from step_jax.proposals import initial_boxes
from step_jax.streaming.frame_detections import FrameBoxes
from step_jax.visualize.colors import class_colors
from step_jax.visualize.overlay import Overlay, panel_steps


def boxes(*found):
    """FrameBoxes of (tubelet, label, score, box)."""
    tubelet, label, score, box = zip(*found, strict=True) if found else ((), (), (), ())
    return FrameBoxes(
        np.array(tubelet, int), np.array(label, int), np.array(score), np.reshape(box, (-1, 4))
    )


def overlay(*, steps, width=96, height=64, num_classes=3):
    return Overlay(
        classes=["walk", "hop", "spin"][:num_classes],
        width=width,
        height=height,
        proposals=initial_boxes(11),
        steps=steps,
    )


def has_color(picture, label):
    return (picture == class_colors(3)[label]).all(axis=2).any()


@pytest.mark.parametrize(
    ("num_steps", "steps"), [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3]), (6, [0, 2, 4, 6])]
)
def test_panel_steps(num_steps, steps):
    assert panel_steps(num_steps) == steps


def test_one_step_is_the_frame_enlarged_with_its_boxes():
    draw = overlay(steps=[2])
    assert (draw.width, draw.height) == (540, 360)
    frame = np.full((64, 96, 3), 90, np.uint8)
    picture = draw(frame, {2: boxes((5, 1, 0.75, [0.25, 0.5, 0.5, 0.75]))})
    assert picture.shape == (360, 540, 3)
    np.testing.assert_array_equal(picture[225, 135], class_colors(3)[1])
    np.testing.assert_array_equal(picture[225, 200], [90, 90, 90])
    assert not has_color(picture, 0)


def drawn(monkeypatch, found):
    """(boxes in shares, their labels) that are drawn of a step."""
    calls = []

    def record(frame, boxes, colors, *, labels):
        calls.append((boxes / [540, 360, 540, 360], labels))
        return frame

    draw = overlay(steps=[1])
    monkeypatch.setattr("step_jax.visualize.overlay.draw_boxes", record)
    draw(np.zeros((64, 96, 3), np.uint8), {1: found})
    return calls[0]


def test_an_actor_has_one_box_with_all_its_classes_the_best_first(monkeypatch):
    one, almost, other = [0.1, 0.2, 0.5, 0.8], [0.11, 0.2, 0.5, 0.82], [0.3, 0.2, 0.7, 0.8]
    rows = [(5, 1, 0.9, one), (9, 2, 0.8, other), (6, 0, 0.7, almost), (5, 2, 0.4, one)]
    found, labels = drawn(monkeypatch, boxes(*rows))
    np.testing.assert_allclose(found, [one, other], atol=1e-6)
    assert labels == ["hop 0.90\nwalk 0.70\nspin 0.40", "spin 0.80"]


@pytest.mark.parametrize(("count", "last"), [(5, "hop 0.50"), (6, "and 2 more")])
def test_a_label_has_five_lines_at_most(monkeypatch, count, last):
    rows = [(0, number % 3, 0.9 - number / 10, [0.1, 0.2, 0.5, 0.8]) for number in range(count)]
    _, (label,) = drawn(monkeypatch, boxes(*rows))
    assert len(label.split("\n")) == 5
    assert label.endswith(last)


def test_a_large_video_keeps_its_size():
    draw = overlay(steps=[1], width=2560, height=1440)
    assert (draw.width, draw.height) == (2560, 1440)


def test_panels_show_each_step_and_where_the_last_came_from():
    draw = overlay(steps=[0, 1, 2])
    box = [0.1, 0.2, 0.6, 0.9]
    nothing = boxes()
    found = {1: boxes((4, 0, 0.9, box)), 2: boxes((11 + 7, 2, 0.8, box))}
    frame = np.full((64, 96, 3), 90, np.uint8)
    picture = draw(frame, found)
    assert picture.shape == (draw.height, draw.width, 3)
    assert draw.width <= 1920
    half_height, half_width = draw.height // 2, draw.width // 2
    input_panel = picture[:half_height, :half_width]
    assert has_color(input_panel, 2)
    assert not has_color(input_panel, 0)
    assert has_color(picture[:half_height, half_width:], 0)
    assert has_color(picture[half_height:, :half_width], 2)
    assert not has_color(draw(frame, {1: nothing, 2: nothing}), 2)
