"""Maximum pooling against a loop over windows."""

import jax
import numpy as np
import pytest

from step_jax.models import platform, pooling

# Map (T, H, W), window, strides: the released model's pools on even and odd sizes, and others.
CASES = [
    ((2, 6, 7), (1, 3, 3), (1, 2, 2)),
    ((4, 5, 8), (3, 3, 3), (2, 2, 2)),
    ((3, 4, 5), (3, 3, 3), (1, 1, 1)),
    ((5, 7, 4), (2, 2, 2), (2, 2, 2)),
    ((5, 6, 7), (1, 2, 4), (2, 3, 1)),
    ((1, 1, 1), (3, 3, 3), (2, 2, 2)),
]


def loop(x, gradient, window, strides):
    """Values, and the gradient given to the first of equal values in reading order."""
    sizes = x.shape[1:4]
    outputs = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    before = [max(k - s, 0) // 2 for k, s in zip(window, strides, strict=True)]
    out, input_gradient = np.zeros((len(x), *outputs, x.shape[-1])), np.zeros(x.shape)
    for n, t, i, j, c in np.ndindex(out.shape):
        starts = [p * s - b for p, s, b in zip((t, i, j), strides, before, strict=True)]
        spans = [
            range(max(start, 0), min(start + k, size))
            for start, k, size in zip(starts, window, sizes, strict=True)
        ]
        places = [(n, a, b, d, c) for a in spans[0] for b in spans[1] for d in spans[2]]
        first = max(places, key=lambda place: x[place])  # Python's max keeps the first
        out[n, t, i, j, c] = x[first]
        input_gradient[first] += gradient[n, t, i, j, c]
    return out, input_gradient


def some_case(sizes, window, strides):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, size=(2, *sizes, 3)).astype(np.float32)  # few values: many are equal
    outputs = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    return x, rng.normal(size=(2, *outputs, 3)).astype(np.float32)


@pytest.mark.parametrize("assumed", ["cpu", "gpu"])
@pytest.mark.parametrize(("sizes", "window", "strides"), CASES)
def test_pooling_is_the_loop(sizes, window, strides, assumed):
    x, gradient = some_case(sizes, window, strides)
    expected, expected_gradient = loop(x, gradient, window, strides)

    @jax.jit
    def both(x, gradient):
        pool = lambda x: pooling.max_pool3d(x, window=window, strides=strides)  # noqa: E731
        out, pull_back = jax.vjp(pool, x)
        return out, pull_back(gradient)[0]

    with platform.assumed(assumed):
        out, input_gradient = both(x, gradient)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(input_gradient, expected_gradient, atol=1e-5)


def test_what_lies_outside_never_wins():
    x = jax.numpy.full((1, 2, 3, 3, 1), -1.0, jax.numpy.bfloat16)
    out = pooling.max_pool3d(x, window=(3, 3, 3), strides=(1, 1, 1))
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out.astype(np.float32), -1)
