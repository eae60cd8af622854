"""The formulations of convolutions against XLA's own and against a loop over taps."""

import itertools
import re

import jax
import numpy as np
import pytest

from step_jax.models import conv, winograd

# Map (T, H, W), kernel, padding: on both sides of the size up to which patches are gathered.
STRIDED_CASES = [
    ((9, 11, 14), (7, 7, 7), (2, 2, 2), ((2, 3), (2, 3), (2, 3))),
    ((6, 8, 7), (3, 4, 2), (1, 3, 2), ((1, 1), (0, 2), (0, 0))),
    ((5, 6, 7), (1, 1, 1), (2, 1, 2), ((0, 0), (0, 0), (0, 0))),
    ((4, 5, 5), (1, 1, 2), (2, 3, 3), ((0, 0), (0, 0), (1, 0))),
]
CASES = [
    ((3, 4, 4), (1, 2, 2), ((0, 0), (0, 0), (0, 0))),
    ((4, 7, 7), (3, 3, 3), ((1, 1), (1, 1), (1, 1))),
    ((5, 12, 11), (3, 2, 3), ((1, 1), (0, 0), (0, 2))),
    ((6, 10, 9), (5, 1, 1), ((2, 2), (0, 0), (0, 0))),
]


def plain(x, kernel, padding, strides=(1, 1, 1)):
    dimensions = ("NTHWC", "THWIO", "NTHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)


def padded(formulation):
    def run(x, kernel, padding):
        return formulation(jax.numpy.pad(x, ((0, 0), *padding, (0, 0))), kernel)

    return run


FORMULATIONS = {
    "patches": padded(conv._conv3d_of_patches),
    "time_taps": padded(conv._conv3d_by_time_taps),
    "chosen": lambda x, kernel, padding: conv.conv3d(x, kernel, padding=padding),
}


def loop(x, kernel, padding):
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    taps = kernel.shape[:3]
    sizes = [have - tap + 1 for have, tap in zip(x.shape[1:4], taps, strict=True)]
    out = np.zeros((len(x), *sizes, kernel.shape[-1]))
    for n, t, i, j in np.ndindex(out.shape[:4]):
        for a, b, c in itertools.product(*map(range, taps)):
            out[n, t, i, j] += x[n, t + a, i + b, j + c] @ kernel[a, b, c]
    return out


def with_gradients(function, x, kernel, padding, gradient):
    @jax.jit
    def run(x, kernel, gradient):
        out, pull_back = jax.vjp(lambda x, kernel: function(x, kernel, padding), x, kernel)
        return out, *pull_back(gradient)

    return run(x, kernel, gradient)


@pytest.mark.parametrize(("sizes", "taps", "padding"), CASES)
def test_formulations_agree(sizes, taps, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *sizes, 3)).astype(np.float32)
    kernel = rng.normal(size=(*taps, 3, 4)).astype(np.float32)
    expected = loop(x, kernel, padding)
    gradient = rng.normal(size=expected.shape).astype(np.float32)
    reference = with_gradients(plain, x, kernel, padding, gradient)
    np.testing.assert_allclose(reference[0], expected, rtol=1e-5, atol=2e-5)
    for name, formulation in FORMULATIONS.items():
        found = with_gradients(formulation, x, kernel, padding, gradient)
        for ours, theirs in zip(found, reference, strict=True):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize(("sizes", "taps", "strides", "padding"), STRIDED_CASES)
def test_strides(sizes, taps, strides, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *sizes, 3)).astype(np.float32)
    kernel = rng.normal(size=(*taps, 3, 4)).astype(np.float32)
    shape = jax.eval_shape(lambda x: plain(x, kernel, padding, strides), x).shape
    gradient = rng.normal(size=shape).astype(np.float32)

    def ours(x, kernel, padding):
        return conv.conv3d(x, kernel, strides=strides, padding=padding)

    def reference(x, kernel, padding):
        return plain(x, kernel, padding, strides)

    found = with_gradients(ours, x, kernel, padding, gradient)
    expected = with_gradients(reference, x, kernel, padding, gradient)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


# Batch, map (T, H, W), kernel, padding: maps that fill their tiles and such that do not.
WINOGRAD_CASES = [
    (1, (3, 8, 8), (3, 3, 3), ((1, 1), (1, 1), (1, 1))),
    (3, (2, 9, 7), (1, 3, 3), ((0, 0), (1, 1), (0, 2))),
    (5, (4, 10, 13), (2, 4, 4), ((1, 0), (0, 0), (2, 1))),
    (2, (3, 5, 6), (3, 3, 3), ((2, 0), (0, 0), (2, 2))),
]


@pytest.mark.parametrize("chunk_bytes", [1, 30_000, 60_000, 10**9])
@pytest.mark.parametrize(("batch", "sizes", "taps", "padding"), WINOGRAD_CASES)
def test_winograd_in_chunks(batch, sizes, taps, padding, chunk_bytes, monkeypatch):
    """One chunk, a row of tiles a chunk, and chunks of which the last repeats samples."""
    monkeypatch.setattr(winograd, "_CHUNK_BYTES", chunk_bytes)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *sizes, 3)).astype(np.float32)
    kernel = rng.normal(size=(*taps, 3, 4)).astype(np.float32)
    shape = jax.eval_shape(lambda x: plain(x, kernel, padding), x).shape
    gradient = rng.normal(size=shape).astype(np.float32)
    found = with_gradients(winograd.conv3d, x, kernel, padding, gradient)
    expected = with_gradients(plain, x, kernel, padding, gradient)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_the_last_chunk_of_samples_may_repeat_some(monkeypatch):
    """As it does in the second of the cases above."""
    monkeypatch.setattr(winograd, "_CHUNK_BYTES", 30_000)
    plan = winograd._plan(3, (2, 9, 7), (1, 3, 3, 3, 4))
    assert plan.samples * plan.chunks[0] > 3


