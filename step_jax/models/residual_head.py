"""The two-branch head of the paper's two models (Section 3.2, Figure 3; layers of Section 4.1).

The AVA model's layers are those of the released weights. The UCF101-24 model's were in the paper's
supplement: its widths, and that its local branch is the AVA model's, are our choice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from step_jax.errors import InputError
from step_jax.models.conv import Conv3D, conv3d
from step_jax.models.heads import HeadOutput, apply_dropout, max_over_time
from step_jax.models.i3d import MIXED, Mixed

Array = jax.Array

TRUNKS = ("mixed", "conv")
_REGRESSOR_SPREAD = 0.01  # initial boxes are those that were fed


class ResidualHead(nn.Module):
    """Global branch by 3-D convolutions, local branch by residual blocks on every frame.

    Attributes:
      num_logits: C + 1 with a background class, or C.
      num_box_classes: C, or 1 for class-agnostic regression.
      chunk: K in feature frames, the part of a tube that anticipation looks at.
      anticipates: adds the two regressors of Eq. 5.
      trunk: the global branch. "mixed": I3D's 5b and 5c and a 1x1x1 convolution; logits of every
        frame, then their mean. "conv": three 3x3x3 convolutions, then the maximum over time
        (Section 4.1's adaptive max pooling), then the logits.
      trunk_features: channels of the "conv" trunk's convolutions before the last.
      global_features: channels of the global feature g.
      local_features, local_bottleneck: channels of a residual block, outside and inside.
      local_blocks: how many there are.
      local_branch: False for a classifier of given tubes (pre-training): all deltas are 0.
      keep_regressors: a step that does not anticipate carries the two regressors all the same,
        untrained, as the released checkpoints do; an export to their format needs them.
      dropout: rate before the classifier and before the regressors.
      norm: as `i3d.I3DBackbone`'s, "frozen" or "affine": slots without a sample would spoil the
        statistics of a batch.
      dtype: of the computation; outputs are float32.
    """

    num_logits: int
    num_box_classes: int
    chunk: int
    anticipates: bool
    trunk: str = "mixed"
    trunk_features: tuple[int, ...] = (512, 256)
    global_features: int = 256
    local_features: int = 1024
    local_bottleneck: int = 256
    local_blocks: int = 3
    local_branch: bool = True
    keep_regressors: bool = False
    dropout: float = 0.0
    norm: str = "frozen"
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
          context: scene context or None; `[B, L, D]` for the trunk "mixed", appended to the
            flattened g; `[B, L, P, P, D]` for "conv", appended to the RoI features.
          path: not used.
          dropout_keys: one key per example, or None for no dropout.

        Raises:
          InputError: an unknown trunk, or `norm` is "batch".
        """
        del path
        self._check_options()
        global_key, local_key = _split(dropout_keys)
        shape = rois.shape[:3]
        tubes = rois.reshape(-1, *rois.shape[2:]).astype(self.dtype)
        if self.trunk == "mixed":
            feature = self._mixed_trunk(tubes)
            per_frame = _with_context(feature.reshape(*shape, -1), context)
            logits = self._classify(per_frame, global_key).mean(axis=2)
        else:
            feature = self._conv_trunk(tubes, context, shape[1])
            per_frame = feature.reshape(*shape, -1)
            logits = self._classify(max_over_time(per_frame, bins=1), global_key)
        if not self.local_branch:
            return HeadOutput(logits, jnp.zeros((*shape, self.num_box_classes, 4)), None, None)
        local = self._local_features(tubes, feature).reshape(*shape, -1)
        return HeadOutput(logits, *self._regress(local, local_key))

    def _check_options(self) -> None:
        if self.trunk not in TRUNKS:
            raise InputError(
                f"model.head_options.trunk {self.trunk!r}: expected one of {', '.join(TRUNKS)}"
            )
        if self.norm == "batch":
            raise InputError("model.head_options.norm 'batch': a head's is 'frozen' or 'affine'")

    def _mixed_trunk(self, tubes: Array) -> Array:
        """`[B * N, L, P, P, C]` -> g `[B * N, L, P, P, G]`."""
        x = tubes
        for name in ("mixed_5b", "mixed_5c"):
            x = Mixed(MIXED[name], self.norm, self.dtype, name=name)(x)
        return Conv3D(self.global_features, (1, 1, 1), dtype=self.dtype, name="squeeze")(x)

    def _conv_trunk(self, tubes: Array, context: Array | None, number: int) -> Array:
        """The same by convolutions, three by default; `number` tubes share a clip's context."""
        x = tubes
        for index, width in enumerate((*self.trunk_features, self.global_features)):
            x = Conv3D(width, dtype=self.dtype, name=f"global_{index}")(x)
            if index == 0 and context is not None:
                # A convolution of [RoI, context] is the sum of two; the second is the same for
                # all tubes of the clip, so it is computed once.
                scene = Conv3D(width, use_bias=False, dtype=self.dtype, name="global_context")
                x = x + jnp.repeat(scene(context), number, axis=0)
            x = nn.relu(x)
        return x

    def _classify(self, features: Array, keys: Array | None) -> Array:
        dropped = apply_dropout(features, rate=self.dropout, keys=keys)
        dense = nn.Dense(self.num_logits, dtype=self.dtype, name="classifier")
        return dense(dropped).astype(jnp.float32)

    def _local_features(self, tubes: Array, feature: Array) -> Array:
        """Per frame: its RoI features and g; `[B * N * L, P, P, G]`, before the regressors."""
        x = jnp.concatenate([tubes, feature.astype(self.dtype)], axis=-1)
        x = x.reshape(-1, *x.shape[2:])
        for index in range(self.local_blocks):
            block = Bottleneck(
                self.local_features,
                self.local_bottleneck,
                projects=index == 0,
                dtype=self.dtype,
                name=f"local_{index}",
            )
            x = block(x)
        width, dtype = self.global_features, self.dtype
        return Conv2D(width, use_bias=True, dtype=dtype, name="local_squeeze")(x)

    def _regress(
        self, local: Array, keys: Array | None
    ) -> tuple[Array, Array | None, Array | None]:
        """Deltas of the tube's frames, and of the clips on both sides (Eq. 5)."""
        dropped = apply_dropout(local, rate=self.dropout, keys=keys)
        deltas = self._boxes(dropped, "box")
        if not self.anticipates:
            if self.keep_regressors:
                for name in ("box_before", "box_after"):
                    UnusedDense(4 * self.num_box_classes, name=name)(dropped.shape[-1])
            return deltas, None, None
        head, tail = dropped[:, :, : self.chunk], dropped[:, :, -self.chunk :]
        first = deltas[:, :, : self.chunk] + self._boxes(head, "box_before")
        last = deltas[:, :, -self.chunk :] + self._boxes(tail, "box_after")
        return deltas, first, last

    def _boxes(self, local: Array, name: str) -> Array:
        dense = nn.Dense(
            4 * self.num_box_classes,
            kernel_init=nn.initializers.normal(_REGRESSOR_SPREAD),
            dtype=self.dtype,
            name=name,
        )
        out = dense(local).astype(jnp.float32)
        return out.reshape(*out.shape[:-1], self.num_box_classes, 4)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; no normalisation, no biases.

    Attributes:
      features: channels of input and output; of the output alone if it projects.
      bottleneck: channels inside.
      projects: the shortcut is a 1x1 convolution without ReLU.
      dtype: of the computation.
    """

    features: int
    bottleneck: int
    projects: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[N, H, W, C]` -> `[N, H, W, features]`."""

        def conv(features: int, size: int, name: str) -> Conv2D:
            return Conv2D(features, size, dtype=self.dtype, name=name)

        reduce = conv(self.bottleneck, 1, "reduce")
        if self.projects:
            # One product with many columns is faster than two with few.
            units = (conv(self.features, 1, "shortcut"), reduce)
            kernels = [unit.parameters(x.shape[-1])[0] for unit in units]
            both = x @ jnp.concatenate(kernels, axis=-1)[0, 0].astype(self.dtype)
            shortcut, y = jnp.split(both, [self.features], axis=-1)
        else:
            shortcut, y = x, reduce(x)
        y = nn.relu(conv(self.bottleneck, 3, "conv")(nn.relu(y)))
        return nn.relu(shortcut + conv(self.features, 1, "expand")(y))


class Conv2D(nn.Module):
    """Convolution over rows and columns, padded to keep their number.

    Attributes:
      features: output channels.
      size: taps along both axes, odd.
      use_bias: adds a bias per output channel.
      dtype: of the computation; parameters stay float32.
    """

    features: int
    size: int = 1
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    def __call__(self, x: Array) -> Array:
        """`[N, H, W, C]` -> `[N, H, W, features]`."""
        kernel, bias = self.parameters(x.shape[-1])
        edge = (self.size // 2, self.size // 2)
        x = x[:, None].astype(self.dtype)
        y = conv3d(x, kernel[None].astype(self.dtype), padding=((0, 0), edge, edge))[:, 0]
        return y if bias is None else y + bias.astype(self.dtype)

    @nn.compact
    def parameters(self, channels: int) -> tuple[Array, Array | None]:
        """kernel `[size, size, channels, features]` and bias `[features]`, if any."""
        shape = (self.size, self.size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class UnusedDense(nn.Module):
    """The weights of a dense layer that are kept with the others but neither used nor trained."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> None:
        def initial_kernel() -> Array:
            init = nn.initializers.normal(_REGRESSOR_SPREAD)
            return init(self.make_rng("params"), (channels, self.features))

        self.variable("frozen", "kernel", initial_kernel)
        self.variable("frozen", "bias", jnp.zeros, (self.features,))


def _with_context(features: Array, context: Array | None) -> Array:
    """`[B, N, L, F]` and `[B, L, D]` -> `[B, N, L, F + D]`."""
    if context is None:
        return features
    shape = (*features.shape[:3], context.shape[-1])
    context = jnp.broadcast_to(context[:, None].astype(features.dtype), shape)
    return jnp.concatenate([features, context], axis=-1)


def _split(keys: Array | None) -> tuple[Array | None, Array | None]:
    """Two keys of every example's one."""
    if keys is None:
        return None, None
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]
