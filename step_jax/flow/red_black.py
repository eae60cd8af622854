"""Successive over-relaxation of the flow's linear system, red pixels and black pixels in turn.

The pixels of one colour of a checkerboard have only neighbours of the other, so all of a colour are
updated at once. Each colour is stored on its own, flat: pixel (i, j) at i * W/2 + j // 2, and its
five possible neighbours of the other colour at fixed offsets from there. Both ends are padded by a
row, so that a neighbour is a contiguous slice; one that does not exist has the weight zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# The nearest to the converged flow of those tried, 1 to 1.9: see docs/flow.md.
OVER_RELAXATION = 1.9


class LinearSystem(NamedTuple):
    """For every pixel p: A_p w_p + sum over neighbours q of g_pq (w_p - w_q) = b_p, w = (u, v).

    All [B, H, W]. right: g between a pixel and the one to its right, zero in the last column.
    down: g between a pixel and the one below, zero in the last row. a_uu, a_uv, a_vv: A, symmetric
    and positive semi-definite. b_u, b_v: b.
    """

    right: jax.Array
    down: jax.Array
    a_uu: jax.Array
    a_uv: jax.Array
    a_vv: jax.Array
    b_u: jax.Array
    b_v: jax.Array


class _Colour(NamedTuple):
    """The equations of the pixels of one colour; all [B, N], weights five of those."""

    weights: tuple[jax.Array, ...]
    inverse_uu: jax.Array
    inverse_uv: jax.Array
    inverse_vv: jax.Array
    b_u: jax.Array
    b_v: jax.Array


def solve(system: LinearSystem, flow: jax.Array, *, sweeps: int) -> jax.Array:
    """`sweeps` of point-coupled red-black SOR from `flow` [B, H, W, 2] on.

    The matrix is symmetric and positive definite, so that every half sweep lowers the error in its
    norm, and with it the quadratic energy whose minimum the solution is.
    """
    height, width = flow.shape[1:3]
    row = (width + 1) // 2
    red, black = _colours(system)
    u, v = (_guarded(_checkerboard(flow[..., axis]), row) for axis in (0, 1))

    def sweep(_, state):
        (u_red, u_black), (v_red, v_black) = state
        u_red, v_red = _relax(red, (u_red, v_red), (u_black, v_black), row)
        u_black, v_black = _relax(black, (u_black, v_black), (u_red, v_red), row)
        return (u_red, u_black), (v_red, v_black)

    u, v = jax.lax.fori_loop(0, sweeps, sweep, (u, v))
    return jnp.stack([_image(component, row, (height, width)) for component in (u, v)], axis=-1)


def _relax(equations: _Colour, own, other, row: int):
    """The pixels `own` (u, v), relaxed given those of the `other` colour; [B, N + 2 row]."""
    count = equations.b_u.shape[1]
    # Above, left of it in storage, at the same place, right of it, below.
    offsets = (0, row - 1, row, row + 1, 2 * row)

    def neighbours(values):
        slices = (values[:, offset : offset + count] for offset in offsets)
        return sum(w * s for w, s in zip(equations.weights, slices, strict=True))

    right_u = equations.b_u + neighbours(other[0])
    right_v = equations.b_v + neighbours(other[1])
    solved_u = equations.inverse_uu * right_u + equations.inverse_uv * right_v
    solved_v = equations.inverse_uv * right_u + equations.inverse_vv * right_v
    return _over(own[0], solved_u, row), _over(own[1], solved_v, row)


def _over(guarded: jax.Array, solved: jax.Array, row: int) -> jax.Array:
    before = guarded[:, row:-row]
    relaxed = before + OVER_RELAXATION * (solved - before)
    return jax.lax.dynamic_update_slice(guarded, relaxed, (0, row))


def _colours(system: LinearSystem) -> tuple[_Colour, _Colour]:
    """The equations of the red and of the black pixels."""
    left = _shifted(system.right, axis=2)
    up = _shifted(system.down, axis=1)
    total = left + system.right + up + system.down
    m_uu, m_vv = system.a_uu + total, system.a_vv + total
    determinant = m_uu * m_vv - system.a_uv**2
    fields = (left, system.right, up, system.down, m_vv / determinant, -system.a_uv / determinant)
    fields += (m_uu / determinant, system.b_u, system.b_v)
    red, black = zip(*map(_checkerboard, fields), strict=True)
    height = system.right.shape[1]
    return _colour(*red, red=True, height=height), _colour(*black, red=False, height=height)


def _colour(left, right, up, down, inverse_uu, inverse_uv, inverse_vv, b_u, b_v, *, red, height):
    even = _even_rows(height, left.shape[1])
    # In the even rows the red pixels lie to the left of the black ones of the same place.
    first = even if red else ~even
    weights = (
        up,
        jnp.where(first, left, 0),
        jnp.where(first, right, left),
        jnp.where(first, 0, right),
        down,
    )
    return _Colour(weights, inverse_uu, inverse_uv, inverse_vv, b_u, b_v)


def _even_rows(height: int, count: int) -> jax.Array:
    return jnp.repeat(jnp.arange(height) % 2 == 0, count // height)


def _shifted(weights: jax.Array, *, axis: int) -> jax.Array:
    """The weights to the neighbour before from those to the neighbour after."""
    before = [(0, 0)] * weights.ndim
    before[axis] = (1, 0)
    return jax.lax.slice_in_dim(jnp.pad(weights, before), 0, weights.shape[axis], axis=axis)


def _checkerboard(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, H, W] -> red and black, each [B, H * ceil(W / 2)]; (0, 0) is red."""
    batch, height, width = image.shape
    # A column more than an odd width has is isolated pixels, which stay zero.
    pairs = jnp.pad(image, ((0, 0), (0, 0), (0, width % 2))).reshape(batch, height, -1, 2)
    even = (jnp.arange(height) % 2 == 0)[:, None]
    first, second = pairs[..., 0], pairs[..., 1]
    red, black = jnp.where(even, first, second), jnp.where(even, second, first)
    return red.reshape(batch, -1), black.reshape(batch, -1)


def _image(colours, row: int, size: tuple[int, int]) -> jax.Array:
    """[B, H, W] from guarded red and black."""
    height, width = size
    red, black = (values[:, row:-row].reshape(-1, height, row) for values in colours)
    even = (jnp.arange(height) % 2 == 0)[:, None]
    pairs = jnp.stack([jnp.where(even, red, black), jnp.where(even, black, red)], axis=-1)
    return pairs.reshape(-1, height, 2 * row)[..., :width]


def _guarded(colours, row: int):
    return tuple(jnp.pad(values, ((0, 0), (row, row))) for values in colours)
