"""I3D to Mixed_4f, the AVA model's backbone, and its layers 5b and 5c, which heads and context use.

Paddings, pooling and normalisation are those of the released weights: zeros of kernel - stride,
the smaller half before, whatever the input's size; pooling in ceil mode.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.errors import InputError
from step_jax.models.conv import conv3d
from step_jax.models.pooling import max_pool3d
from step_jax.models.remat import run_stages
from step_jax.parallel import DATA_AXIS

Array = jax.Array

EPSILON = 1e-5  # the released model's
NORMS = ("frozen", "affine", "batch")
_MOMENTUM = 0.9  # of running statistics, our choice
_SMALLEST_SIDE = 32

# Channels of a Mixed layer: 1x1 | 1x1 -> 3x3x3 | 1x1 -> 3x3x3 | pool -> 1x1.
MIXED = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3DBackbone(nn.Module):
    """Features of stride 16 in space and 4 in time, from a convolution over both.

    Attributes:
      channels: of the input.
      norm: what training does to batch normalisation. "frozen": nothing, the released model's
        setting; "affine": scale and bias are trained, statistics are not; "batch": also normalises
        by the statistics of the batch, over all devices, and keeps their running means.
      dtype: of the computation.
      remat: whether the backward pass computes the insides of each stage again.
    """

    channels: int = 3
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    spatial_stride = 16
    temporal_stride = 4

    @staticmethod
    def check_side(side: int) -> None:
        """Raises InputError where an image of `side` pixels is too small."""
        if side < _SMALLEST_SIDE:
            raise InputError(
                f"data.image_size: found {side}; the i3d backbone needs sides of {_SMALLEST_SIDE} "
                "pixels or more (its weights were trained at 400)"
            )

    @nn.compact
    def __call__(self, clips: Array, *, train: bool = False) -> Array:
        """`clips [B, T, H, W, channels]` in [-1, 1] -> `[B, T / 4, h, w, 832]`.

        h = ceil(floor(H / 2) / 8), likewise w.
        """
        self.check_side(min(clips.shape[2:4]))
        unit = functools.partial(Unit3D, norm=self.norm, dtype=self.dtype)

        def mixed(name: str, x: Array) -> Array:
            return Mixed(MIXED[name], self.norm, self.dtype, name=name)(x, train=train)

        def stem(_: nn.Module, x: Array) -> Array:
            x = unit(64, (7, 7, 7), (2, 2, 2), name="conv_1a")(x, train=train)
            return max_pool3d(x, window=(1, 3, 3), strides=(1, 2, 2))

        def second(_: nn.Module, x: Array) -> Array:
            x = unit(64, name="conv_2b")(x, train=train)
            x = unit(192, (3, 3, 3), name="conv_2c")(x, train=train)
            return max_pool3d(x, window=(1, 3, 3), strides=(1, 2, 2))

        def third(_: nn.Module, x: Array) -> Array:
            x = mixed("mixed_3c", mixed("mixed_3b", x))
            return max_pool3d(x, window=(3, 3, 3), strides=(2, 2, 2))

        def one(_: nn.Module, x: Array, *, name: str) -> Array:
            return mixed(name, x)

        names = ("mixed_4b", "mixed_4c", "mixed_4d", "mixed_4e", "mixed_4f")
        fourth = [functools.partial(one, name=name) for name in names]
        stages = [stem, second, third, *fourth]
        return run_stages(self, stages, clips.astype(self.dtype), remat=self.remat)


class I3DContext(nn.Module):
    """Scene context of the released model: 5b and 5c over the whole map, one vector a frame.

    Attributes: as `I3DBackbone`'s.
    """

    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, maps: Array, *, train: bool = False) -> Array:
        """`[B, T, h, w, 832]` -> `[B, T, 1024]`.

        The mean is over the map whatever its size; the public code averages 13x13 cells and takes
        only images that have as many.
        """

        def stage(_: nn.Module, x: Array, *, name: str) -> Array:
            return Mixed(MIXED[name], self.norm, self.dtype, name=name)(x, train=train)

        x = max_pool3d(maps, window=(1, 3, 3), strides=(1, 2, 2))
        stages = [functools.partial(stage, name=name) for name in ("mixed_5b", "mixed_5c")]
        x = run_stages(self, stages, x, remat=self.remat)
        return x.mean(axis=(2, 3), dtype=jnp.float32)


class Unit3D(nn.Module):
    """Convolution without bias, batch normalisation, ReLU.

    Attributes:
      features: output channels.
      kernel_size, strides: over (T, H, W).
      norm, dtype: as `I3DBackbone`'s.
    """

    features: int
    kernel_size: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32

    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """`[N, T, H, W, C]` -> `[N, T', H', W', features]`."""
        return side_by_side([self], x, train=train)[0]

    @nn.compact
    def parameters(self, channels: int) -> tuple[Array, Array, Array, nn.Variable, nn.Variable]:
        """kernel `[kt, kh, kw, C, D]`, scale and bias `[D]`, running mean and variance."""
        if self.norm not in NORMS:
            raise InputError(f"norm {self.norm!r}: expected one of {', '.join(NORMS)}")
        shape = (*self.kernel_size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        width = (self.features,)
        if self.norm == "frozen":
            scale = self.variable("frozen", "scale", jnp.ones, width).value
            bias = self.variable("frozen", "bias", jnp.zeros, width).value
        else:
            scale = self.param("scale", nn.initializers.ones, width)
            bias = self.param("bias", nn.initializers.zeros, width)
        statistics = "batch_stats" if self.norm == "batch" else "frozen"
        mean = self.variable(statistics, "mean", jnp.zeros, width)
        var = self.variable(statistics, "var", jnp.ones, width)
        return kernel, scale, bias, mean, var

    def padding(self) -> tuple[tuple[int, int], ...]:
        total = [max(k - s, 0) for k, s in zip(self.kernel_size, self.strides, strict=True)]
        return tuple((zeros // 2, zeros - zeros // 2) for zeros in total)


def side_by_side(units: list[Unit3D], x: Array, *, train: bool = False) -> list[Array]:
    """The outputs of several units of one shape on one input, from one convolution.

    One product with many columns is faster than several with few.
    """
    parts = [unit.parameters(x.shape[-1]) for unit in units]
    kernels, scales, biases, means, variances = zip(*parts, strict=True)
    kernel, scale, bias = (jnp.concatenate(ps, axis=-1) for ps in (kernels, scales, biases))
    first = units[0]
    convolve = functools.partial(conv3d, strides=first.strides, padding=first.padding())
    if train and first.norm == "batch":
        y = convolve(x, kernel.astype(first.dtype)).astype(jnp.float32)
        mean, var = batch_statistics(y)
        _remember(means, mean)
        _remember(variances, var)
        y = (y - mean) * (scale * jax.lax.rsqrt(var + EPSILON)) + bias
    else:
        mean = jnp.concatenate([one.value for one in means])
        var = jnp.concatenate([one.value for one in variances])
        # The normalisation is linear: its factor goes into the kernel, and costs nothing.
        factor = scale * jax.lax.rsqrt(var + EPSILON)
        y = convolve(x, (kernel * factor).astype(first.dtype))
        y = y + (bias - mean * factor).astype(y.dtype)
    widths = [unit.features for unit in units]
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
    return jnp.split(nn.relu(y).astype(first.dtype), ends, axis=-1)


def batch_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel over the batches of all devices."""
    axes = tuple(range(x.ndim - 1))
    mean = jax.lax.pmean(x.mean(axis=axes), DATA_AXIS)
    return mean, jax.lax.pmean(jnp.square(x - mean).mean(axis=axes), DATA_AXIS)


