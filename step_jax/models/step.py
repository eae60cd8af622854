"""The progressive detector (Section 3, Algorithm 1): extend, refine, update, a few times over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from step_jax import boxes as box_ops
from step_jax import tubes as tube_ops
from step_jax.models import roi
from step_jax.models.heads import HeadOutput
from step_jax.models.remat import recomputed

Array = jax.Array

EXTENSIONS = ("anticipate", "extrapolate", "recursive", "mean", "none")
CLASSIFICATIONS = ("softmax", "sigmoid")
REGRESSIONS = ("per_class", "agnostic")
ROI_MODES = ("align", "pool")


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """How long the tubes are at each step, in feature frames.

    Attributes:
      chunk: K, the frames of the target clip.
      extends: one flag per step: whether the tube grows by a chunk on both sides before it, e.g.
        (False, True, True) for 6 -> 18 -> 30 frames with K = 6.
      method: how it grows, one of EXTENSIONS. "none" grows nowhere, whatever the flags.
    """

    chunk: int
    extends: tuple[bool, ...]
    method: str = "anticipate"

    def __post_init__(self):
        if self.method not in EXTENSIONS:
            raise ValueError(f"extension {self.method!r}: expected one of {', '.join(EXTENSIONS)}")
        if not self.extends or self.extends[0]:
            raise ValueError(
                f"extension plan {self.extends}: the first step's tubes are the initial proposals, "
                "so its flag must be there and false"
            )

    @property
    def num_steps(self) -> int:
        return len(self.extends)

    def length(self, step: int) -> int:
        """L, the frames of the tubes that step `step` (from 0) is fed."""
        grown = 0 if self.method == "none" else sum(self.extends[: step + 1])
        return self.chunk * (1 + 2 * grown)

    @property
    def longest(self) -> int:
        return self.length(self.num_steps - 1)

    def grows_after(self, step: int) -> bool:
        """Whether the tubes of `step` are extended before they are fed to the next step."""
        return step + 1 < self.num_steps and self.length(step + 1) > self.length(step)

    def anticipates(self, step: int) -> bool:
        return self.method == "anticipate" and self.grows_after(step)

    def window(self, step: int) -> slice:
        """The frames of the longest window that step `step` reads."""
        start = (self.longest - self.length(step)) // 2
        return slice(start, start + self.length(step))

    def target(self, length: int) -> slice:
        """The target clip's K frames within a tube of `length` frames."""
        start = (length - self.chunk) // 2
        return slice(start, start + self.chunk)


class Features(NamedTuple):
    """`maps [B, T, h, w, C]` of the backbone, and the scene context made from them, or None."""

    maps: Array
    context: Array | None


class StepOutput(NamedTuple):
    """One step's result.

    Attributes:
      fed: `[B, N, L, 4]`, the tubes this step was fed, valid boxes in input pixels.
      head: the head's raw output for them.
    """

    fed: Array
    head: HeadOutput


