"""The world behind the actors: ground, clutter, a wall; and a camera that drifts over it."""

from __future__ import annotations

import cv2
import numpy as np

SCENES = ("court", "grass", "street", "tiles", "dunes", "confetti")

WALLS = {"red": (205, 40, 45), "blue": (40, 70, 215)}  # RGB
WALL_HEIGHT = 0.16  # of the frame, where the camera is level

MARGIN = 0.25  # of world beyond the frame on each side, in frame sides; bounds the camera
MAX_PAN = 0.5 / 96  # of a frame side a frame


def paint(rng: np.random.Generator, scene: str, wall: str, *, size: int) -> np.ndarray:
    """The world as one RGB uint8 image of (1 + 2 MARGIN) frame sides, with a wall above."""
    side = round(size * (1 + 2 * MARGIN))
    world = _PAINTERS[scene](rng, side)
    world *= 1 + 0.25 * _noise(rng, side, scale=side / 5)[..., None]
    world += 4 * _noise(rng, side, scale=1.0)[..., None]
    world = np.clip(world, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(2, 6)):
        _place_clutter(rng, world)
    _build(rng, world, wall, size=size)
    return world


def pan(rng: np.random.Generator, num_frames: int, *, size: int) -> np.ndarray:
    """Where the camera looks: [T, 2] pixels of shift, a slow swing plus a slight shake."""
    t = np.arange(num_frames)[:, None]
    period = rng.uniform(100, 220, 2)
    speed = rng.uniform(0, MAX_PAN, 2) * [1, 0.5]
    swing = speed * period / (2 * np.pi) * np.sin(2 * np.pi * (t / period + rng.uniform(size=2)))
    shake = 0.003 * np.sin(2 * np.pi * (t / rng.uniform(9, 25, 2) + rng.uniform(size=2)))
    return size * (swing + rng.uniform(0, 1, 2) * shake)


def look(world: np.ndarray, shift: np.ndarray, *, size: int) -> np.ndarray:
    """The frame RGB uint8 [size, size, 3] that the camera sees with its shift in pixels."""
    corner = (world.shape[0] - size) / 2 + shift
    view = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]])
    return cv2.warpAffine(
        world, view, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _noise(rng, side: int, *, scale: float) -> np.ndarray:
    """Smooth noise in [-1, 1] whose spots are about `scale` pixels large, float32 [side, side]."""
    cells = max(2, round(side / scale))
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def _tint(rng, base, spread=30) -> np.ndarray:
    return np.asarray(base, np.float32) + rng.uniform(-spread, spread, 3).astype(np.float32)


def _plain(rng, side, colour, *, rough=25) -> np.ndarray:
    """A colour with noise of three sizes on it, float32 [side, side, 3]."""
    relief = sum(_noise(rng, side, scale=scale) for scale in (2, 5, 16))
    return colour + rough / 2 * relief[..., None] * np.ones(3, np.float32)


def _court(rng, side):
    """A playing field's floor with its lines, arcs and circles."""
    world = _plain(rng, side, _tint(rng, rng.choice([(60, 110, 160), (180, 110, 70)])), rough=12)
    white, thickness = (235.0, 235.0, 235.0), max(1, side // 60)
    for _ in range(rng.integers(3, 6)):
        at = int(rng.integers(0, side))
        ends = ((at, 0), (at, side)) if rng.uniform() < 0.5 else ((0, at), (side, at))
        cv2.line(world, *ends, white, thickness, cv2.LINE_AA)
    for _ in range(rng.integers(1, 3)):
        centre = rng.integers(0, side, 2).tolist()
        cv2.circle(world, centre, int(side * rng.uniform(0.12, 0.3)), white, thickness, cv2.LINE_AA)
    return world


def _grass(rng, side):
    """Green with many short blades."""
    world = _plain(rng, side, _tint(rng, (70, 130, 50), 20), rough=35)
    for x, y in rng.integers(0, side, (side * 3, 2)):
        blade = _tint(rng, (80, 150, 50), 45).tolist()
        tip = (int(x + rng.integers(-2, 3)), int(y - rng.integers(2, 7)))
        cv2.line(world, (int(x), int(y)), tip, blade, 1)
    return world


def _street(rng, side):
    """Grey ground with oblique stripes."""
    world = _plain(rng, side, _tint(rng, (115, 115, 120), 25), rough=30)
    slope, pitch = rng.uniform(-1, 1), rng.uniform(side / 12, side / 5)
    y, x = np.mgrid[:side, :side]
    world[((x + slope * y) % pitch) < pitch * rng.uniform(0.2, 0.5)] += rng.uniform(-60, 60)
    return world


def _tiles(rng, side):
    """A checkerboard of two colours."""
    world = _plain(rng, side, _tint(rng, (140, 130, 120), 60), rough=18)
    pitch = rng.uniform(side / 14, side / 6)
    y, x = np.mgrid[:side, :side]
    world[((x // pitch + y // pitch) % 2).astype(bool)] += _tint(rng, (0, 0, 0), 70)
    return world


def _dunes(rng, side):
    """Sand coloured bands of irregular height."""
    height = np.linspace(0, rng.uniform(20, 50), side)[:, None]
    bands = np.sin(height + 3 * _noise(rng, side, scale=side / 4)).astype(np.float32)
    return _plain(rng, side, _tint(rng, (190, 165, 120)), rough=25) + 30 * bands[..., None]


def _confetti(rng, side):
    """Blobs of every colour."""
    world = _plain(rng, side, _tint(rng, (128, 128, 128), 70), rough=20)
    for centre in rng.integers(0, side, (rng.integers(30, 90), 2)):
        axes = rng.integers(2, max(3, side // 14), 2).tolist()
        colour = rng.uniform(20, 235, 3).tolist()
        cv2.ellipse(world, centre.tolist(), axes, rng.uniform(0, 180), 0, 360, colour, -1)
    return world


_PAINTERS = {
    "court": _court,
    "grass": _grass,
    "street": _street,
    "tiles": _tiles,
    "dunes": _dunes,
    "confetti": _confetti,
}


def _build(rng, world: np.ndarray, wall: str, *, size: int):
    """A wall along the upper edge of what the camera sees."""
    rows = round(size * (MARGIN + WALL_HEIGHT))
    shade = 12 * _noise(rng, len(world), scale=size / 8)[:rows, :, None]
    world[:rows] = np.clip(np.float32(WALLS[wall]) + shade, 0, 255)


def _place_clutter(rng, world: np.ndarray):
    """A pole or a crate: upright, textured things of an actor's size that are not actors."""
    side = len(world)
    x, y = rng.integers(0, side, 2).tolist()
    pole = rng.uniform() < 0.5
    width = int(side * (rng.uniform(0.015, 0.04) if pole else rng.uniform(0.07, 0.17)))
    height = int(side * (rng.uniform(0.2, 0.5) if pole else rng.uniform(0.07, 0.2)))
    body, trim = (rng.uniform(20, 235, 3).tolist() for _ in range(2))
    corner = (x + width, y + height)
    cv2.rectangle(world, (x, y), corner, body, -1)
    cv2.rectangle(world, (x, y), corner, trim, max(1, side // 90))
    if pole:
        cv2.circle(world, (x + width // 2, y), max(2, width), trim, -1, cv2.LINE_AA)
    else:
        cv2.line(world, (x, y), corner, trim, max(1, side // 90), cv2.LINE_AA)