@pytest.mark.parametrize(("channels", "features"), [(160, 320), (320, 160)])
def test_winograd_is_exact_to_a_hundred_thousandth_of_the_output(channels, features):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(1, 3, 7, 7, channels)), 0).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, channels, features)).astype(np.float32)
    gradient = rng.normal(size=(1, 3, 7, 7, features)).astype(np.float32)
    padding = ((1, 1), (1, 1), (1, 1))
    with jax.enable_x64(True):
        wide = [array.astype(np.float64) for array in (x, kernel, gradient)]
        exact = with_gradients(padded(conv._conv3d_of_patches), *wide[:2], padding, wide[2])
        expected = [np.asarray(array) for array in exact]
    found = with_gradients(winograd.conv3d, x, kernel, padding, gradient)
    for a, b in zip(found, expected, strict=True):
        assert np.abs(np.asarray(a) - b).max() <= 1e-5 * np.abs(b).max()


def test_maps_that_do_not_fill_their_tiles_are_gathered():
    kernel, padding = np.zeros((3, 3, 3, 2, 2)), ((1, 1), (1, 1), (1, 1))
    sides = [s for s in range(1, 13) if winograd.suits(np.zeros((1, 3, s, s, 2)), kernel, padding)]
    assert sides == [3, 4, 6, 7, 8, 9, 10, 11, 12]
    assert not winograd.suits(np.zeros((1, 3, 8, 8, 2)), np.zeros((3, 3, 4, 2, 2)), padding)


def test_bfloat16_is_computed_in_float32():
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(rng.normal(size=(2, 3, 8, 8, 4)), jax.numpy.bfloat16)
    kernel = jax.numpy.asarray(rng.normal(size=(3, 3, 3, 4, 4)), jax.numpy.bfloat16)
    padding = ((1, 1), (1, 1), (1, 1))
    found = with_gradients(winograd.conv3d, x, kernel, padding, x)
    wide = [array.astype(np.float32) for array in (x, kernel)]
    expected = with_gradients(plain, *wide, padding, wide[0])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jax.numpy.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b, atol=0.005 * np.abs(b).max())


@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (1, 2, 4)])
def test_without_padding_given_the_size_is_kept(kernel_size):
    module = conv.Conv3D(features=2, kernel_size=kernel_size)
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 5, 2)).astype(np.float32)
    out, variables = jax.jit(module.init_with_output)(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    padding = [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel_size]
    assert out.shape == x.shape
    np.testing.assert_allclose(out, loop(x, kernel, padding), atol=1e-5)


def test_bias_is_added_and_parameters_stay_float32():
    module = conv.Conv3D(2, (1, 1, 1), dtype=jax.numpy.bfloat16)
    x = np.ones((1, 1, 2, 2, 3), np.float32)
    variables = {"params": {"kernel": np.zeros((1, 1, 1, 3, 2)), "bias": np.array([1.0, -2.0])}}
    out = module.apply(variables, x)
    assert out.dtype == jax.numpy.bfloat16
    np.testing.assert_array_equal(out[0, 0, 0, 0].astype(np.float32), [1, -2])
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert {leaf.dtype for leaf in shapes.values()} == {np.dtype(np.float32)}
    unbiased = conv.Conv3D(2, (1, 1, 1), use_bias=False)
    assert set(jax.eval_shape(unbiased.init, jax.random.key(0), x)["params"]) == {"kernel"}


# --- two dimensions -------------------------------------------------------------------------------

FLAT_CASES = [
    ((6, 7), (3, 3), ((1, 1), (1, 1))),
    ((6, 7), (3, 2), ((0, 0), (0, 0))),
    ((5, 6), (2, 4), ((0, 1), (3, 0))),
]


@pytest.mark.parametrize(("sides", "taps", "padding"), FLAT_CASES)
def test_gradients_in_two_dimensions_are_xlas(sides, taps, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *sides, 4)).astype(np.float32)
    kernel = rng.normal(size=(*taps, 4, 5)).astype(np.float32)

    def value_and_gradients(function):
        weights = rng_weights(function(x, kernel, padding).shape)
        return function(x, kernel, padding), *jax.grad(
            lambda *given: (function(*given, padding) * weights).sum(), argnums=(0, 1)
        )(x, kernel)

    expected = value_and_gradients(conv._plain_conv2d)
    for found, wanted in zip(value_and_gradients(conv._canonical_conv2d), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def rng_weights(shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_convolutions_in_loops_have_the_layout_that_is_fast():
    """In loops XLA's CPU backend leaves others as they are, and computes them slowly."""
    x, kernel = np.ones((2, 3, 6, 6, 4), np.float32), np.ones((3, 3, 4, 5), np.float32)

    def layouts(function):
        def add(total, images):
            of_one = jax.grad(lambda *given: (function(*given) ** 2).sum(), argnums=(0, 1))
            return total + of_one(images, kernel)[1], of_one(images, kernel)[0]

        compiled = jax.jit(lambda x: jax.lax.scan(add, np.zeros_like(kernel), x)).lower(x).compile()
        return set(re.findall(r"dim_labels=([\w>-]+)", compiled.as_text()))

    padding = ((1, 1), (1, 1))
    assert layouts(lambda *given: conv.conv2d(*given, padding=padding)) == {"b01f_01io->b01f"}
    assert len(layouts(lambda *given: conv._plain_conv2d(*given, padding))) > 1