class StepDetector(nn.Module):
    """STEP: a backbone, and one head per step that refines and classifies tubes.

    Attributes:
      backbone: `[B, T_in, H, W, channels]` -> `[B, T, h, w, C]`, with `spatial_stride`,
        `temporal_stride`, `channels` and `check_side`; T_in = temporal_stride * plan.longest.
      make_head: (num_logits, num_box_classes, chunk, anticipates) -> head module; called once a
        step, because each step has a head of its own (Section 3.4, "Distribution Change").
      plan: lengths of the tubes over the steps.
      num_classes: C.
      classification: "softmax" (over C + 1, background first) or "sigmoid" (over C).
      regression: "per_class" (a box per class) or "agnostic" (one box).
      roi_mode: "align" or "pool".
      pool_size: P.
      scene_context: module of the maps -> context that the heads understand, or None.
      matmul_precision: of products and convolutions of float32, as `jax.default_matmul_precision`
        takes it. JAX's own default rounds to 10 bits on GPUs and to 7 on TPUs; CPUs never round.
      remat_heads: whether the backward pass computes each step's RoI features and head again.
    """

    backbone: nn.Module
    make_head: Callable[..., nn.Module]
    plan: StepPlan
    num_classes: int
    classification: str = "softmax"
    regression: str = "per_class"
    roi_mode: str = "align"
    pool_size: int = 7
    scene_context: nn.Module | None = None
    matmul_precision: str = "highest"
    remat_heads: bool = False

    def setup(self):
        _one_of("classification", self.classification, CLASSIFICATIONS)
        _one_of("regression", self.regression, REGRESSIONS)
        _one_of("roi_mode", self.roi_mode, ROI_MODES)
        self.heads = [
            self.make_head(
                num_logits=self.num_classes + (self.classification == "softmax"),
                num_box_classes=self.num_classes if self.regression == "per_class" else 1,
                chunk=self.plan.chunk,
                anticipates=self.plan.anticipates(step),
            )
            for step in range(self.plan.num_steps)
        ]

    def features(self, clips: Array, *, train: bool = False) -> Features:
        """`clips [B, T_in, H, W, C]`, normalised -> features of the longest window, read once.

        `train` is for backbones that normalise by the batch's statistics: they update their running
        ones, the collection "batch_stats", inside `parallel.data_parallel`.
        """
        with jax.default_matmul_precision(self.matmul_precision):
            maps = self.backbone(clips, train=train)
            context = None if self.scene_context is None else self.scene_context(maps, train=train)
        return Features(maps, context)

    def refine(
        self, step: int, features: Features, tubes: Array, *, dropout_keys: Array | None = None
    ) -> StepOutput:
        """One step's spatial refinement (Section 3.2) of `tubes [B, N, L, 4]`, step from 0."""

        def run(
            detector: StepDetector, features: Features, tubes: Array, keys: Array | None
        ) -> StepOutput:
            rois = detector.roi_features(step, features.maps, tubes)
            return detector.run_head(step, rois, features.context, tubes, dropout_keys=keys)

        return recomputed(run, remat=self.remat_heads)(self, features, tubes, dropout_keys)

    def roi_features(self, step: int, maps: Array, tubes: Array) -> Array:
        """The backbone's `maps` in each frame's box of each tube: `[B, N, L, P, P, C]`."""
        pool = roi.roi_align if self.roi_mode == "align" else roi.roi_pool
        with jax.default_matmul_precision(self.matmul_precision):
            rois = pool(
                maps[:, self.plan.window(step)],
                tubes.swapaxes(1, 2),
                output_size=self.pool_size,
                stride=self.backbone.spatial_stride,
            )
        return rois.swapaxes(1, 2)

    def run_head(
        self,
        step: int,
        rois: Array,
        context: Array | None,
        tubes: Array,
        *,
        dropout_keys: Array | None = None,
    ) -> StepOutput:
        """The step's head on what `roi_features` gives; `context` is that of the longest window."""
        context = None if context is None else context[:, self.plan.window(step)]
        path = tube_ops.path(tubes)
        with jax.default_matmul_precision(self.matmul_precision):
            out = self.heads[step](rois, context, path, dropout_keys=dropout_keys)
        return StepOutput(tubes, out)

    def class_scores(self, output: StepOutput) -> Array:
        """Probabilities of the C actions, `[B, N, C]`, background left out."""
        if self.classification == "softmax":
            return jax.nn.softmax(output.head.logits, axis=-1)[..., 1:]
        return jax.nn.sigmoid(output.head.logits)

    def class_tubes(self, output: StepOutput) -> Array:
        """The decoded boxes of every class, unclipped: `[B, N, L, R, 4]`."""
        return box_ops.decode_boxes(output.head.deltas, output.fed[..., None, :])

    def update(self, output: StepOutput) -> Array:
        """Eq. 1: each tube becomes its regression output of its best class, `[B, N, L, 4]`."""
        return self._of_best_class(output, self.class_tubes(output))

    def next_tubes(self, step: int, output: StepOutput, *, height: int, width: int) -> Array:
        """What the next step is fed: the updated tubes, extended where the plan says, valid."""
        tubes = self.update(output)
        if self.plan.grows_after(step):
            tubes = tube_ops.extend(
                tubes,
                method=self.plan.method,
                chunk=self.plan.chunk,
                height=height,
                width=width,
                anticipated=self._anticipated(output) if self.plan.anticipates(step) else None,
            )
        return box_ops.make_valid(tubes, height=height, width=width)

    def __call__(self, clips: Array, tubes: Array) -> list[StepOutput]:
        """All steps without gradient bookkeeping: `clips`, initial `tubes [M, K, 4]` -> outputs."""
        height, width = clips.shape[2:4]
        features = self.features(clips)
        tubes = jnp.broadcast_to(tubes, (clips.shape[0], *tubes.shape))
        outputs = []
        for step in range(self.plan.num_steps):
            outputs.append(self.refine(step, features, tubes))
            tubes = self.next_tubes(step, outputs[-1], height=height, width=width)
        return outputs

    def _anticipated(self, output: StepOutput) -> tuple[Array, Array]:
        """The clips before and after, decoded from the first and last chunk as fed (Eq. 5)."""
        chunk = self.plan.chunk
        first = box_ops.decode_boxes(output.head.first, output.fed[:, :, :chunk, None])
        last = box_ops.decode_boxes(output.head.last, output.fed[:, :, -chunk:, None])
        return self._of_best_class(output, first), self._of_best_class(output, last)

    def _of_best_class(self, output: StepOutput, class_tubes: Array) -> Array:
        """`[B, N, T, R, 4]` -> `[B, N, T, 4]` of the class with the highest score."""
        if class_tubes.shape[3] == 1:
            return class_tubes[:, :, :, 0]
        best = self.class_scores(output).argmax(axis=-1)
        return jnp.take_along_axis(class_tubes, best[:, :, None, None, None], axis=3)[:, :, :, 0]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} {value!r}: expected one of {', '.join(allowed)}")
