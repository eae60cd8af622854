"""The count of operations, against loops over everything that meets and numbers made by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.arithmetic import count_flops, plain_flops
from step_jax.models.conv import conv3d

MAP, KERNEL = (3, 5, 6), (3, 3, 2)
CHANNELS, FEATURES, BATCH = 4, 5, 2
X, W = jnp.ones((BATCH, *MAP, CHANNELS)), jnp.ones((*KERNEL, CHANNELS, FEATURES))
A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
PRODUCT = 2 * 3 * 4 * 5


def convolve(x, kernel, *, strides, padding):
    numbers = ("NTHWC", "THWIO", "NTHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def loop(strides, padding):
    """Every output, every tap, counted where the input lies inside the map."""
    pairs = 0
    sizes = [
        (have + sum(zeros) - taps) // stride + 1
        for have, zeros, taps, stride in zip(MAP, padding, KERNEL, strides, strict=True)
    ]
    for out in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, KERNEL)):
            place = [
                o * stride + t - zeros[0]
                for o, t, stride, zeros in zip(out, tap, strides, padding, strict=True)
            ]
            pairs += all(0 <= p < have for p, have in zip(place, MAP, strict=True))
    return 2 * pairs * BATCH * CHANNELS * FEATURES


CASES = [
    ((1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    ((1, 1, 1), ((1, 1), (1, 1), (0, 1))),
    ((2, 2, 2), ((1, 1), (0, 1), (0, 0))),
    ((1, 2, 3), ((2, 0), (1, 1), (1, 1))),
]


@pytest.mark.parametrize(("strides", "padding"), CASES)
def test_convolutions(strides, padding):
    run = functools.partial(convolve, strides=strides, padding=padding)
    expected = loop(strides, padding)
    assert count_flops(run, X, W) == expected

    def sum_of(x, kernel):
        return run(x, kernel).sum()

    # Of the three the forward pass, whose values nobody needs, is still written down.
    assert count_flops(jax.grad(sum_of, argnums=1), X, W) == 2 * expected
    assert count_flops(jax.grad(sum_of, argnums=(0, 1)), X, W) == 3 * expected


def test_grouped_convolution():
    numbers = ("NWC", "WIO", "NWC")

    def run(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1,), "VALID", dimension_numbers=numbers, feature_group_count=2
        )

    # 4 outputs, 2 taps, 3 channels of each group's 6 / 2, 8 features.
    shapes = jnp.ones((1, 5, 6)), jnp.ones((2, 3, 8))
    assert count_flops(run, *shapes) == 2 * 4 * 2 * 3 * 8


def test_products():
    assert count_flops(jnp.matmul, A, B) == PRODUCT
    assert count_flops(jnp.matmul, jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5))) == 7 * PRODUCT
    assert count_flops(lambda a, b: jnp.sin(a) + b.sum(), A, B) == 0


def test_products_inside_other_functions():
    assert count_flops(jax.jit(jnp.matmul), A, B) == PRODUCT
    assert count_flops(jax.checkpoint(jax.jit(jnp.matmul)), A, B) == PRODUCT
    mapped = jax.pmap(jnp.matmul, in_axes=(None, 0))
    assert count_flops(mapped, A, jnp.broadcast_to(B, (2, 4, 5))) == PRODUCT

    def scanned(a, b):
        return jax.lax.scan(lambda total, row: (total + row @ b, None), jnp.zeros(5), a)

    assert count_flops(scanned, A, B) == 3 * 2 * 4 * 5

    def branched(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b @ b.T @ b, lambda: a @ b)

    assert count_flops(branched, A, B) == PRODUCT


def test_custom_gradients():
    @jax.custom_vjp
    def product(a, b):
        return a @ b

    product.defvjp(lambda a, b: (a @ b, (a, b)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    assert count_flops(product, A, B) == PRODUCT
    gradient = jax.grad(lambda a, b: product(a, b).sum(), argnums=(0, 1))
    assert count_flops(gradient, A, B) == 3 * PRODUCT


def test_a_loop_of_unknown_length_is_refused():
    def looped(a):
        return jax.lax.while_loop(lambda a: a.sum() < 9, lambda a: a @ a, a)

    with pytest.raises(ValueError, match="unknown length"):
        count_flops(looped, jnp.ones((3, 3)))


def test_the_plain_formulation_is_counted_on_every_platform():
    padding = ((1, 1), (1, 1), (0, 1))
    run = jax.jit(lambda x, kernel: conv3d(x, kernel, padding=padding))
    x = np.ones((BATCH, *MAP, CHANNELS), np.float32)
    assert count_flops(lambda *a: conv3d(*a, padding=padding), x, W) > loop((1, 1, 1), padding)
    assert plain_flops(run, x, W) == loop((1, 1, 1), padding)
