"""How a training step chooses samples and weighs its losses."""

from __future__ import annotations

import dataclasses

from step_jax import sampling, training_targets
from step_jax.errors import InputError

SAMPLES = ("proposals", "ground_truth")


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
