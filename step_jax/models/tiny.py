"""A backbone small enough to train on two CPU cores in minutes. Our choice, not the paper's."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.errors import InputError
from step_jax.models.conv import conv2d
from step_jax.models.remat import run_stages

Array = jax.Array


class TinyBackbone(nn.Module):
    """Per-frame features of stride 8, from the frame and how it differs from two others.

    What it reads is not just RGB: each frame is given the absolute differences of its grey image to
    those a few frames before and after, so that motion is visible without optical flow. The
    features of a frame therefore depend on frames `difference_frames` away. Flow images are read as
    they are.

    Attributes:
      channels: of the input, RGB first and then flow images (`step_jax.modality`).
      rgb: whether the first three of them are RGB.
      stem_features: channels of the 4x4 patch embedding.
      features: channels of the output.
      num_blocks: residual 3x3 convolutions at stride 8.
      difference_frames: how many frames the differences span. Over one frame an actor moves by a
        pixel, over three by a patch: that is what tells directions apart.
      coordinates: appends the position of each cell to its features.
      dtype: of the computation.
      remat: whether the backward pass computes the insides of each stage again.
    """

    channels: int = 3
    rgb: bool = True
    stem_features: int = 32
    features: int = 64
    num_blocks: int = 1
    difference_frames: int = 3
    coordinates: bool = False
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    spatial_stride = 8
    temporal_stride = 1

    @staticmethod
    def check_side(side: int) -> None:
        """Raises InputError where `side` pixels are not a multiple of the stride."""
        if side < TinyBackbone.spatial_stride or side % TinyBackbone.spatial_stride:
            raise InputError(
                f"data.image_size is {side}; expected a multiple of the tiny backbone's stride, "
                f"{TinyBackbone.spatial_stride}"
            )

    @nn.compact
    def __call__(self, clips: Array, *, train: bool = False) -> Array:
        """`clips [B, T, H, W, channels]` in [-1, 1] -> `[B, T, H / 8, W / 8, features]`.

        Raises:
          InputError: H or W is not a multiple of the stride, or the clips have other channels.
        """
        del train  # nothing here depends on it
        batch, frames, height, width, channels = clips.shape
        self.check_side(height)
        self.check_side(width)
        if channels != self.channels:
            raise InputError(
                f"model.backbone_options.channels {self.channels}: found clips of {channels} "
                "channels"
            )

        def stem(_: nn.Module, x: Array) -> Array:
            if self.rgb:
                x = with_motion_energy(x, gap=self.difference_frames)
            x = x.astype(self.dtype)
            x = patchify(x.reshape(batch * frames, *x.shape[2:]), size=4)
            x = nn.relu(nn.Dense(self.stem_features, dtype=self.dtype, name="stem")(x))
            # Patches and a product: a strided convolution's backward pass is slow on CPUs.
            return nn.Dense(self.features, dtype=self.dtype, name="downsample")(patchify(x, size=2))

        def residual(_: nn.Module, x: Array, *, block: int) -> Array:
            y = nn.relu(nn.LayerNorm(dtype=self.dtype, name=f"norm_{block}")(x))
            conv = nn.Conv(
                self.features, (3, 3), dtype=self.dtype, name=f"conv_{block}",
                conv_general_dilated=_conv3x3,
            )  # fmt: skip
            return x + conv(y)

        blocks = [functools.partial(residual, block=block) for block in range(self.num_blocks)]
        x = run_stages(self, [stem, *blocks], clips, remat=self.remat)
        if self.coordinates:
            x = with_coordinates(x)
        return x.reshape(batch, frames, *x.shape[1:])


def _conv3x3(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """What `nn.Conv` asks `lax.conv_general_dilated` for here."""
    return conv2d(x, kernel, padding=((1, 1), (1, 1)))


def with_motion_energy(clips: Array, *, gap: int) -> Array:
    """Appends |grey(t) - grey(t - gap)| and |grey(t + gap) - grey(t)|: `[B, T, H, W, C]` -> C + 2.

    Grey is the mean of the first three channels.
    Absolute values, because where an actor was and will be shows on either side of where it is,
    whatever its colour: with signed differences the actions took several times as long to learn.
    Beyond the clip's ends stand its first and its last frame.
    """
    grey = clips[..., :3].mean(axis=-1, keepdims=True)
    padded = jnp.pad(grey, ((0, 0), (gap, gap), (0, 0), (0, 0), (0, 0)), mode="edge")
    before = jnp.abs(grey - padded[:, : -2 * gap])
    after = jnp.abs(padded[:, 2 * gap :] - grey)
    return jnp.concatenate([clips, _MOTION_GAIN * before, _MOTION_GAIN * after], axis=-1)


_MOTION_GAIN = 4.0  # brings the differences to the size of the colours


def with_coordinates(features: Array) -> Array:
    """Appends x and y of each cell's centre, -1 to 1 over the map: `[N, H, W, C]` -> C + 2.

    RoI features then say where their box is, so that a tube's path can be read from them: a tube
    that follows its actor sees the actor stand still.
    """
    n, height, width, _ = features.shape
    y, x = (2 * (jnp.arange(side) + 0.5) / side - 1 for side in (height, width))
    grid = jnp.stack(jnp.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    grid = jnp.broadcast_to(grid.astype(features.dtype), (n, height, width, 2))
    return jnp.concatenate([features, grid], axis=-1)


def patchify(images: Array, *, size: int) -> Array:
    """`[N, H, W, C]` -> `[N, H / size, W / size, size * size * C]`; sides must be divisible."""
    n, height, width, channels = images.shape
    rows, columns = height // size, width // size
    patches = images.reshape(n, rows, size, columns, size, channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, -1)
