"""The parameters of Brox's optical flow, named as OpenCV names them. No JAX here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from step_jax.errors import InputError

_RANGES = {
    "alpha": (0.0, math.inf),
    "gamma": (0.0, math.inf),
    "scale_factor": (0.1, 0.99),
    "inner_iterations": (1, 10_000),
    "outer_iterations": (1, 10_000),
    "solver_iterations": (1, 10_000),
}


@dataclass(frozen=True, kw_only=True)
class BroxOptions:
    """The defaults are those of the distributed flow of UCF101-24, for grey values in [0, 1].

    alpha: weight of smoothness. gamma: weight of the constancy of the gradient against that of the
      grey value.
    scale_factor: size of a pyramid level relative to the next finer one.
    outer_iterations: levels at most; each is one warp of the second frame. The pyramid ends sooner,
      with the first level of which a side is below 16 px (the 14th at 320x240).
    inner_iterations: updates of the robust weights (the lagged nonlinearity) a level.
    solver_iterations: sweeps of the linear solver between two of those.
    """

    alpha: float = 0.197
    gamma: float = 50.0
    scale_factor: float = 0.8
    inner_iterations: int = 10
    outer_iterations: int = 77
    solver_iterations: int = 10

    def __post_init__(self):
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _RANGES[field.name]
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(
                    f"Brox flow: {field.name} is {value}; expected {low} to {high}, as a number"
                )
        if not self.alpha:
            raise InputError("Brox flow: alpha is 0; without smoothness the flow is not defined")
