"""3-D convolution, in the formulation that suits the platform."""

from __future__ import annotations

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

    XLA's CPU backend has a fast 2-D convolution and a very slow backward pass of the 3-D one, so
    there the time taps become output channels of one 2-D convolution, added up after shifting.
    """
    if jax.default_backend() == "cpu":
        return _conv3d_by_time_taps(x, kernel, padding)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1, 1), padding, dimension_numbers=("NTHWC", "THWIO", "NTHWC")
    )


def _conv3d_by_time_taps(x: Array, kernel: Array, padding: Padding) -> Array:
    taps, kh, kw, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    n, frames, height, width, _ = x.shape
    wide = jnp.transpose(kernel, (1, 2, 3, 0, 4)).reshape(kh, kw, channels, taps * features)
    y = jax.lax.conv_general_dilated(
        x.reshape(n * frames, height, width, channels),
        wide,
        (1, 1),
        padding[1:],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y.reshape(n, frames, *y.shape[1:3], taps, features)
    out = frames - taps + 1
    return sum(y[:, tap : tap + out, :, :, tap] for tap in range(taps))
