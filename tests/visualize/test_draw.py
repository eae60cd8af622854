import numpy as np
import pytest

from step_jax.visualize import draw
from step_jax.visualize.colors import text_color
from step_jax.visualize.draw import draw_boxes
from step_jax.visualize.text import chip_size, draw_chip

RED, BLUE = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)


def grey(height=100, width=160):
    return np.full((height, width, 3), 128, np.uint8)


def changed(picture, before):
    """(x1, y1, x2, y2), inclusive, around all pixels that differ."""
    rows, columns = np.nonzero((picture != before).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_outline_is_where_the_box_is():
    frame = grey()
    picture = draw_boxes(frame, np.array([[30.2, 20.0, 90.0, 70.0]]), RED[None])
    assert (frame == 128).all()
    for x, y in ((30, 45), (90, 45), (60, 20), (60, 70)):
        np.testing.assert_array_equal(picture[y, x], RED)
    assert (picture[30:60, 40:80] == 128).all()
    assert (picture[80:, 100:] == 128).all()


def test_boxes_are_clipped_to_the_frame():
    picture = draw_boxes(grey(), np.array([[-50.0, -9.0, 500.0, 500.0]]), RED[None])
    left, top, right, bottom = changed(picture, grey())
    assert (left, top, right, bottom) == (0, 0, 159, 99)
    np.testing.assert_array_equal(picture[50, 2], RED)
    np.testing.assert_array_equal(picture[50, 160 - 1 - 2], RED)
    outside = draw_boxes(grey(), np.array([[500.0, 500, 600, 600]]), RED[None])
    assert changed(outside, grey())[0] > 150


def test_the_first_box_lies_on_top():
    box = np.array([[30.0, 20, 90, 70]])
    picture = draw_boxes(grey(), np.repeat(box, 2, axis=0), np.stack([RED, BLUE]))
    np.testing.assert_array_equal(picture[45, 30], RED)


def test_opacity_blends():
    box = np.array([[30.0, 20, 90, 70]])
    faint = draw_boxes(grey(), box, RED[None], opacity=0.25)
    np.testing.assert_allclose(faint[45, 30], 0.75 * 128 + 0.25 * RED, atol=1)


def test_dashes_leave_gaps_but_not_at_the_corners():
    picture = draw_boxes(grey(), np.array([[30.0, 20, 90, 70]]), RED[None], dashed=True)
    side = (picture[20, 30:91] == RED).all(axis=1)
    assert 0.3 < side.mean() < 0.8
    assert side[0]
    assert side[-1]


@pytest.mark.parametrize("box", [[0, 0, 40, 40], [120, 60, 160, 100], [40, 2, 159, 98]])
def test_labels_stay_inside_and_off_the_box_where_there_is_room(box):
    frame = grey(200, 320)
    box = np.array([box], float) * 2
    plain = draw_boxes(frame, box, RED[None])
    labelled = draw_boxes(frame, box, RED[None], labels=["walk 0.50"])
    left, top, right, bottom = changed(labelled, plain)
    width, height = chip_size("walk 0.50", draw.font_size(200, 320))
    assert right - left <= width
    assert bottom - top <= height
    assert (labelled[top : bottom + 1, left : right + 1] == RED).all(axis=2).mean() > 0.4


def test_labels_of_one_box_do_not_cover_each_other():
    boxes, labels = np.tile([[40.0, 60, 200, 160]], (4, 1)), ["a 0.9", "b 0.8", "c 0.7", "d 0.6"]
    placed = []
    for box in boxes.astype(int):
        size = chip_size(labels[0], 12)
        x, y = draw._place(size, box, placed, height=200, width=320, step=size[1])
        placed.append((x, y, x + size[0], y + size[1]))
    tops = [place[1] for place in placed]
    assert len(set(tops)) == 4
    assert tops[0] == 60 - size[1]
    assert (np.abs(np.diff(sorted(tops))) >= size[1]).all()


@pytest.mark.parametrize(("top", "y"), [(90, -3), (30, 0)])
def test_lines_of_a_label_stand_below_each_other(top, y):
    """Above the box where there is room for all of them, else inside it; y is in lines from it."""
    box, lines = np.array([[40.0, top, 200, 190]]), ("walk 0.50", "i 0.40", "run 0.30")
    labelled = draw_boxes(grey(200, 320), box, RED[None], labels=["\n".join(lines)])
    expected, size = draw_boxes(grey(200, 320), box, RED[None]), draw.font_size(200, 320)
    height = chip_size(lines[0], size)[1]
    for number, line in enumerate(lines):
        where = {"x": 39, "y": top + (y + number) * height}
        draw_chip(expected, line, **where, size=size, color=text_color(RED), background=RED)
    np.testing.assert_array_equal(labelled, expected)


def test_labels_of_several_lines_do_not_cover_each_other():
    boxes = np.tile([[40.0, 60, 200, 160]], (2, 1))
    both = draw_boxes(grey(200, 320), boxes, np.stack([RED, BLUE]), labels=["a\nb", "c\nd"])
    heights = [(both == color).all(axis=2)[:, 40].sum() for color in (RED, BLUE)]
    assert min(heights) >= 2 * chip_size("a", draw.font_size(200, 320))[1]


def test_where_there_is_no_room_the_first_label_lies_on_top():
    box = np.tile([[0.0, 0, 60, 30]], (9, 1))
    colors = np.repeat(BLUE[None], 9, axis=0)
    colors[0] = RED
    picture = draw_boxes(grey(36, 64), box, colors, labels=["label"] * 9)
    alone = draw_boxes(grey(36, 64), box[:1], RED[None], labels=["label"])
    mine = (alone == RED).all(axis=2)
    np.testing.assert_array_equal(picture[:14][mine[:14]], alone[:14][mine[:14]])


def test_no_boxes_change_nothing():
    picture = draw_boxes(grey(), np.zeros((0, 4)), np.zeros((0, 3), np.uint8), labels=[])
    np.testing.assert_array_equal(picture, grey())
