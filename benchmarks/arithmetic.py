"""How much arithmetic a function is, and how fast a machine does the best kind of it.

Counted are the multiplications and additions of matrix products and convolutions, two for each pair
of numbers that meet. Pairs with padding, or with holes that a stride's gradient leaves, are not:
they need no arithmetic, so that a convolution and its two gradients count the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from step_jax.models import platform


def plain_flops(function: Callable, *arguments: Any) -> int:
    """`count_flops` of the formulation that accelerators get, the same on every machine.

    A CPU's own may need fewer operations (Winograd's convolutions), or more.
    """
    with platform.assumed("gpu"):
        return count_flops(function, *arguments)


def count_flops(function: Callable, *arguments: Any) -> int:
    """Operations of one call; arguments may be shapes (`jax.ShapeDtypeStruct`).

    Of the branches of a condition the one with the least counts; a function over devices counts
    what one of them does.

    Raises:
      ValueError: there are products inside a loop that ends when its data says so.
    """
    # The lambda is new to JAX, which may have traced `function` for another platform.
    return _flops(jax.make_jaxpr(lambda *a: function(*a))(*arguments).jaxpr)


def _flops(jaxpr: core.Jaxpr) -> int:
    return sum(_flops_of_equation(equation) for equation in jaxpr.eqns)


def _flops_of_equation(equation: core.JaxprEqn) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot_flops(equation)
    if name == "conv_general_dilated":
        return _convolution_flops(equation)
    inner = [_flops(jaxpr) for jaxpr in _inner(equation.params.values())]
    if name == "cond":
        return min(inner)
    if name == "while" and sum(inner):
        raise ValueError("a loop of unknown length holds products: they cannot be counted")
    return sum(inner) * (equation.params["length"] if name == "scan" else 1)


def _inner(values: Any) -> Iterator[core.Jaxpr]:
    """What an equation calls: jitted functions, loops' bodies, branches, ..."""
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inner(value)


def _dot_flops(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation: core.JaxprEqn) -> int:
    params = equation.params
    numbers = params["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape
    pairs = 1
    for axis, stride in enumerate(params["window_strides"]):
        pairs *= _meeting_pairs(
            size=left[numbers.lhs_spec[2 + axis]],
            taps=right[numbers.rhs_spec[2 + axis]],
            outputs=out[numbers.out_spec[2 + axis]],
            stride=stride,
            before=params["padding"][axis][0],
            holes=params["lhs_dilation"][axis],
            tap_distance=params["rhs_dilation"][axis],
        )
    batch, features = (out[axis] for axis in numbers.out_spec[:2])
    channels = right[numbers.rhs_spec[1]]
    return 2 * pairs * batch * features * channels


def _meeting_pairs(
    *, size: int, taps: int, outputs: int, stride: int, before: int, holes: int, tap_distance: int
) -> int:
    """Pairs of an output and a tap, along one axis, whose input is neither padding nor a hole."""
    place = np.arange(outputs)[:, None] * stride - before + np.arange(taps) * tap_distance
    return int(((place >= 0) & (place < size * holes) & (place % holes == 0)).sum())


# Rows, columns and inner length of the products that are tried: squares, and the kind that
# convolutions of few channels are.
_SHAPES = (
    (16384, 512, 832),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
    (8192, 8192, 8192),
    (16384, 16384, 16384),
)
_LONGEST_SECONDS = 0.3  # of one product; larger ones are not tried
_TRIES = 5


class MatrixRate(NamedTuple):
    """The best rate of a matrix product, and the (rows, columns, inner length) that had it."""

    flops_per_second: float
    shape: tuple[int, int, int]


def matrix_rate(dtype: jnp.dtype, *, precision: str = "highest") -> MatrixRate:
    """How fast this machine's first device multiplies matrices, at the size that suits it best.

    `dtype` and `precision` are those of the products, `backbone.dtype` and `matmul_precision` of a
    detector.
    """
    best = MatrixRate(0.0, _SHAPES[0])
    for shape in _SHAPES:
        with jax.default_matmul_precision(precision):
            seconds = _product_seconds(shape, dtype)
        best = max(best, MatrixRate(2 * math.prod(shape) / seconds, shape))
        if seconds > _LONGEST_SECONDS:
            break
    return best


def _product_seconds(shape: tuple[int, int, int], dtype: jnp.dtype) -> float:
    rows, columns, length = shape
    left = jnp.full((rows, length), 0.5, dtype)
    right = jnp.full((length, columns), 0.5, dtype)
    product = jax.jit(jnp.matmul)
    product(left, right).block_until_ready()
    seconds = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        product(left, right).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
