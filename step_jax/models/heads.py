"""The two-branch head of one step (Section 3.2, Figure 3) and the scene context (Section 3.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax.errors import InputError
from step_jax.models.conv import Conv3D

Array = jax.Array


_PATH_GAIN = 4.0  # paths are a few tenths of an actor's sides


class HeadOutput(NamedTuple):
    """What a head says of N tubes of L frames, R box classes (C, or 1 if class-agnostic).

    Attributes:
      logits: `[B, N, C + 1]` with the background first (softmax), or `[B, N, C]` (sigmoid).
      deltas: `[B, N, L, R, 4]`, relative to the tubes the head was fed.
      first: `[B, N, K, R, 4]`, deltas of the clip before, relative to the first K boxes (Eq. 5);
        None where the head does not anticipate.
      last: the same of the clip after, relative to the last K boxes.
    """

    logits: Array
    deltas: Array
    first: Array | None
    last: Array | None


class SceneContext(nn.Module):
    """The whole image's features at the size of a RoI's, for the global branch (Section 3.5)."""

    pool_size: int

    @nn.compact
    def __call__(self, features: Array, *, train: bool = False) -> Array:
        """`[B, T, H, W, C]` -> `[B, T, P, P, C]`: means weighted by a triangle of two new cells."""
        del train  # nothing here depends on it
        return jax.image.resize(
            features,
            (*features.shape[:2], self.pool_size, self.pool_size, features.shape[-1]),
            method="linear",
            antialias=True,
        )


class TwoBranchHead(nn.Module):
    """Global branch over space and time for the class, local branch per frame for the box.

    The paper fixes three 3-D convolutions and a max pooling over time in the global branch; their
    widths, kernels and the local branch's layers were in its supplement: our choice.

    Attributes:
      num_logits: C + 1 with a background class, or C.
      num_box_classes: C, or 1 for class-agnostic regression.
      chunk: K, frames of a clip, the part of a tube that anticipation looks at.
      anticipates: adds the two regressors of Eq. 5.
      global_features: channels of each 3-D convolution.
      global_kernels: (T, H, W) taps of each; rows and columns shrink by taps - 1, time does not.
      local_features: channels of the local branch's two layers.
      time_bins: parts of the tube whose features are max-pooled over time, each for itself.
      tube_path: gives the global branch also how the tube moves (our choice, not the paper's): RoI
        features of a tube that follows its actor show the actor standing still.
      time_centred: gives the classifier also what changes over time (feature - its mean over L).
      dropout: rate before the classifier.
      dtype: of the computation; outputs are float32.
    """

    num_logits: int
    num_box_classes: int
    chunk: int
    anticipates: bool
    global_features: tuple[int, ...] = (96, 128, 128)
    global_kernels: tuple[tuple[int, int, int], ...] = ((1, 3, 3), (3, 3, 3), (5, 1, 1))
    local_features: tuple[int, int] = (128, 128)
    time_bins: int = 1
    tube_path: bool = False
    time_centred: bool = True
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        rois: Array,
        context: Array | None,
        path: Array | None = None,
        *,
        dropout_keys: Array | None = None,
    ) -> HeadOutput:
        """Classifies and regresses the tubes whose features are given.

        Args:
          rois: `[B, N, L, P, P, C]`, RoI features of each frame of each tube.
          context: `[B, L, P, P, C]`, scene context, or None.
          path: `[B, N, L, 4]`, how each tube moves (`tubes.path`); used if `tube_path`.
          dropout_keys: one key per example, or None for no dropout.

        Raises:
          InputError: widths and kernels of the global branch differ in number, or the kernels leave
            nothing of P x P.
        """
        self._check_kernels(rois.shape[3])
        moving = self._spatio_temporal(rois, path)
        summary = max_over_time(moving, bins=self.time_bins)
        if self.time_centred:
            centred = moving - moving.mean(axis=2, keepdims=True)
            summary = jnp.concatenate([summary, jnp.abs(centred).mean(axis=2)], axis=-1)
        summary = summary.reshape(*summary.shape[:2], -1)
        seen = summary if context is None else self._with_scene(summary, context)
        dropped = apply_dropout(seen, rate=self.dropout, keys=dropout_keys)
        logits = self._dense(self.num_logits, "classifier")(dropped)
        local = self._local(rois, moving, summary)
        return HeadOutput(logits.astype(jnp.float32), *self._regress(local))

    def _check_kernels(self, pool_size: int) -> None:
        widths, kernels = self.global_features, self.global_kernels
        if len(widths) != len(kernels):
            raise InputError(
                f"model.head_options: {len(widths)} global_features {widths} for {len(kernels)} "
                f"global_kernels {kernels}; expected one kernel for each"
            )
        shrinks = max(sum(kernel[axis] - 1 for kernel in kernels) for axis in (1, 2))
        if shrinks >= pool_size:
            raise InputError(
                f"model.pool_size {pool_size}: global_kernels {kernels} take {shrinks} rows or "
                f"columns away; expected at least {shrinks + 1}, or smaller kernels"
            )

    def _spatio_temporal(self, rois: Array, path: Array | None) -> Array:
        """The global branch before its pooling: `[B, N, L, P', P', G]`."""
        batch, number = rois.shape[:2]
        x = rois
        for index, (width, kernel) in enumerate(
            zip(self.global_features, self.global_kernels, strict=True)
        ):
            padding = (((kernel[0] - 1) // 2, kernel[0] // 2), (0, 0), (0, 0))
            conv = Conv3D(width, kernel, padding, dtype=self.dtype, name=f"global_{index}")
            y = conv(x.reshape(batch * number, *x.shape[2:]))
            x = y.reshape(batch, number, *y.shape[1:])
            if index == 0 and self.tube_path:
                moves = self._dense(width, "global_path")(_PATH_GAIN * path)
                x = x + moves[:, :, :, None, None]
            x = nn.relu(nn.LayerNorm(dtype=self.dtype, name=f"global_norm_{index}")(x))
        return x

    def _with_scene(self, summary: Array, context: Array) -> Array:
        """What the classifier reads: `[B, N, G]` and the clip's scene `[B, L, P, P, C]`.

        The scene joins at the end, as in the released model. Where it joined the RoI features, in
        front of the first convolution, motion was learned more slowly than without it.
        """
        scene = context.mean(axis=1).reshape(len(context), -1)
        scene = self._dense(self.global_features[0], "scene")(scene)
        scene = nn.relu(nn.LayerNorm(dtype=self.dtype, name="scene_norm")(scene))
        scene = jnp.broadcast_to(scene[:, None], (*summary.shape[:2], scene.shape[-1]))
        return jnp.concatenate([summary, scene], axis=-1)

    def _local(self, rois: Array, moving: Array, summary: Array) -> Array:
        """Per frame: its own RoI features and the tube's global feature, `[B, N, L, F]`."""
        flat = rois.reshape(*rois.shape[:3], -1)
        moving = moving.reshape(*moving.shape[:3], -1)
        x = self._dense(self.local_features[0], "local_roi")(flat)
        x = x + self._dense(self.local_features[0], "local_frame")(moving)
        x = x + self._dense(self.local_features[0], "local_global")(summary)[:, :, None]
        x = nn.relu(nn.LayerNorm(dtype=self.dtype, name="local_norm")(x))
        return nn.relu(self._dense(self.local_features[1], "local_hidden")(x))

    def _regress(self, local: Array) -> tuple[Array, Array | None, Array | None]:
        """Deltas of the tube's frames, and of the clips on both sides (Eq. 5)."""
        deltas = self._boxes(local, "box")
        if not self.anticipates:
            return deltas, None, None
        head, tail = local[:, :, : self.chunk], local[:, :, -self.chunk :]
        first = deltas[:, :, : self.chunk] + self._boxes(head, "box_before")
        last = deltas[:, :, -self.chunk :] + self._boxes(tail, "box_after")
        return deltas, first, last

    def _boxes(self, local: Array, name: str) -> Array:
        out = nn.Dense(
            self.num_box_classes * 4,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.dtype,
            name=name,
        )(local)
        return out.reshape(*out.shape[:-1], self.num_box_classes, 4).astype(jnp.float32)

    def _dense(self, features: int, name: str) -> Callable[[Array], Array]:
        return nn.Dense(features, dtype=self.dtype, name=name)


def max_over_time(x: Array, *, bins: int) -> Array:
    """Adaptive max pooling over time: `[B, N, L, ..., C]` -> `[B, N, ..., bins * C]`.

    Part i of L frames is frames floor(i * L / bins) to ceil((i + 1) * L / bins).
    """
    length = x.shape[2]
    parts = [_max(x[:, :, i * length // bins : -(-(i + 1) * length // bins)]) for i in range(bins)]
    return jnp.concatenate(parts, axis=-1)


def _max(x: Array) -> Array:
    """The maximum over axis 2; its gradient goes to the first of equal ones.

    The gradient of `jnp.max` compares the maximum with its argument, which XLA may compute twice
    and round differently: then nothing is equal and the gradient is 0 / 0.
    """
    index = jnp.argmax(jax.lax.stop_gradient(x), axis=2, keepdims=True)
    place = jnp.arange(x.shape[2]).reshape(-1, *[1] * (x.ndim - 3))
    return jnp.where(place == index, x, 0).sum(axis=2)


def apply_dropout(x: Array, *, rate: float, keys: Array | None) -> Array:
    """Dropout of `x [B, ...]` with a key per example, so that masks do not depend on the split."""
    if keys is None or rate == 0.0:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate), 0).astype(x.dtype)
