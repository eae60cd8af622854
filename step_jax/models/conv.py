"""Convolutions in the formulation that suits the platform."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.models import platform, winograd

Array = jax.Array
Sides = tuple[int, int]  # zeros before and after
Padding = tuple[Sides, Sides, Sides]


class Conv3D(nn.Module):
    """Convolution over time, rows and columns of `[N, T, H, W, C]`.

    Attributes:
      features: output channels.
      kernel_size: taps over (T, H, W).
      padding: zeros (before, after) each of T, H and W; None pads like "SAME".
      use_bias: adds a bias per output channel.
      dtype: of the computation; parameters stay float32.
      strides: over (T, H, W).
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    padding: Padding | None = None
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    strides: tuple[int, int, int] = (1, 1, 1)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        padding = self.padding or tuple(((k - 1) // 2, k // 2) for k in self.kernel_size)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv3d(x, kernel, strides=self.strides, padding=padding)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def conv3d(
    x: Array, kernel: Array, *, strides: tuple[int, int, int] = (1, 1, 1), padding: Padding
) -> Array:
    """`x [N, T, H, W, C]` with `kernel [kt, kh, kw, C, D]` -> `[N, T', H', W', D]`.

    Accelerators run XLA's own convolution. XLA's CPU backend is slow at three dimensions and has no
    usable backward pass of them. There strides become channels, 1x1x1 taps one matrix product, and
    taps of 3x3 and 4x4, as strides leave them of 7x7, Winograd's filters. Other taps are gathered
    into patches for one matrix product where maps are as small as a RoI's, and elsewhere the taps
    over time become output channels of a 2-D convolution.
    """
    if not platform.is_cpu():
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=("NTHWC", "THWIO", "NTHWC")
        )
    if strides != (1, 1, 1):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        x, kernel = _space_to_depth(x, kernel, strides)
        padding = ((0, 0),) * 3
    if kernel.shape[:3] == (1, 1, 1) and not any(map(any, padding)):
        return jnp.matmul(x, kernel[0, 0, 0])
    if winograd.suits(x, kernel, padding):
        return winograd.conv3d(x, kernel, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    small = x.shape[2] * x.shape[3] <= _LARGEST_PATCHED_MAP
    return _conv3d_of_patches(x, kernel) if small else _conv3d_by_time_taps(x, kernel)


def _space_to_depth(x: Array, kernel: Array, strides: tuple[int, int, int]) -> tuple[Array, Array]:
    """The input and the kernel of the convolution without strides that gives the same result."""
    taps = [-(-size // stride) for size, stride in zip(kernel.shape[:3], strides, strict=True)]
    sizes = [
        max((have - size) // stride + 1, 0) + tap - 1
        for have, size, stride, tap in zip(
            x.shape[1:4], kernel.shape[:3], strides, taps, strict=True
        )
    ]
    folded = _fold(kernel.reshape(1, *kernel.shape[:3], -1), taps, strides)
    return _fold(x, sizes, strides), folded.reshape(*taps, -1, kernel.shape[-1])


def _fold(x: Array, sizes: list[int], strides: tuple[int, int, int]) -> Array:
    """Moves blocks of `strides` positions into the channels; pads or cuts to whole blocks."""
    extents = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    x = x[:, : extents[0], : extents[1], : extents[2]]
    missing = [(0, extent - have) for extent, have in zip(extents, x.shape[1:4], strict=True)]
    x = jnp.pad(x, ((0, 0), *missing, (0, 0)))
    (n, *_, channels), (st, sh, sw) = x.shape, strides
    x = x.reshape(n, sizes[0], st, sizes[1], sh, sizes[2], sw, channels)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, *sizes, st * sh * sw * channels)


# Rows x columns after padding: a RoI of 7x7 and its border. At 4x4, 2 cores, the 2-D convolution
# takes 7 times as long, forward and backward.
_LARGEST_PATCHED_MAP = 81


def _conv3d_of_patches(x: Array, kernel: Array) -> Array:
    """All taps gathered into the channels, then one matrix product."""
    sizes = [have - taps + 1 for have, taps in zip(x.shape[1:4], kernel.shape[:3], strict=True)]
    shifts = itertools.product(*(range(taps) for taps in kernel.shape[:3]))
    columns = [x[:, t : t + sizes[0], i : i + sizes[1], j : j + sizes[2]] for t, i, j in shifts]
    return jnp.concatenate(columns, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _conv3d_by_time_taps(x: Array, kernel: Array) -> Array:
    taps, kh, kw, channels, features = kernel.shape
    n, frames, height, width, _ = x.shape
    wide = jnp.transpose(kernel, (1, 2, 3, 0, 4)).reshape(kh, kw, channels, taps * features)
    y = conv2d(x.reshape(n * frames, height, width, channels), wide)
    y = y.reshape(n, frames, *y.shape[1:3], taps, features)
    out = frames - taps + 1
    return sum(y[:, tap : tap + out, :, :, tap] for tap in range(taps))


def conv2d(x: Array, kernel: Array, *, padding: tuple[Sides, Sides] = ((0, 0), (0, 0))) -> Array:
    """`x [N, H, W, C]` with `kernel [kh, kw, C, D]` -> `[N, H', W', D]`.

    XLA's CPU backend computes convolutions of the canonical layout fast, and brings others into it,
    but not inside of loops: the gradient of a kernel took a hundred times as long there. On CPUs
    the gradients are therefore written as convolutions of that layout.
    """
    of_cpu = _canonical_conv2d if platform.is_cpu() else _plain_conv2d
    return of_cpu(x, kernel, padding)


def _plain_conv2d(x: Array, kernel: Array, padding: tuple[Sides, Sides]) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


_canonical_conv2d = jax.custom_vjp(_plain_conv2d, nondiff_argnums=(2,))


def _forward(
    x: Array, kernel: Array, padding: tuple[Sides, Sides]
) -> tuple[Array, tuple[Array, Array]]:
    return _plain_conv2d(x, kernel, padding), (x, kernel)


def _backward(
    padding: tuple[Sides, Sides], kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    around = tuple(
        (taps - 1 - before, taps - 1 - after)
        for taps, (before, after) in zip(kernel.shape, padding, strict=False)
    )
    of_x = _plain_conv2d(gradient, kernel[::-1, ::-1].swapaxes(2, 3), around)
    # Channels in the place of examples, and examples in the place of channels.
    of_kernel = _plain_conv2d(
        x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding
    ).transpose(1, 2, 0, 3)
    return of_x, of_kernel


_canonical_conv2d.defvjp(_forward, _backward)