def _remember(running: tuple[nn.Variable, ...], new: Array) -> None:
    """Moves running statistics towards those of the batch."""
    start = 0
    for one in running:
        width = one.value.shape[0]
        part = jax.lax.stop_gradient(new[start : start + width])
        one.value = _MOMENTUM * one.value + (1 - _MOMENTUM) * part
        start += width


class Mixed(nn.Module):
    """Four branches over one input, concatenated (an Inception block inflated to 3-D).

    Attributes:
      features: six widths, see MIXED.
      norm, dtype: as `I3DBackbone`'s.
    """

    features: tuple[int, int, int, int, int, int]
    norm: str = "frozen"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """`[N, T, H, W, C]` -> `[N, T, H, W, D]`, D the sum of the four branches' widths."""
        unit = functools.partial(Unit3D, norm=self.norm, dtype=self.dtype)
        width_0, reduce_1, width_1, reduce_2, width_2, width_3 = self.features
        units = [
            unit(width_0, name="branch_0"),
            unit(reduce_1, name="branch_1_reduce"),
            unit(reduce_2, name="branch_2_reduce"),
        ]
        branch_0, branch_1, branch_2 = side_by_side(units, x, train=train)
        branch_1 = unit(width_1, (3, 3, 3), name="branch_1")(branch_1, train=train)
        branch_2 = unit(width_2, (3, 3, 3), name="branch_2")(branch_2, train=train)
        pooled = max_pool3d(x, window=(3, 3, 3), strides=(1, 1, 1))
        branch_3 = unit(width_3, name="branch_3")(pooled, train=train)
        return jnp.concatenate([branch_0, branch_1, branch_2, branch_3], axis=-1)
