"""VGG16 to conv5_3, frame by frame: the backbone of the UCF101-24 model (Section 4.1)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from step_jax.errors import InputError
from step_jax.models import platform
from step_jax.models.conv import conv2d, conv3d
from step_jax.models.pooling import max_pool3d

Array = jax.Array
Weights = Mapping[str, tuple[Array, Array]]

# (convolutions, channels) of each block; a max-pooling lies between one block and the next.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

_RGB_MEAN, _RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]
_FLOW_MEAN, _FLOW_STD = 128 / 255, 0.226  # no motion is stored as 128; the mean of RGB's three


class VGG16Backbone(nn.Module):
    """Features of each frame for itself; the layers, and their names, of ImageNet's VGG16.

    The first three channels are RGB unless `rgb` is false, all others are flow images: 3 channels
    are RGB, 15 with `rgb=False` five flow maps, 18 RGB and then the five flow maps (early fusion).
    Inputs in [-1, 1] are brought to what ImageNet's weights expect: RGB in [0, 1] less ImageNet's
    mean, over its standard deviation. Flow gets the same spread about "no motion", which becomes 0,
    so that the convolutions' zero padding means a world at rest around the image (our choice).

    Attributes:
      channels: of the input.
      rgb: whether the first three of them are RGB.
      frames_at_once: frames whose activations are held at a time, in the backward pass as well,
        which computes them again; 0 holds those of all frames. A frame's feature maps are 173 MB at
        400x400 px in float32, 21 GB for four clips of 30 frames; a backward pass holds more.
      blocks: (convolutions, channels) of each of the five; VGG16's unless a test wants it small.
      dtype: of the computation; parameters stay float32.
      remat: whether the backward pass computes the insides of each block again.
    """

    channels: int = 3
    rgb: bool = True
    frames_at_once: int = 0
    blocks: tuple[tuple[int, int], ...] = BLOCKS
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    spatial_stride = 16
    temporal_stride = 1

    @staticmethod
    def check_side(side: int) -> None:
        """Raises InputError for a side under 16 px.

        Where 16 does not divide it, up to 15 px at the right or at the bottom are not seen.
        """
        if side < VGG16Backbone.spatial_stride:
            raise InputError(
                f"data.image_size is {side}; the VGG16 backbone needs "
                f"{VGG16Backbone.spatial_stride} or more"
            )

    @nn.compact
    def __call__(self, clips: Array, *, train: bool = False) -> Array:
        """`clips [B, T, H, W, channels]` in [-1, 1] -> `[B, T, H // 16, W // 16, 512]`.

        Raises:
          InputError: a side is under 16 px, the clips have another number of channels, or there
            are not five blocks.
        """
        del train  # nothing here depends on it
        batch, frames, height, width, channels = clips.shape
        for side in (height, width):
            self.check_side(side)
        self._check_channels(channels)
        weights, inputs = {}, channels
        for name, features in self._layers():
            layer = _Weights(inputs, features, name=name)
            weights[name] = jax.tree.map(lambda leaf: leaf.astype(self.dtype), layer())
            inputs = features
        scale, shift = input_scaling(channels, rgb=self.rgb)

        def forward(images: Array) -> Array:
            images = (images * scale + shift).astype(self.dtype)
            return _forward(weights, images, remat=self.remat)

        images = clips.reshape(batch * frames, height, width, channels)
        x = in_groups(forward, images, size=self.frames_at_once)
        return x.reshape(batch, frames, *x.shape[1:])

    def _check_channels(self, found: int) -> None:
        fewest = 3 if self.rgb else 1
        if self.channels < fewest:
            raise InputError(
                f"model.backbone_options.channels {self.channels}: expected {fewest} or more"
                f" with rgb={self.rgb}"
            )
        if found != self.channels:
            raise InputError(
                f"model.backbone_options.channels {self.channels}: found clips of {found} channels"
            )

    def _layers(self) -> list[tuple[str, int]]:
        """(name, channels) of the convolutions, conv1_1 to conv5_3."""
        if len(self.blocks) != 5:
            raise InputError(
                f"model.backbone_options.blocks {self.blocks}: expected five (convolutions, "
                "channels) pairs"
            )
        return [
            (f"conv{block}_{index}", features)
            for block, (count, features) in enumerate(self.blocks, start=1)
            for index in range(1, count + 1)
        ]


class _Weights(nn.Module):
    """The parameters of one convolution."""

    inputs: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        shape = (3, 3, self.inputs, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


def input_scaling(channels: int, *, rgb: bool) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift), each `[channels]`: `x * scale + shift` is what the weights expect of x."""
    flows = channels - 3 * rgb
    mean = np.array([*_RGB_MEAN * rgb, *[_FLOW_MEAN] * flows])
    std = np.array([*_RGB_STD * rgb, *[_FLOW_STD] * flows])
    return (0.5 / std).astype(np.float32), ((0.5 - mean) / std).astype(np.float32)


