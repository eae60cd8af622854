"""The loss of all progressive steps (Section 3.4, Eqs. 2 and 3)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import boxes as box_ops
from step_jax import losses, parallel, sampling, training_targets
from step_jax.loss_options import LossOptions
from step_jax.models.step import Features, StepDetector, StepOutput
from step_jax.step_samples import Chosen, choose, infer_candidates
from step_jax.training_targets import Targets

Array = jax.Array
PyTree = Any
SumCount = tuple[Array, Array]
Terms = dict[str, SumCount]


def normalise_clips(clips: Array) -> Array:
    """uint8 -> float32 in [-1, 1]; on the device, because bytes travel four times faster."""
    return clips.astype(jnp.float32) * (2.0 / 255.0) - 1.0


def total_loss(
    params: PyTree,
    model_state: PyTree,
    detector: StepDetector,
    proposals: Array,
    batch: PyTree,
    key: Array,
    *,
    options: LossOptions,
) -> tuple[Array, tuple[Terms, PyTree]]:
    """This device's share of the loss: its sums divided by the counts of the global batch.

    To be called inside a function that `parallel.data_parallel` wraps. Beside the loss come its
    terms and how the samples look, `NAME_STEP` -> (sum, count) of this device, and the collections
    of `model_state` that training updates, if any.
    """
    variables = {"params": params, **model_state}
    targets = loss_targets(detector, batch, options)
    features, updated = training_features(detector, variables, normalise_clips(batch["clips"]))
    index = parallel.example_index(len(batch["clips"]))
    chosen, metrics = choose_all(
        detector, variables, features, proposals, batch, key, index, options=options
    )
    terms = step_terms(detector, variables, features, chosen, targets, options=options)
    total = weighted_loss(terms, global_counts(terms), options)
    return total, (metrics | terms | {"loss": share_of_loss(total)}, updated)


def choose_all(
    detector: StepDetector,
    variables: PyTree,
    features: Features,
    proposals: Array,
    batch: PyTree,
    key: Array,
    index: Array,
    *,
    options: LossOptions,
) -> tuple[list[Chosen], Terms]:
    """What every step is trained on, without gradient, and how it looks, as `NAME_STEP`.

    `index` `[B]` are the clips' places in the global batch.
    """
    targets, real = loss_targets(detector, batch, options), example_mask(batch)
    candidates = infer_candidates(
        detector, variables, features, proposals, targets,
        image_size=batch["clips"].shape[2:4], options=options,
    )  # fmt: skip
    chosen, metrics = [], {}
    for step, candidate in enumerate(candidates):
        one, seen = choose(
            step, candidate, targets, real, key, index, detector=detector, options=options
        )
        chosen.append(one)
        metrics |= {f"{name}_{step + 1}": pair for name, pair in seen.items()}
    return chosen, metrics


def step_terms(
    detector: StepDetector,
    variables: PyTree,
    features: Features,
    chosen: list[Chosen],
    targets: Targets,
    *,
    options: LossOptions,
) -> Terms:
    """The losses of all steps' samples, `NAME_STEP` -> (sum, count)."""
    terms = {}
    for step, (tubes, samples, dropout_keys) in enumerate(chosen):
        output = detector.apply(
            variables, step, features, tubes, dropout_keys=dropout_keys, method="refine"
        )
        found = sampled_losses(detector, step, output, samples, targets, options)
        terms |= {f"{name}_{step + 1}": pair for name, pair in found.items()}
    return terms


def global_counts(terms: Terms) -> dict[str, Array]:
    """The counts of the terms, over all devices."""
    counts = {name: count for name, (_, count) in terms.items()}
    return parallel.sum_over_devices(jax.lax.stop_gradient(counts))


def weighted_loss(terms: Terms, counts: dict[str, Array], options: LossOptions) -> Array:
    """Eq. 2, summed over the steps: the terms' sums over `counts`, which are the global batch's."""
    weights = {
        "classification": 1.0,
        "localization": options.localization_weight,
        "anticipation": options.anticipation_weight,
    }
    return sum(
        weights[name.rpartition("_")[0]] * value / jnp.maximum(counts[name], 1.0)
        for name, (value, _) in terms.items()
    )


def share_of_loss(total: Array) -> SumCount:
    """A device's share as a metric: the devices' sums add up to the loss, their counts to 1."""
    return jax.lax.stop_gradient(total), jnp.float32(1) / parallel.axis_size()


def loss_targets(detector: StepDetector, batch: PyTree, options: LossOptions) -> Targets:
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


def training_features(
    detector: StepDetector, variables: PyTree, clips: Array
) -> tuple[Features, PyTree]:
    """Features of normalised `clips`, and the collections of variables that they update.

    The only such collection is "batch_stats", there if normalisation learns its statistics.
    """
    if "batch_stats" not in variables:
        return detector.apply(variables, clips, method="features"), {}
    return detector.apply(variables, clips, train=True, method="features", mutable=["batch_stats"])


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
