"""Optical flow of videos, as the flow images that the detector reads. JAX is loaded by brox alone.

    python -m step_jax.flow --method dis --input videos --output flow

docs/flow.md tells which method when.
"""

from step_jax.flow.encoding import BOUND_PX, decode_flow, encode_flow
from step_jax.flow.methods import METHODS, flow_images, make_estimator

__all__ = [
    "BOUND_PX",
    "METHODS",
    "decode_flow",
    "encode_flow",
    "flow_images",
    "make_estimator",
]
