import numpy as np

from step_jax.visualize.timeline import Bar, Timeline, runs

RED, GREEN = np.array([250, 0, 0], np.uint8), np.array([0, 250, 0], np.uint8)


def columns_of(picture, color):
    """The columns that hold a colour, and its rows."""
    found = (picture == color).all(axis=2)
    return np.flatnonzero(found.any(axis=0)), np.flatnonzero(found.any(axis=1))


def test_runs_end_where_numbers_are_missing():
    found = runs(np.array([2, 3, 4, 7, 9, 10]))
    assert [run.tolist() for run in found] == [[2, 3, 4], [7], [9, 10]]
    assert runs(np.array([], int)) == []


def test_bars_lie_where_their_frames_are():
    bars = [Bar("", RED, np.arange(20, 50)), Bar("", GREEN, np.r_[0:10, 90:100], outlined=True)]
    line = Timeline(bars, num_frames=100, width=420, size=12)
    picture = line([])
    assert picture.shape == (line.height, 420, 3)
    # The bars begin beside their names, here empty, and end half a row before the right side.
    truth, truth_rows = columns_of(picture, GREEN)
    left, right = truth[0], truth[-1] + 1
    red, red_rows = columns_of(picture, RED)
    scale = (right - left) / 100
    np.testing.assert_allclose(
        [red[0], red[-1] + 1], [left + 20 * scale, left + 50 * scale], atol=1
    )
    assert len(red) == red[-1] + 1 - red[0]
    gap = truth[np.flatnonzero(np.diff(truth) > 1)[0]] + 1
    np.testing.assert_allclose(gap, left + 10 * scale, atol=1)
    assert red_rows[-1] < truth_rows[0]
    # An outline is hollow.
    middle = picture[(truth_rows[0] + truth_rows[-1]) // 2, left + 4]
    assert not (middle == GREEN).all()


def test_a_line_stands_at_the_frame_that_is_shown():
    line = Timeline([Bar("x", RED, np.arange(10))], num_frames=10, width=300, size=12)
    empty = line([])
    for frame in (0, 4, 9):
        changed = np.flatnonzero((line([frame]) != empty).any(axis=(0, 2)))
        red, _ = columns_of(empty, RED)
        width = (red[-1] - red[0] + 1) / 10
        bar_left = red[red > 30][0]
        np.testing.assert_allclose(changed.mean(), bar_left + width * (frame + 0.5), atol=width)
    assert ((line([2, 7]) != empty).any(axis=(0, 2))).sum() == 2
    np.testing.assert_array_equal(line([]), empty)


def test_a_single_frame_of_many_can_be_seen():
    line = Timeline([Bar("", RED, np.array([5000]))], num_frames=10_000, width=100, size=12)
    assert len(columns_of(line([]), RED)[0]) >= 1


def test_no_bars():
    assert Timeline([], num_frames=3, width=50, size=12)([0]).shape[1:] == (50, 3)
