"""Layouts, index by index and back."""

import itertools

import numpy as np
import pytest

from step_jax.convert.layouts import CONV2D, CONV3D, SAME, Flattened


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def indices(array):
    return itertools.product(*map(range, array.shape))


def test_conv3d():
    theirs = numbers(2, 3, 4, 5, 6)  # out, in, time, row, column
    ours = CONV3D.ours(theirs)
    for o, i, t, y, x in indices(theirs):
        assert ours[t, y, x, i, o] == theirs[o, i, t, y, x]


def test_conv2d():
    theirs = numbers(2, 3, 4, 5)
    ours = CONV2D.ours(theirs)
    for o, i, y, x in indices(theirs):
        assert ours[y, x, i, o] == theirs[o, i, y, x]


def test_flattened_with_context():
    """Theirs flattens channel, row, column; ours row, column, channel; the context follows."""
    channels, size, context, outputs = 3, 2, 5, 4
    theirs = numbers(outputs, channels * size * size + context, 1, 1, 1)
    ours = Flattened(channels, unit_axes=3, context=context).ours(theirs)
    assert ours.shape == (channels * size * size + context, outputs)
    for out, channel, row, column in itertools.product(
        range(outputs), range(channels), range(size), range(size)
    ):
        place = (row * size + column) * channels + channel
        assert ours[place, out] == theirs[out, (channel * size + row) * size + column, 0, 0, 0]
    for out, extra in itertools.product(range(outputs), range(context)):
        assert ours[12 + extra, out] == theirs[out, 12 + extra, 0, 0, 0]


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (SAME, (5,)),
        (CONV2D, (2, 3, 4, 5)),
        (CONV3D, (2, 3, 4, 5, 6)),
        (Flattened(3), (2, 12)),
        (Flattened(3, unit_axes=3, context=5), (2, 17, 1, 1, 1)),
    ],
)
def test_layouts_undo_themselves(layout, shape):
    theirs = numbers(*shape)
    theirs.flat[:3] = np.nan, -0.0, 1e-45
    back = layout.theirs(layout.ours(theirs))
    assert back.shape == shape
    assert back.tobytes() == theirs.tobytes()
