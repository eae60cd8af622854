"""How far a detector in bfloat16 is from itself in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import configuration
from step_jax import inference
from step_jax.detector_loss import normalise_clips
from step_jax.models.step import StepDetector, StepOutput

PyTree = Any


def deviation(described: dict, variables: PyTree, clips: np.ndarray) -> list[dict]:
    """The largest and the mean absolute difference of every step's outputs, JSON-ready.

    Twice: "free" lets each run on its own tubes, as users do; "fed" feeds both the float32 run's,
    so that the differences of one step do not add to those of the steps before.

    Args:
      described: see `inference.describe`; its precision does not matter.
      variables: the detector's.
      clips: uint8 `[B, T_in, S, S, channels]`.
    """
    predictors = [
        inference.abstract_predictor(configuration.with_precision(described, name))
        for name in ("float32", "bfloat16")
    ]
    exact, rough = (predictor.detector for predictor in predictors)
    tubes = predictors[0].initial_tubes
    expected = jax.jit(exact.apply)(variables, normalise_clips(clips), tubes)
    free = jax.jit(rough.apply)(variables, normalise_clips(clips), tubes)
    fed = jax.jit(_refine_all, static_argnums=0)(
        rough, variables, normalise_clips(clips), [output.fed for output in expected]
    )
    return [
        {"run": run, "step": step + 1} | _compare(exact, one, other)
        for run, outputs in (("free", free), ("fed", fed))
        for step, (one, other) in enumerate(zip(expected, outputs, strict=True))
    ]


def _refine_all(
    detector: StepDetector, variables: PyTree, clips: jax.Array, fed: list[jax.Array]
) -> list[StepOutput]:
    features = detector.apply(variables, clips, method="features")
    return [
        detector.apply(variables, step, features, tubes, method="refine")
        for step, tubes in enumerate(fed)
    ]


def _compare(detector: StepDetector, one: StepOutput, other: StepOutput) -> dict:
    pairs = {
        "logits": (one.head.logits, other.head.logits),
        "scores": (detector.class_scores(one), detector.class_scores(other)),
        "deltas": (one.head.deltas, other.head.deltas),
        "boxes_px": (detector.class_tubes(one), detector.class_tubes(other)),
    }
    result = {}
    for name, (expected, found) in pairs.items():
        difference = np.abs(np.asarray(expected, np.float64) - np.asarray(found, np.float64))
        result[name] = {
            "largest": float(difference.max()),
            "mean": float(difference.mean()),
            "spread": float(jnp.std(expected)),
        }
    return result


def table(rows: list[dict]) -> str:
    """Largest and mean differences, and the standard deviation of what differs."""
    lines = ["bfloat16 less float32: largest / mean difference (standard deviation of the values)"]
    for row in rows:
        cells = [
            f"{name} {one['largest']:.2g} / {one['mean']:.2g} ({one['spread']:.2g})"
            for name, one in row.items()
            if isinstance(one, dict)
        ]
        lines.append(f"{row['run']:<5}step {row['step']}: " + ", ".join(cells))
    return "\n".join(lines)
