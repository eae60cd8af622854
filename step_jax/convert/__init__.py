"""Foreign weights as ours, and ours in the released format; see docs/weights.md."""

from step_jax.convert.released import load_released

__all__ = ["load_released"]
