"""What each step is trained on: an inference pass, and samples of what it gives (Section 3.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from step_jax import parallel, sampling, training_targets
from step_jax.loss_options import LossOptions
from step_jax.models.step import Features, StepDetector
from step_jax.training_targets import Targets

Array = jax.Array
PyTree = Any
SumCount = tuple[Array, Array]

HISTOGRAM_BINS = 10


class Candidates(NamedTuple):
    """What step s may be trained on: `tubes [B, M, L, 4]` as fed, and their `scores [B, M]`."""

    tubes: Array
    scores: Array


class Chosen(NamedTuple):
    """What step s is trained on.

    Attributes:
      tubes: `[B, N, L, 4]`, the sampled candidates.
      samples: what each of them is; leaves `[B, N]`.
      dropout_keys: `[B]`.
    """

    tubes: Array
    samples: sampling.Samples
    dropout_keys: Array


def choose(
    step: int,
    candidates: Candidates,
    targets: Targets,
    real: Array,
    key: Array,
    index: Array,
    *,
    detector: StepDetector,
    options: LossOptions,
) -> tuple[Chosen, dict[str, SumCount]]:
    """Samples of one step's candidates, and how these and the samples look.

    Args:
      step: from 0.
      candidates, targets: of the step, of the clips.
      real: bool `[B]`; of other clips nothing is sampled.
      key: of the update.
      index: `[B]`, each clip's place in the global batch, which its chance depends on.
      detector, options: as everywhere.
    """
    frames = options.frames
    overlaps = training_targets.overlaps(targets, candidates.tubes, detector.plan, frames=frames)
    sample_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    samples = sample_batch(
        parallel.example_keys(sample_key, index), overlaps, candidates.scores, targets.tube_mask,
        real, threshold=options.thresholds[step], options=options,
    )  # fmt: skip
    tubes = jax.vmap(lambda tube, chosen: tube[chosen])(candidates.tubes, samples.index)
    clips = real.sum(dtype=jnp.float32)
    seen = {
        "positives": (samples.positive.sum(dtype=jnp.float32), clips),
        "negatives": (samples.negative.sum(dtype=jnp.float32), clips),
        "overlap": _best_overlap(overlaps, targets.tube_mask),
        "overlap_histogram": overlap_histogram(overlaps, targets.tube_mask),
    }
    return Chosen(tubes, samples, parallel.example_keys(dropout_key, index)), seen


def infer_candidates(
    detector: StepDetector,
    variables: PyTree,
    features: Features,
    proposals: Array,
    targets: Targets,
    *,
    image_size: tuple[int, int],
    options: LossOptions,
) -> list[Candidates]:
    """What each step is fed, without gradient: an inference pass of S - 1 steps."""
    if options.samples == "ground_truth":
        tubes = training_targets.nearest_boxes(targets.boxes, targets.box_mask)
        return [Candidates(tubes, jnp.ones(tubes.shape[:2]))]
    variables, features = jax.lax.stop_gradient((variables, features))
    height, width = image_size
    batch = features.maps.shape[0]
    tubes = jnp.broadcast_to(proposals, (batch, *proposals.shape))
    overlap = training_targets.overlaps(targets, tubes, detector.plan, frames=options.frames)
    best = jnp.where(targets.tube_mask[..., None], overlap, 0.0).max(axis=1)
    candidates = [Candidates(tubes, best)]
    for step in range(detector.plan.num_steps - 1):
        output = detector.apply(variables, step, features, tubes, method="refine")
        scores = detector.class_scores(output).max(axis=-1)
        tubes = detector.next_tubes(step, output, height=height, width=width)
        candidates.append(Candidates(tubes, scores))
    return candidates


def sample_batch(
    keys: Array,
    overlaps: Array,
    scores: Array,
    tube_mask: Array,
    real: Array,
    *,
    threshold: float,
    options: LossOptions,
) -> sampling.Samples:
    """`sampling.sample_proposals` for each clip of a batch; leaves are `[B, N]`.

    Of clips that are not `real`, bool `[B]`, nothing is sampled.
    """
    if options.samples == "ground_truth":
        return jax.vmap(sampling.all_tubes)(tube_mask)

    def sample(key: Array, overlap: Array, score: Array, mask: Array) -> sampling.Samples:
        return sampling.sample_proposals(
            key,
            overlap,
            mask,
            score,
            threshold=threshold,
            max_positives=options.max_positives,
            negatives_per_positive=options.negatives_per_positive,
            background_negatives=options.background_negatives,
            positive_weights=options.positive_weights,
            negative_weights=options.negative_weights,
            keep_claims=options.keep_claims,
            claim_without_overlap=options.claim_without_overlap,
        )

    samples = jax.vmap(sample)(keys, overlaps, scores, tube_mask)
    positive, negative = (mask & real[:, None] for mask in (samples.positive, samples.negative))
    return samples._replace(positive=positive, negative=negative)


def _best_overlap(overlaps: Array, tube_mask: Array) -> SumCount:
    """How well the inputs of a step cover the ground truth: each tube's best overlap."""
    best = overlaps.max(axis=-1)
    return jnp.where(tube_mask, best, 0.0).sum(), tube_mask.sum().astype(jnp.float32)


def overlap_histogram(overlaps: Array, tube_mask: Array) -> SumCount:
    """Figure 4: how many inputs of a step overlap the ground truth by 0-.1, .1-.2, ... .9-1.

    Every proposal of a clip with ground truth is counted once, by the tube that it overlaps most;
    the figure does not say what it leaves out, so that nothing is.

    Args:
      overlaps: `[B, G, M]`.
      tube_mask: bool `[B, G]`.

    Returns `[10]` and their sum.
    """
    best = jnp.where(tube_mask[..., None], overlaps, 0.0).max(axis=1)
    bins = jnp.clip((best * HISTOGRAM_BINS).astype(jnp.int32), 0, HISTOGRAM_BINS - 1)
    counted = jnp.broadcast_to(tube_mask.any(axis=1)[:, None], bins.shape)
    one_hot = (bins[..., None] == jnp.arange(HISTOGRAM_BINS)) & counted[..., None]
    return one_hot.sum(axis=(0, 1), dtype=jnp.float32), counted.sum(dtype=jnp.float32)
