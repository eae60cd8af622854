"""Choosing positive and negative samples (Section 3.4), with fixed shapes, under `jit`.

Sampling without replacement with probability proportional to a weight is exactly the top-k of
log(weight) + Gumbel noise, so that neither a host callback nor a loop is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from step_jax.errors import InputError

Array = jax.Array

POSITIVE_WEIGHTS = ("score", "uniform")
NEGATIVE_WEIGHTS = ("score", "softmax", "uniform")


class Samples(NamedTuple):
    """N chosen proposals of one clip; slots beyond the chosen ones carry zero masks.

    Attributes:
      index: int32 `[N]`, the proposal of each slot.
      tube: int32 `[N]`, the ground-truth tube of a positive; 0, meaningless, for others.
      positive: bool `[N]`.
      negative: bool `[N]`.
    """

    index: Array
    tube: Array
    positive: Array
    negative: Array


def sample_proposals(
    key: Array,
    overlaps: Array,
    tube_mask: Array,
    scores: Array,
    *,
    threshold: float,
    max_positives: int,
    negatives_per_positive: int,
    background_negatives: int,
    positive_weights: str = "score",
    negative_weights: str = "score",
    keep_claims: bool = False,
    claim_without_overlap: bool = False,
) -> Samples:
    """Samples positives and negatives of one clip.

    Args:
      key: random key.
      overlaps: `[G, M]`, tube overlap of each ground-truth tube with each proposal.
      tube_mask: bool `[G]`, False for padding.
      scores: `[M]`, the previous step's highest class score; at the first step the highest overlap.
      threshold: tau of this step; proposals above it are positives.
      max_positives: |P| at most.
      negatives_per_positive: |N| at most, per positive.
      background_negatives: |N| at most in a clip without any ground-truth tube.
      positive_weights: how unclaimed positives are drawn, "score" (Section 3.4: probability
        proportional to the score) or "uniform" (the released model).
      negative_weights: "score" (Section 3.4: probability proportional to the score), "softmax" (to
        exp(score), the released model's) or "uniform" (no hard-aware sampling).
      keep_claims: whether a proposal that a tube claimed belongs to that tube (the released model)
        rather than to the tube it overlaps most (the paper).
      claim_without_overlap: whether a tube claims a proposal although it overlaps none.

    Returns:
      min(M, max_positives + max(all negatives)) slots: positives first, then negatives.
    """
    check_weights(positive_weights, negative_weights)
    claimer, eligible = roles(
        overlaps, tube_mask, threshold=threshold, claim_without_overlap=claim_without_overlap
    )
    claimed = claimer >= 0
    owner = _of_real(overlaps, tube_mask).argmax(axis=0)
    if keep_claims:
        owner = jnp.where(claimed, claimer, owner)

    key_positive, key_negative = jax.random.split(key)
    number = overlaps.shape[1]
    max_negatives = max(max_positives * negatives_per_positive, background_negatives)
    log_weights = {
        "score": jnp.log(jnp.maximum(scores, 1e-6)),
        "softmax": scores,
        "uniform": jnp.zeros_like(scores),
    }
    # A claimed proposal always goes before the others: each tube has at least one positive.
    weights = jnp.where(claimed, 1e3, log_weights[positive_weights])
    order = _gumbel(key_positive, weights, eligible)
    positive_index, positive = _top(order, min(max_positives, number))
    order = _gumbel(key_negative, log_weights[negative_weights], ~eligible)
    negative_index, negative = _top(order, min(max_negatives, number))
    allowed = jnp.where(
        tube_mask.any(), positive.sum() * negatives_per_positive, background_negatives
    )
    negative &= jnp.arange(negative.shape[0]) < allowed
    return _packed(positive_index, positive, negative_index, negative, owner, number)


def roles(
    overlaps: Array, tube_mask: Array, *, threshold: float, claim_without_overlap: bool = False
) -> tuple[Array, Array]:
    """What a clip's proposals may be drawn as; the arguments are `sample_proposals`'.

    Returns:
      claimer: int32 `[M]`, the tube that claims each proposal, -1 for none.
      eligible: bool `[M]`, whether it may be a positive; all others may be negatives.
    """
    overlaps = _of_real(overlaps, tube_mask)
    claimer = claim_proposals(overlaps, claim_without_overlap=claim_without_overlap)
    return claimer, (claimer >= 0) | (overlaps.max(axis=0) > threshold)


def claim_proposals(overlaps: Array, *, claim_without_overlap: bool = False) -> Array:
    """Lets each ground-truth tube claim its best proposal; `[G, M]` -> claimer `[M]`, -1 if none.

    Tubes choose in descending order of their best overlap (ties: the lower index), each among the
    proposals still free, so that two tubes never claim the same. Padded tubes have negative
    overlaps and claim nothing.
    """
    number = overlaps.shape[1]
    floor = -0.5 if claim_without_overlap else 0.0
    order = jnp.argsort(-overlaps.max(axis=1), stable=True)
    claimer = jnp.full(number, -1, jnp.int32)
    for tube in order:
        free = jnp.where(claimer < 0, overlaps[tube], -1.0)
        choice = free.argmax()
        takes = free[choice] > floor
        claimer = claimer.at[choice].set(jnp.where(takes, tube.astype(jnp.int32), claimer[choice]))
    return claimer


def all_tubes(tube_mask: Array) -> Samples:
    """The ground-truth tubes of a clip, `tube_mask [G]`, as samples of themselves; no negatives."""
    index = jnp.arange(tube_mask.shape[0], dtype=jnp.int32)
    return Samples(index, jnp.where(tube_mask, index, 0), tube_mask, jnp.zeros_like(tube_mask))


def check_weights(positive_weights: str, negative_weights: str) -> None:
    """Raises InputError for a name that is none."""
    for name, value, allowed in (
        ("positive_weights", positive_weights, POSITIVE_WEIGHTS),
        ("negative_weights", negative_weights, NEGATIVE_WEIGHTS),
    ):
        if value not in allowed:
            raise InputError(f"loss.{name} {value!r}: expected one of {', '.join(allowed)}")


def _of_real(overlaps: Array, tube_mask: Array) -> Array:
    """Padded tubes overlap less than nothing."""
    return jnp.where(tube_mask[:, None], overlaps, -1.0)


def _gumbel(key: Array, log_weights: Array, mask: Array) -> Array:
    noise = jax.random.gumbel(key, log_weights.shape)
    return jnp.where(mask, log_weights + noise, -jnp.inf)


def _top(order: Array, k: int) -> tuple[Array, Array]:
    """Indices of the k greatest, and which of them are allowed at all."""
    values, index = jax.lax.top_k(order, k)
    return index.astype(jnp.int32), values > -jnp.inf


def _packed(
    positive_index: Array,
    positive: Array,
    negative_index: Array,
    negative: Array,
    owner: Array,
    number: int,
) -> Samples:
    """Puts the chosen slots in front, in as few slots as can ever be chosen."""
    index = jnp.concatenate([positive_index, negative_index])
    is_positive = jnp.concatenate([positive, jnp.zeros_like(negative)])
    is_negative = jnp.concatenate([jnp.zeros_like(positive), negative])
    size = min(number, index.shape[0])
    front = jnp.argsort(~(is_positive | is_negative), stable=True)[:size]
    index, is_positive, is_negative = index[front], is_positive[front], is_negative[front]
    return Samples(index, jnp.where(is_positive, owner[index], 0), is_positive, is_negative)
