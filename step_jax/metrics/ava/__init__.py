"""AVA's frame-mAP as the official evaluation counts it, in its three versions.

`python -m step_jax.metrics.ava` evaluates files; docs/ava.md tells the protocols. numpy and pyarrow
alone, no JAX.
"""

from step_jax.metrics.ava.keyframe_map import AvaMap, ava_map
from step_jax.metrics.ava.protocol import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "AvaMap", "Protocol", "ava_map"]
