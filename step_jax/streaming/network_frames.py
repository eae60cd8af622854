"""The frames of a video as the detector reads them: in its size, with the flow after them."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

import numpy as np

from step_jax.flow.methods import Estimator, encoded_flows
from step_jax.modality import Modality
from step_jax.video import resize


def network_frames(
    frames: Iterable[np.ndarray],
    *,
    modality: Modality,
    side: int,
    estimator: Estimator | None = None,
    flow_side: int = 0,
) -> Iterator[np.ndarray]:
    """Yields uint8 `[S, S, channels]` of every frame, in order: as the records' windows have them.

    Flow is computed at the frames' own size, or a smaller one, and resized like them. A frame comes
    as soon as its last flow image is there: `modality.lookahead` frames later, and what the
    estimator takes at once. So many resized frames are held.

    Args:
      frames: RGB uint8 `[H, W, 3]` of one size.
      modality: what the channels are.
      side: S.
      estimator: computes the flow; needed where the modality has flow.
      flow_side: frames whose shorter side is longer are shrunk to it before; 0: they are not.
    """
    if not modality.has_flow:
        return (resize(frame, width=side, height=side) for frame in frames)
    return _frames_with_flow(frames, modality, side, estimator, flow_side)


def _frames_with_flow(
    frames: Iterable[np.ndarray],
    modality: Modality,
    side: int,
    estimator: Estimator,
    flow_side: int,
) -> Iterator[np.ndarray]:
    waiting = collections.deque()  # lists of a resized frame, or of nothing
    images = collections.deque(maxlen=modality.flow_frames)

    def passed_on() -> Iterator[np.ndarray]:
        for frame in frames:
            rgb = [resize(frame, width=side, height=side)] if modality.has_rgb else []
            waiting.append(rgb)
            yield _shrunk(frame, flow_side)

    flows = encoded_flows(passed_on(), estimator)
    for image in _last_repeated(flows, times=modality.lookahead, side=side):
        images.append(image)
        if len(images) == modality.flow_frames:
            yield np.concatenate([*waiting.popleft(), *images], axis=-1)


def _last_repeated(images: Iterable[np.ndarray], *, times: int, side: int) -> Iterator[np.ndarray]:
    """The images, resized, and the last one some times more."""
    image = None
    for own_size in images:
        image = resize(own_size, width=side, height=side)
        yield image
    if image is not None:
        yield from [image] * times


def _shrunk(frame: np.ndarray, short_side: int) -> np.ndarray:
    """As `python -m step_jax.flow --short_side` does."""
    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    if not 0 < scale < 1:
        return frame
    return resize(frame, width=round(width * scale), height=round(height * scale))