def _forward(weights: Weights, x: Array, *, remat: bool) -> Array:
    """`[N, H, W, C]` -> `[N, H // 16, W // 16, 512]`; the weights in the order of the layers."""
    for block in range(1, len(BLOCKS) + 1):
        layers = [layer for name, layer in weights.items() if name.startswith(f"conv{block}_")]
        # A pooling belongs to the block before it: that makes what is kept of a block smaller.
        run = functools.partial(_block, pool=block < len(BLOCKS))
        x = (jax.checkpoint(run) if remat else run)(layers, x)
    return x


def _block(layers: list[tuple[Array, Array]], x: Array, *, pool: bool) -> Array:
    for kernel, bias in layers:
        x = nn.relu(conv3x3(x, kernel) + bias)
    return max_pool_2x2(x) if pool else x


# Where XLA's 2-D convolution takes less time than Winograd's filters on 2 cores: under so many
# channels (3 at 112 px: a quarter), and on maps up to so large (7x7: three quarters). All layers of
# five frames of 112 px, 18 channels: forward .81 of the time, and with the backward pass .93.
_LEAST_CHANNELS = 32
_LARGEST_SMALL_MAP = 49


def conv3x3(x: Array, kernel: Array) -> Array:
    """`x [N, H, W, C]` with `kernel [3, 3, C, D]`, borders padded with 0 -> `[N, H, W, D]`."""
    _, height, width, channels = x.shape
    plain = channels < _LEAST_CHANNELS or height * width <= _LARGEST_SMALL_MAP
    if plain or not platform.is_cpu():
        return conv2d(x, kernel, padding=((1, 1), (1, 1)))
    return conv3d(x[:, None], kernel[None], padding=((0, 0), (1, 1), (1, 1)))[:, 0]


def max_pool_2x2(x: Array) -> Array:
    """Maxima of 2x2 cells: `[N, H, W, C]` -> `[N, H // 2, W // 2, C]`."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, None, :height, :width]
    return max_pool3d(x, window=(1, 2, 2), strides=(1, 2, 2))[:, 0]


def in_groups(function: Callable[[Array], Array], images: Array, *, size: int) -> Array:
    """`function` of `size` images at a time, recomputed in the backward pass; 0 takes them all.

    Args:
      function: `[n, ...]` -> `[n, ...]`, image by image.
      images: `[N, ...]`; the last group is filled up with zeros.
    """
    number = len(images)
    if not 0 < size < number:
        return function(images) if size == 0 else jax.checkpoint(function)(images)
    groups = -(-number // size)
    fill = [(0, groups * size - number), *[(0, 0)] * (images.ndim - 1)]
    grouped = jnp.pad(images, fill).reshape(groups, size, *images.shape[1:])
    x = jax.lax.map(jax.checkpoint(function), grouped)
    return x.reshape(groups * size, *x.shape[2:])[:number]
