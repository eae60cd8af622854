"""Pairs of frames with known optical flow: a scene drawn large, sampled once before its motion and
once after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

HEIGHT, WIDTH = 240, 320

_MARGIN_PX = 40
_OVERSAMPLING = 4
_LEAVES = 2500


class Scene(NamedTuple):
    """first, second: grey uint8 [H, W]. flow: float32 [H, W, 2] px, the truth. visible: bool
    [H, W], the pixels of the first frame that the second shows, too.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    visible: np.ndarray


def scenes() -> Iterator[Scene]:
    """Motions small and large, an occlusion, disturbances, and frames without texture."""
    yield moved("0.3 px", _shift(0.3, -0.2))
    yield moved("3 px", _shift(3, 1))
    yield moved("10 px", _shift(-8, 6))
    yield moved("15 px", _shift(12, 9))
    yield moved("rotation 3°, zoom 1.04", _similarity(degrees=3, zoom=1.04))
    yield square_over_background()
    yield disturbed(moved("3 px, noise 4 levels", _shift(3, 1)), noise=4)
    yield disturbed(moved("3 px, 20 levels brighter", _shift(3, 1)), brighter=20)
    yield _still("the same frame twice", texture())
    yield _still("constant frames", np.full((HEIGHT, WIDTH), 100, np.uint8))
    yield disturbed(_still("constant frames, noise", np.full((HEIGHT, WIDTH), 100)), noise=4)


def moved(name: str, affine: np.ndarray, *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Scene:
    """A texture that moves as a whole: pixel p goes to `affine` [2, 3] applied to (p, 1)."""
    first, second = sample(_canvas(size), None, size), sample(_canvas(size), affine, size)
    points = _grid(size)
    after = points @ affine[:, :2].T + affine[:, 2]
    inside = ((after >= 0) & (after <= np.array(size)[::-1] - 1)).all(-1)
    return Scene(name, first, second, (after - points).astype(np.float32), inside)


def square_over_background(side: int = 80) -> Scene:
    """A textured square goes 8 px to the right and 4 up, the background 2 px to the left."""
    background = moved("background", _shift(-2, 0))
    square = texture(seed=1)[:side, :side]
    first, second = background.first.copy(), background.second.copy()
    flow, visible = background.flow.copy(), background.visible.copy()
    y, x = (HEIGHT - side) // 2, (WIDTH - side) // 2
    first[y : y + side, x : x + side] = square
    second[y - 4 : y - 4 + side, x + 8 : x + 8 + side] = square
    visible[y - 4 : y - 4 + side, x + 10 : x + 10 + side] = False  # they went 2 px the other way
    visible[y : y + side, x : x + side] = True
    flow[y : y + side, x : x + side] = 8, -4
    return Scene("a square moves 8 px, occludes", first, second, flow, visible)


def disturbed(scene: Scene, *, noise: float = 0, brighter: float = 0) -> Scene:
    """With Gaussian noise in both frames, its deviation in grey levels, and the second brighter."""
    rng = np.random.default_rng(2)

    def disturb(frame, offset):
        values = frame + rng.normal(0, noise, frame.shape) + offset
        return np.rint(values).clip(0, 255).astype(np.uint8)

    return scene._replace(first=disturb(scene.first, 0), second=disturb(scene.second, brighter))


def texture(size: tuple[int, int] = (HEIGHT, WIDTH), *, seed: int = 0) -> np.ndarray:
    """Overlapping discs of all sizes and grey values, which has the statistics of photographs."""
    return sample(_canvas(size, seed), None, size)


def sample(canvas: np.ndarray, affine: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """The frame after a motion; each pixel is the mean of the samples of the canvas in it."""
    height, width = size
    fine = _grid((height * _OVERSAMPLING, width * _OVERSAMPLING))
    points = (fine + 0.5) / _OVERSAMPLING - 0.5
    if affine is not None:
        points = (points - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
    at = ((points + _MARGIN_PX + 0.5) * _OVERSAMPLING - 0.5).astype(np.float32)
    samples = cv2.remap(canvas, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    frame = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    return np.rint(frame).astype(np.uint8)


def _still(name: str, frame: np.ndarray) -> Scene:
    zero = np.zeros((*frame.shape, 2), np.float32)
    return Scene(name, frame, frame, zero, np.ones(frame.shape, bool))


def _canvas(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Float32, `_OVERSAMPLING` times as fine as a frame and `_MARGIN_PX` larger on every side."""
    rng = np.random.default_rng(seed)
    height, width = ((side + 2 * _MARGIN_PX) * _OVERSAMPLING for side in size)
    canvas = np.full((height, width), 128, np.float32)
    for radius in 60 * rng.power(0.35, _LEAVES):
        centre = int(rng.integers(width)), int(rng.integers(height))
        grey = rng.uniform(30, 225)
        cv2.circle(canvas, centre, int(_OVERSAMPLING * max(1.5, radius)), grey, cv2.FILLED)
    canvas = (canvas + _grain(canvas.shape, rng)).clip(0, 255).astype(np.float32)
    return cv2.GaussianBlur(canvas, (0, 0), 0.5 * _OVERSAMPLING)  # a lens


def _grain(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise of four scales from 2 to 16 px, what is inside of the discs."""
    scales = _OVERSAMPLING * 2 ** np.arange(1, 5)
    coarse = (rng.normal(0, 5, (size[0] // scale, size[1] // scale)) for scale in scales)
    return sum(cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC) for noise in coarse)


def _grid(size: tuple[int, int]) -> np.ndarray:
    """[H, W, 2]: x and y of every pixel."""
    return np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), axis=-1).astype(float)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y]], float)


def _similarity(*, degrees: float, zoom: float) -> np.ndarray:
    """A rotation and a zoom around the middle of the frame."""
    return cv2.getRotationMatrix2D(((WIDTH - 1) / 2, (HEIGHT - 1) / 2), degrees, zoom)
