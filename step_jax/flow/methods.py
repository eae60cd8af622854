"""From frames to flow images, one method or another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from step_jax.errors import InputError
from step_jax.flow import opencv_flow
from step_jax.flow.brox_options import BroxOptions
from step_jax.flow.encoding import encode_flow

METHODS = ("dis", "tvl1", "brox")


@dataclasses.dataclass(frozen=True)
class Estimator:
    """A method with its parameters chosen.

    compute: grey uint8 [B, H, W] of the first and of the second frames -> float32 [B, H, W, 2],
      the displacement in pixels (x, y) from the first to the second, at the first's pixels.
    parameters: all of them, JSON-ready. batch: how many pairs to give to `compute`.
    """

    method: str
    parameters: Mapping[str, Any]
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]
    batch: int = 1


def make_estimator(method: str, *, batch: int | None = None, **parameters: Any) -> Estimator:
    """An estimator of `METHODS`.

    Args:
      batch: pairs that brox computes at once; None: what suits the device.
      parameters: `preset` of dis (ultrafast, fast or medium), the fields of `BroxOptions` of brox;
        tvl1 has none.

    Raises InputError for an unknown method or parameter and where OpenCV lacks TV-L1.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch is {batch}; expected at least 1 pair of frames")
    makers = {"dis": _dis, "tvl1": _tvl1, "brox": _brox}
    if method not in makers:
        raise InputError(f"method {method!r}: unknown; expected one of {', '.join(METHODS)}")
    try:
        return makers[method](batch, **parameters)
    except TypeError as error:
        raise InputError(f"method {method}: {error}") from error


def flow_images(
    frames: Iterable[np.ndarray], *, method: str, batch: int | None = None, **parameters: Any
) -> Iterator[np.ndarray]:
    """The flow images of a video, as many as frames; the last repeats the flow of the last pair.

    Holds one batch of frames at a time.

    Args:
      frames: RGB uint8 [H, W, 3] of one size, in order.
      method, batch, parameters: see `make_estimator`.

    Yields uint8 [H, W, 3], see `encode_flow`; zero flow for a single frame, nothing for none.
    Raises InputError where frames differ in size.
    """
    return encoded_flows(frames, make_estimator(method, batch=batch, **parameters))


def encoded_flows(frames: Iterable[np.ndarray], estimator: Estimator) -> Iterator[np.ndarray]:
    """As `flow_images`, by an estimator that is there already."""
    grey, image = _grey(frames), None
    held = list(itertools.islice(grey, 1))
    while more := list(itertools.islice(grey, estimator.batch)):
        held = held[-1:] + more
        for flow in estimator.compute(np.stack(held[:-1]), np.stack(held[1:])):
            image = encode_flow(flow)
            yield image
    if held:
        yield encode_flow(np.zeros((*held[0].shape, 2))) if image is None else image


def _grey(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for number, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.shape != shape:
            raise InputError(
                f"frame {number} is {frame.shape[1]}x{frame.shape[0]} pixels, those before it are "
                f"{shape[1]}x{shape[0]}; flow needs frames of one size"
            )
        yield cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _dis(batch: int | None, preset: str = "medium") -> Estimator:
    flow = opencv_flow.dis(preset)
    return Estimator("dis", {"preset": preset, **flow.parameters()}, flow)


def _tvl1(batch: int | None) -> Estimator:
    flow = opencv_flow.tvl1()
    return Estimator("tvl1", flow.parameters(), flow)


def _brox(batch: int | None, **options: Any) -> Estimator:
    options = BroxOptions(**options)
    from step_jax.flow.brox import BroxFlow  # the one method that needs JAX

    flow = BroxFlow(options, batch=batch)
    return Estimator("brox", dataclasses.asdict(options), flow, flow.batch)
