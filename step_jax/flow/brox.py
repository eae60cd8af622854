"""High accuracy optical flow based on a theory for warping (Brox et al., ECCV 2004), in JAX."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from step_jax.errors import InputError
from step_jax.flow.brox_energy import linear_system, linearise
from step_jax.flow.brox_options import BroxOptions
from step_jax.flow.red_black import solve

_SMALLEST_SIDE = 16
_ACCELERATOR_BATCH = 16


class BroxFlow:
    """`flow(first, second)`: grey uint8 [B, H, W] twice -> float32 [B, H, W, 2] in pixels.

    Computes `batch` pairs at once, spread over the devices of this process, and compiles once for
    each size of frames. batch: None is one pair on a CPU, where more are not faster, else 16 a
    device.
    """

    def __init__(self, options: BroxOptions, *, batch: int | None = None):
        devices = jax.local_devices()
        if batch is None:
            batch = len(devices) * (1 if devices[0].platform == "cpu" else _ACCELERATOR_BATCH)
        devices = devices[:batch]
        self.batch = len(devices) * math.ceil(batch / len(devices))
        self._compute = jax.jit(
            jax.shard_map(
                functools.partial(_flow_of_grey, options=options),
                mesh=jax.sharding.Mesh(np.array(devices), ("pair",)),
                in_specs=jax.P("pair"),
                out_specs=jax.P("pair"),
                check_vma=False,
            )
        )

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        height, width = first.shape[1:]
        if min(height, width) < 2:
            raise InputError(f"frames are {width}x{height} pixels; Brox flow needs 2x2 at least")
        starts = range(0, len(first), self.batch)
        return np.concatenate([self._batch(first[s:], second[s:]) for s in starts])

    def _batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The first `batch` pairs; the last one is repeated where there are fewer."""
        count = min(len(first), self.batch)
        chosen = np.minimum(np.arange(self.batch), count - 1)
        return np.asarray(self._compute(first[chosen], second[chosen]))[:count]


def _flow_of_grey(first: jax.Array, second: jax.Array, *, options: BroxOptions) -> jax.Array:
    return brox_flow(first.astype(jnp.float32) / 255, second.astype(jnp.float32) / 255, options)


def brox_flow(first: jax.Array, second: jax.Array, options: BroxOptions) -> jax.Array:
    """The flow from `first` to `second` [B, H, W] in [0, 1]: float32 [B, H, W, 2] (x, y) in px.

    From the coarsest level of an image pyramid to the finest, the second frame is warped by the
    flow found so far, and the flow then improved (their outer fixed point iteration).
    """
    flow = None
    for size in reversed(pyramid_sizes(*first.shape[1:], options=options)):
        frames = _resize(first, size), _resize(second, size)
        flow = jnp.zeros((*frames[0].shape, 2)) if flow is None else _enlarge(flow, size)
        flow = improve(*frames, flow, options)
    return flow


def pyramid_sizes(height: int, width: int, *, options: BroxOptions) -> list[tuple[int, int]]:
    """Height and width of the levels, finest first; the last is the first below 16 px."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= _SMALLEST_SIDE and len(sizes) < options.outer_iterations:
        scale = options.scale_factor ** len(sizes)
        sizes.append((math.ceil(height * scale), math.ceil(width * scale)))
    return sizes


def improve(first: jax.Array, second: jax.Array, flow: jax.Array, options: BroxOptions):
    """One warp: the flow [B, H, W, 2] that minimises the energy linearised around `flow`."""
    constancy = linearise(first, second, flow)

    def renew_weights(_, current):
        system = linear_system(constancy, flow, current, options)
        return solve(system, current, sweeps=options.solver_iterations)

    return jax.lax.fori_loop(0, options.inner_iterations, renew_weights, flow)


def _resize(frames: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A triangle filter as wide as the new pixels, so that shrinking does not alias."""
    return jax.image.resize(frames, (frames.shape[0], *size), "linear")


def _enlarge(flow: jax.Array, size: tuple[int, int]) -> jax.Array:
    batch, height, width, _ = flow.shape
    ratio = jnp.array([size[1] / width, size[0] / height], flow.dtype)
    return ratio * jax.image.resize(flow, (batch, *size, 2), "cubic")
