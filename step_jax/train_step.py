"""One training step (Section 3.4): infer the inputs of all steps, sample, sum all losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from step_jax import boxes as box_ops
from step_jax import losses, parallel, sampling, training_targets
from step_jax.errors import InputError
from step_jax.models.step import Features, StepDetector, StepOutput
from step_jax.train_state import TrainState
from step_jax.training_targets import Targets

Array = jax.Array
PyTree = Any
SumCount = tuple[Array, Array]

SAMPLES = ("proposals", "ground_truth")
HISTOGRAM_BINS = 10


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """How samples are chosen and losses weighted.

    Attributes:
      thresholds: tau of each step (Section 3.4); rising.
      localization_weight: lambda of Eq. 2.
      anticipation_weight: gamma, of the anticipated tubes' loss (Section 3.3).
      frames: whose overlap is meant and whose boxes are learned: "all" frames (Sections 3.3, 3.4),
        or the "middle" frame of each clip (the released model: AVA annotates no other).
      samples: "proposals", or the "ground_truth" tubes themselves, whose classes alone are learned
        (the released model's pre-training).
      max_positives, negatives_per_positive, background_negatives, positive_weights,
        negative_weights, keep_claims, claim_without_overlap: see `sampling.sample_proposals`.
    """

    thresholds: tuple[float, ...]
    localization_weight: float = 5.0
    anticipation_weight: float = 1.0
    max_positives: int = 5
    negatives_per_positive: int = 2
    background_negatives: int = 2
    positive_weights: str = "score"
    negative_weights: str = "score"
    keep_claims: bool = False
    claim_without_overlap: bool = False
    frames: str = "all"
    samples: str = "proposals"


class Candidates(NamedTuple):
    """What step s may be trained on: `tubes [B, M, L, 4]` as fed, and their `scores [B, M]`."""

    tubes: Array
    scores: Array


def normalise_clips(clips: Array) -> Array:
    """uint8 -> float32 in [-1, 1]; on the device, because bytes travel four times faster."""
    return clips.astype(jnp.float32) * (2.0 / 255.0) - 1.0


def make_train_step(
    detector: StepDetector,
    optimizer: optax.GradientTransformation,
    *,
    proposals: Array,
    options: LossOptions,
) -> Callable[[TrainState, PyTree, Array], tuple[TrainState, PyTree]]:
    """`(state, batch, key) -> (state, metrics)`, to be wrapped by `parallel.data_parallel`.

    Args:
      detector: the model.
      optimizer: of its parameters.
      proposals: `[M, K, 4]`, initial tubes in input pixels.
      options: sampling and losses.

    `batch` is what `input_pipeline.pipeline.train_batches` makes. Two keys may be absent:
      example_mask: bool [B]; an example with False has no say in losses and counts.
      number: int32 [B], the step that the batch is for, counted from 1, the same for all.

    A step whose loss or gradient is not finite leaves the state as it is, its `step` too. Because
    the host learns of it one step late, so does any step that is not the state's next one by its
    `number`: the state from before the bad step is still there.

    Metrics are (sum, count) pairs over the global batch, except `gradient_norm`.
    """
    check_options(options, num_steps=detector.plan.num_steps)

    def train_step(state: TrainState, batch: PyTree, key: Array) -> tuple[TrainState, PyTree]:
        key = jax.random.fold_in(key, state.step)
        grad = jax.value_and_grad(total_loss, has_aux=True)
        (_, (metrics, updated)), gradients = grad(
            state.params, state.model_state, detector, proposals, batch, key, options=options
        )
        gradients = parallel.sum_over_devices(gradients)
        metrics = parallel.sum_over_devices(metrics)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        after = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=state.model_state | updated,
            opt_state=opt_state,
        )
        accepted = is_accepted(metrics, after.step, batch.get("number"))
        state = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), after, state)
        return state, metrics

    return train_step


def is_accepted(metrics: dict[str, Any], next_step: Array, number: Array | None) -> Array:
    """Whether an update counts: it is finite, and the one that the batch of that number is for.

    Args:
      metrics: `loss` and `gradient_norm` of the global batch.
      next_step: the state's step after the update.
      number: `[B]`, see `make_train_step`; None where nobody counts.
    """
    finite = jnp.isfinite(metrics["loss"][0]) & jnp.isfinite(metrics["gradient_norm"])
    return finite if number is None else finite & (number[0] == next_step)


def check_options(options: LossOptions, *, num_steps: int) -> None:
    """Raises InputError where the options fit neither one another nor the number of steps."""
    sampling.check_weights(options.positive_weights, options.negative_weights)
    for name, allowed in (("frames", training_targets.FRAMES), ("samples", SAMPLES)):
        value = getattr(options, name)
        if value not in allowed:
            raise InputError(f"loss.{name} {value!r}: expected one of {', '.join(allowed)}")
    if len(options.thresholds) < num_steps:
        raise InputError(
            f"loss.thresholds {options.thresholds}: expected one for each of {num_steps} steps"
        )
    if options.samples == "ground_truth" and num_steps > 1:
        raise InputError(
            f"loss.samples 'ground_truth' with {num_steps} steps: nothing is left to refine; "
            "expected model.extension_plan = (False,), one step"
        )


def total_loss(
    params: PyTree,
    model_state: PyTree,
    detector: StepDetector,
    proposals: Array,
    batch: PyTree,
    key: Array,
    *,
    options: LossOptions,
) -> tuple[Array, tuple[dict[str, SumCount], PyTree]]:
    """This device's share of the loss: its sums divided by the counts of the global batch.

    To be called inside a function that `parallel.data_parallel` wraps. Beside the loss come its
    terms and how the samples look, `NAME_STEP` -> (sum, count) of this device, and the collections
    of `model_state` that training updates, if any.
    """
    variables = {"params": params, **model_state}
    clips = normalise_clips(batch["clips"])
    targets = _targets(detector, batch, options)
    features, updated = training_features(detector, variables, clips)
    candidates = infer_candidates(
        detector, variables, features, proposals, targets,
        image_size=clips.shape[2:4], options=options,
    )  # fmt: skip
    weighted, metrics, real = [], {}, example_mask(batch)
    for step, candidate in enumerate(candidates):
        step_key = jax.random.fold_in(key, step)
        terms = _step_terms(
            detector, variables, features, step, candidate, targets, real, step_key, options
        )
        metrics |= {f"{name}_{step + 1}": pair for name, pair in terms.items()}
        weighted += weighted_losses(terms, options)
    total = sum(weighted)
    metrics["loss"] = (jax.lax.stop_gradient(total), jnp.float32(1) / parallel.axis_size())
    return total, (metrics, updated)


def _targets(detector: StepDetector, batch: PyTree, options: LossOptions) -> Targets:
    """The batch's ground truth, without tubes that have no box in a frame that counts.

    Examples that `example_mask` leaves out have no tubes.
    """
    targets = training_targets.targets_of(batch, temporal_stride=detector.backbone.temporal_stride)
    real = example_mask(batch)
    targets = targets._replace(tube_mask=targets.tube_mask & real[:, None])
    if options.samples == "ground_truth":
        return training_targets.with_boxes(targets)
    if options.frames == "middle":
        middle = detector.plan.longest // 2
        return training_targets.with_boxes(targets, within=slice(middle, middle + 1))
    return targets


def example_mask(batch: PyTree) -> Array:
    """bool `[B]`: the examples that count, all of them unless the batch says otherwise."""
    return batch.get("example_mask", jnp.ones(batch["tube_mask"].shape[0], bool))


def weighted_losses(terms: dict[str, SumCount], options: LossOptions) -> list[Array]:
    """The summands of Eq. 2 among one step's `terms`: weighted means over the global batch."""
    weights = {
        "classification": 1.0,
        "localization": options.localization_weight,
        "anticipation": options.anticipation_weight,
    }
    summands = []
    for name, weight in weights.items():
        if name in terms:
            value, count = terms[name]
            count = parallel.sum_over_devices(jax.lax.stop_gradient(count))
            summands.append(weight * value / jnp.maximum(count, 1.0))
    return summands


def training_features(
    detector: StepDetector, variables: PyTree, clips: Array
) -> tuple[Features, PyTree]:
    """Features of normalised `clips`, and the collections of variables that they update.

    The only such collection is "batch_stats", there if normalisation learns its statistics.
    """
    if "batch_stats" not in variables:
        return detector.apply(variables, clips, method="features"), {}
    return detector.apply(variables, clips, train=True, method="features", mutable=["batch_stats"])


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


def _step_terms(
    detector: StepDetector,
    variables: PyTree,
    features: Features,
    step: int,
    candidates: Candidates,
    targets: Targets,
    real: Array,
    key: Array,
    options: LossOptions,
) -> dict[str, SumCount]:
    """Samples one step's candidates, runs its head on them; losses and counts."""
    overlaps = training_targets.overlaps(
        targets, candidates.tubes, detector.plan, frames=options.frames
    )
    sample_key, dropout_key = jax.random.split(key)
    batch = overlaps.shape[0]
    samples = sample_batch(
        parallel.example_keys(sample_key, batch), overlaps, candidates.scores, targets.tube_mask,
        real, threshold=options.thresholds[step], options=options,
    )  # fmt: skip
    tubes = jax.vmap(lambda tube, index: tube[index])(candidates.tubes, samples.index)
    dropout_keys = parallel.example_keys(dropout_key, batch)
    output = detector.apply(
        variables, step, features, tubes, dropout_keys=dropout_keys, method="refine"
    )
    terms = sampled_losses(detector, step, output, samples, targets, options)
    clips = real.sum().astype(jnp.float32)
    terms["positives"] = (samples.positive.sum().astype(jnp.float32), clips)
    terms["negatives"] = (samples.negative.sum().astype(jnp.float32), clips)
    terms["overlap"] = _best_overlap(overlaps, targets.tube_mask)
    terms["overlap_histogram"] = overlap_histogram(overlaps, targets.tube_mask)
    return terms


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


def sampled_losses(
    detector: StepDetector,
    step: int,
    output: StepOutput,
    samples: sampling.Samples,
    targets: Targets,
    options: LossOptions,
) -> dict[str, SumCount]:
    """Eq. 2's two losses of the sampled tubes, and the anticipated tubes' where there are any."""
    plan = detector.plan
    labels = _gather(targets.labels, samples.tube)
    terms = {"classification": _classification_loss(detector, output, labels, samples)}
    if options.samples == "ground_truth":
        return terms  # such tubes lie where they should

    boxes = _gather(targets.boxes, samples.tube)
    mask = _gather(targets.box_mask, samples.tube) & samples.positive[..., None]
    window, chunk = plan.window(step), plan.chunk
    inside, around = mask, mask
    if options.frames == "middle":
        frames = np.arange(plan.longest)
        inside, around = mask & (frames == plan.longest // 2), mask & (frames % chunk == chunk // 2)
    head = output.head
    terms["localization"] = _tube_loss(
        head.deltas, boxes[:, :, window], inside[:, :, window], output.fed, labels
    )
    if head.first is not None:
        before = slice(window.start - chunk, window.start)
        after = slice(window.stop, window.stop + chunk)
        first = _tube_loss(
            head.first, boxes[:, :, before], around[:, :, before], output.fed[:, :, :chunk], labels
        )
        last = _tube_loss(
            head.last, boxes[:, :, after], around[:, :, after], output.fed[:, :, -chunk:], labels
        )
        # One mean over both sides, not a sum of two means.
        terms["anticipation"] = (first[0] + last[0], first[1] + last[1])
    return terms


def _classification_loss(
    detector: StepDetector, output: StepOutput, labels: Array, samples: sampling.Samples
) -> SumCount:
    weight = (samples.positive | samples.negative).astype(jnp.float32)
    if detector.classification == "softmax":
        index = jnp.where(samples.positive, labels.argmax(axis=-1) + 1, 0)
        return losses.softmax_loss(output.head.logits, index, weight)
    wanted = jnp.where(samples.positive[..., None], labels, 0.0)
    return losses.sigmoid_loss(output.head.logits, wanted, weight)


def _tube_loss(
    deltas: Array, boxes: Array, mask: Array, references: Array, labels: Array
) -> SumCount:
    """Eq. 3 for `deltas [B, N, T, R, 4]` of the assigned class; frames without box are left out."""
    if deltas.shape[3] > 1:
        index = labels.argmax(axis=-1)[:, :, None, None, None]
        deltas = jnp.take_along_axis(deltas, index, axis=3)
    wanted = box_ops.encode_boxes(boxes, references)
    return losses.box_loss(deltas[:, :, :, 0], wanted, mask.astype(jnp.float32))


def _gather(values: Array, index: Array) -> Array:
    """`[B, G, ...]` at `[B, N]` -> `[B, N, ...]`."""
    return jax.vmap(lambda value, chosen: value[chosen])(values, index)
