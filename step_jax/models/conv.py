"""3-D convolution, in the formulation that suits the platform."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Conv3D(nn.Module):
    """Convolution over time, rows and columns of `[N, T, H, W, C]`, stride 1.

    Attributes:
      features: output channels.
      kernel_size: taps over (T, H, W).
      padding: zeros (before, after) each of T, H and W; None pads like "SAME".
      use_bias: adds a bias per output channel.
      dtype: of the computation; parameters stay float32.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    padding: Padding | None = None
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        padding = self.padding or tuple(((k - 1) // 2, k // 2) for k in self.kernel_size)
        y = conv3d(x.astype(self.dtype), kernel.astype(self.dtype), padding=padding)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def conv3d(x: Array, kernel: Array, *, padding: Padding) -> Array:
    """`x [N, T, H, W, C]` with `kernel [kt, kh, kw, C, D]` -> `[N, T', H', W', D]`.

    XLA's CPU backend has no usable backward pass of the 3-D convolution. On maps of RoI size one
    matrix product over gathered patches is fastest there (7 times the 2-D convolution, forward and
    backward, at 4x4); on larger maps the time taps become output channels of a 2-D convolution.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1, 1), padding, dimension_numbers=("NTHWC", "THWIO", "NTHWC")
        )
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    small = x.shape[2] * x.shape[3] <= _LARGEST_PATCHED_MAP
    return _conv3d_of_patches(x, kernel) if small else _conv3d_by_time_taps(x, kernel)


_LARGEST_PATCHED_MAP = 81  # rows x columns after padding: a RoI of 7x7 and its border


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
    y = jax.lax.conv_general_dilated(
        x.reshape(n * frames, height, width, channels),
        wide,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y.reshape(n, frames, *y.shape[1:3], taps, features)
    out = frames - taps + 1
    return sum(y[:, tap : tap + out, :, :, tap] for tap in range(taps))
