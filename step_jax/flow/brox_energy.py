"""The energy of Brox et al. 2004 around a flow, and its linearisation.

E(u, v) = sum of psi(grey² + gamma gradient²) + alpha * sum of psi(|grad u|² + |grad v|²),
psi(s²) = sqrt(s² + eps²): both constancies in one robust function, as in their Eq. 3, and summed
over pixels. `|grad u|²` of a pixel is half the sum of the squared differences to its four
neighbours; the diffusivity between two pixels then is exactly the mean of theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from step_jax.flow.brox_options import BroxOptions
from step_jax.flow.red_black import LinearSystem

EPSILON = 1e-3


class Constancy(NamedTuple):
    """What should be constant, linear around the flow of a warp; all [B, H, W].

    Index x or y is a derivative of the warped second frame, z the difference warped second frame -
    first frame: of the grey value (z) and of its gradient (xz, yz).
    valid: 1 where the flow stays inside the frame, else 0; there is nothing to compare outside.
    """

    z: jax.Array
    x: jax.Array
    y: jax.Array
    xz: jax.Array
    yz: jax.Array
    xx: jax.Array
    xy: jax.Array
    yy: jax.Array
    valid: jax.Array


def linearise(first: jax.Array, second: jax.Array, flow: jax.Array) -> Constancy:
    """Warps `second` and its derivatives by `flow`. Frames [B, H, W], flow [B, H, W, 2] in px."""
    x, y = derivative(second, axis=2), derivative(second, axis=1)
    fields = (second, x, y, derivative(x, axis=2), derivative(x, axis=1), derivative(y, axis=1))
    warped, valid = warp(jnp.stack(fields, axis=-1), flow)
    grey, x, y, xx, xy, yy = (warped[..., index] for index in range(len(fields)))
    return Constancy(
        z=grey - first,
        x=x,
        y=y,
        xz=x - derivative(first, axis=2),
        yz=y - derivative(first, axis=1),
        xx=xx,
        xy=xy,
        yy=yy,
        valid=valid,
    )


def derivative(image: jax.Array, *, axis: int) -> jax.Array:
    """The central difference of fourth order, (1, -8, 0, 8, -1) / 12; the border is repeated."""
    widths = [(0, 0)] * image.ndim
    widths[axis] = (2, 2)
    padded = jnp.pad(image, widths, mode="edge")
    size = image.shape[axis]
    far_before, before, after, far_after = (
        jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (0, 1, 3, 4)
    )
    return (8 * (after - before) - (far_after - far_before)) / 12


def warp(images: jax.Array, flow: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images [B, H, W, C] at p + flow(p), bilinear, and [B, H, W]: is that inside the frame?"""
    batch, height, width, channels = images.shape
    x = jnp.arange(width, dtype=flow.dtype) + flow[..., 0]
    y = jnp.arange(height, dtype=flow.dtype)[:, None] + flow[..., 1]
    valid = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    column, right_part = _cell(x, width)
    row, lower_part = _cell(y, height)
    flat = images.reshape(batch, height * width, channels)

    def corner(below: int, right: int) -> jax.Array:
        index = (row + below) * width + column + right
        values = jax.vmap(lambda image, at: image[at])(flat, index.reshape(batch, -1))
        weight = (lower_part if below else 1 - lower_part) * (
            right_part if right else 1 - right_part
        )
        return values.reshape(images.shape) * weight[..., None]

    warped = corner(0, 0) + corner(0, 1) + corner(1, 0) + corner(1, 1)
    return warped, valid.astype(images.dtype)


def _cell(position: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The pixel before a position, and how far behind it that lies, in [0, 1]."""
    inside = jnp.clip(position, 0, size - 1)
    before = jnp.clip(jnp.floor(inside), 0, size - 2)
    return before.astype(jnp.int32), inside - before


def energy(
    constancy: Constancy, increment: jax.Array, flow: jax.Array, options: BroxOptions
) -> jax.Array:
    """[B]: the energy of the flow [B, H, W, 2], of which `increment` came after the warp."""
    data = constancy.valid * jnp.sqrt(_deviation(constancy, increment, options) + EPSILON**2)
    smoothness = jnp.sqrt(_variation(flow) + EPSILON**2)
    return (data + options.alpha * smoothness).sum((1, 2))


def linear_system(
    constancy: Constancy, warp_flow: jax.Array, flow: jax.Array, options: BroxOptions
) -> LinearSystem:
    """The Euler-Lagrange equations with the robust weights kept at `flow`; unknown is the flow.

    warp_flow: the flow that the warp was made with, [B, H, W, 2].
    """
    c, gamma = constancy, options.gamma
    increment = flow - warp_flow
    robust = c.valid / jnp.sqrt(_deviation(c, increment, options) + EPSILON**2)
    a_uu = robust * (c.x**2 + gamma * (c.xx**2 + c.xy**2))
    a_uv = robust * (c.x * c.y + gamma * (c.xx * c.xy + c.xy * c.yy))
    a_vv = robust * (c.y**2 + gamma * (c.xy**2 + c.yy**2))
    a_uz = robust * (c.x * c.z + gamma * (c.xx * c.xz + c.xy * c.yz))
    a_vz = robust * (c.y * c.z + gamma * (c.xy * c.xz + c.yy * c.yz))
    u, v = warp_flow[..., 0], warp_flow[..., 1]
    diffusivity = options.alpha / jnp.sqrt(_variation(flow) + EPSILON**2)
    return LinearSystem(
        right=_edges(diffusivity, axis=2),
        down=_edges(diffusivity, axis=1),
        a_uu=a_uu,
        a_uv=a_uv,
        a_vv=a_vv,
        b_u=a_uu * u + a_uv * v - a_uz,
        b_v=a_uv * u + a_vv * v - a_vz,
    )


def _deviation(c: Constancy, increment: jax.Array, options: BroxOptions) -> jax.Array:
    """[B, H, W]: by how much grey value and gradient fail to be constant, squared."""
    u, v = increment[..., 0], increment[..., 1]
    grey = c.z + c.x * u + c.y * v
    along_x = c.xz + c.xx * u + c.xy * v
    along_y = c.yz + c.xy * u + c.yy * v
    return grey**2 + options.gamma * (along_x**2 + along_y**2)


def _variation(flow: jax.Array) -> jax.Array:
    """[B, H, W]: |grad u|² + |grad v|²."""
    right = jnp.pad((flow[:, :, 1:] - flow[:, :, :-1]) ** 2, ((0, 0), (0, 0), (1, 1), (0, 0)))
    down = jnp.pad((flow[:, 1:] - flow[:, :-1]) ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    squares = right[:, :, 1:] + right[:, :, :-1] + down[:, 1:] + down[:, :-1]
    return squares.sum(-1) / 2


def _edges(diffusivity: jax.Array, *, axis: int) -> jax.Array:
    """[B, H, W]: the mean of a pixel and the next one along an axis, zero for the last."""
    size = diffusivity.shape[axis]
    here = jax.lax.slice_in_dim(diffusivity, 0, size - 1, axis=axis)
    following = jax.lax.slice_in_dim(diffusivity, 1, size, axis=axis)
    widths = [(0, 0)] * diffusivity.ndim
    widths[axis] = (0, 1)
    return jnp.pad((here + following) / 2, widths)
