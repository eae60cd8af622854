"""The articulated figure: drawn with its own coverage mask, so that boxes are exact."""

from __future__ import annotations

import colorsys
import itertools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from input_pipeline.moving_actors.motions import Motion

# The skeleton, in heights of the actor above its feet.
HIP, SHOULDER, HEAD, HEAD_RADIUS = 0.5, 0.8, 0.91, 0.085
HALF_WIDTH, HALF_DEPTH = 0.15, 0.085  # of the torso, an elliptic cylinder
LEG, ARM = 0.235, 0.19  # each of the two segments of a limb
LEG_RADIUS, ARM_RADIUS = 0.05, 0.04
CROUCH = 0.16  # heights that the hip sinks at full crouch

_SIDES = (1, -1)  # left and right, along the body's left axis
SUPERSAMPLING = 3
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_REACH, _TOP, _BOTTOM = 0.62, 1.32, 0.12  # the drawing's extent around the feet, in heights


@dataclass(frozen=True)
class Clothes:
    """Colours as RGB tuples of ints; `bands` are (from, to) fractions down the torso."""

    skin: tuple
    hair: tuple
    front: tuple
    back: tuple
    pattern: tuple
    bands: tuple
    sleeve: tuple
    trousers: tuple
    shoes: tuple


def dress(rng: np.random.Generator) -> Clothes:
    """Random clothes: bright or dark, plain or striped, another colour behind than in front."""
    skin = _colour(rng, hue=(0.03, 0.09), saturation=(0.25, 0.6), value=(0.35, 0.95))
    return Clothes(
        skin=skin,
        hair=_colour(rng, hue=(0.0, 0.15), saturation=(0.1, 0.8), value=(0.05, 0.6)),
        front=_colour(rng),
        back=_colour(rng),
        pattern=_colour(rng),
        bands=_bands(rng),
        sleeve=_colour(rng) if rng.uniform() < 0.6 else skin,
        trousers=_colour(rng),
        shoes=_colour(rng, value=(0.05, 0.9)),
    )


def _colour(rng, *, hue=(0.0, 1.0), saturation=(0.2, 1.0), value=(0.2, 1.0)) -> tuple:
    h, s, v = (rng.uniform(*limits) for limits in (hue, saturation, value))
    return tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(h, s, v))


def _bands(rng) -> tuple:
    count = int(rng.integers(0, 4))
    edges = (np.arange(2 * count + 1) + rng.uniform(0.2, 0.8)) / (2 * count + 1)
    return tuple((edges[2 * i], edges[2 * i + 1]) for i in range(count))


@dataclass(frozen=True)
class Sprite:
    """One drawn figure: RGB premultiplied by coverage, and coverage, both uint8, at (left, top)."""

    rgb: np.ndarray
    alpha: np.ndarray
    left: int
    top: int


def draw(clothes: Clothes, motion: Motion, t: int, *, feet: np.ndarray, height: float) -> Sprite:
    """Draws frame t of a motion with the feet at `feet` (x, y pixels) and `height` in pixels."""
    left = int(np.floor(feet[0] - _REACH * height))
    top = int(np.floor(feet[1] - _TOP * height))
    width, rows = int(2 * _REACH * height) + 2, int((_TOP + _BOTTOM) * height) + 2
    canvas = np.zeros((rows * SUPERSAMPLING, width * SUPERSAMPLING, 4), np.uint8)
    brush = _Brush(canvas, origin=feet - [left, top], height=height)
    _draw_body(brush, clothes, _Pose(motion, t))
    layer = cv2.resize(canvas, (width, rows), interpolation=cv2.INTER_AREA)
    return Sprite(rgb=layer[..., :3], alpha=layer[..., 3], left=left, top=top)


class _Pose:
    """Frame t of a motion as joints on the screen: x right, y up, in heights from the feet.

    Plain floats: for a dozen points, numpy's calls would cost more than the drawing.
    """

    def __init__(self, motion: Motion, t: int):
        yaw, crouch = float(motion.yaw[t]), float(motion.crouch[t])
        self.cos, self.sin = math.cos(yaw), math.sin(yaw)
        self.rise = -CROUCH * crouch
        self.legs = [
            self._leg(side, angle, crouch)
            for side, angle in zip(_SIDES, motion.legs[t].tolist(), strict=True)
        ]
        limbs = zip(_SIDES, motion.arms[t].tolist(), motion.raised[t].tolist(), strict=True)
        self.arms = [self._arm(*limb) for limb in limbs]

    def _project(self, forward: float, lateral: float, up: float) -> tuple[float, float]:
        """The body's forward, left and up axes on the screen, orthographic."""
        return forward * self.cos + lateral * self.sin, up + self.rise

    def _leg(self, side: int, angle: float, crouch: float) -> list[tuple[float, float]]:
        """Hip, knee, foot and toe."""
        bend = 0.25 * max(angle, 0.0) + 0.55 * crouch  # the knee of the leg in front bends
        joints = [(0.0, HIP)]
        for swing in (angle + bend, angle - bend):
            forward, up = joints[-1]
            joints.append((forward + LEG * math.sin(swing), up - LEG * math.cos(swing)))
        joints.append((joints[-1][0] + 0.07, joints[-1][1]))
        return [self._project(forward, 0.06 * side, up + 0.02) for forward, up in joints]

    def _arm(self, side: int, angle: float, raised: float) -> list[tuple[float, float]]:
        """Shoulder, elbow and hand."""
        forward = ARM * math.sin(angle) * math.cos(raised)
        lateral = ARM * side * math.sin(raised)
        down = ARM * math.cos(angle) * math.cos(raised)
        x, y, z = 0.0, HALF_WIDTH * side, SHOULDER - 0.02
        elbow = (x + forward, y + lateral, z - down)
        hand = (x + 2 * forward + 0.25 * ARM, y + 2 * lateral, z - 2 * down)
        return [self._project(*joint) for joint in ((x, y, z), elbow, hand)]


class _Brush:
    """Draws on a supersampled RGBA canvas in heights around the feet, y up."""

    def __init__(self, canvas: np.ndarray, *, origin: np.ndarray, height: float):
        self.canvas, self.scale = canvas, height * SUPERSAMPLING
        self.x, self.y = (origin * SUPERSAMPLING - 0.5).tolist()

    def _pixels(self, points) -> list[tuple[int, int]]:
        """OpenCV's fixed-point coordinates."""
        one = 1 << _SHIFT
        return [
            (round((self.x + x * self.scale) * one), round((self.y - y * self.scale) * one))
            for x, y in points
        ]

    def stroke(self, points, radius, colour):
        thickness = max(1, round(2 * radius * self.scale))
        for a, b in itertools.pairwise(self._pixels(points)):
            cv2.line(self.canvas, a, b, (*colour, 255), thickness, cv2.LINE_8, _SHIFT)

    def polygon(self, points, colour):
        corners = np.array(self._pixels(points))
        cv2.fillConvexPoly(self.canvas, corners, (*colour, 255), cv2.LINE_8, _SHIFT)

    def ellipse(self, centre, axes, colour):
        (pixel,) = self._pixels([centre])
        axes = [int(axis * self.scale * (1 << _SHIFT)) for axis in axes]
        cv2.ellipse(self.canvas, pixel, axes, 0, 0, 360, (*colour, 255), -1, cv2.LINE_8, _SHIFT)


def _draw_body(brush: _Brush, clothes: Clothes, pose: _Pose):
    far, near = (0, 1) if pose.cos > 0 else (1, 0)  # facing right, the left limbs are behind
    _draw_arm(brush, clothes, pose.arms[far])
    _draw_leg(brush, clothes, pose.legs[far])
    _draw_leg(brush, clothes, pose.legs[near])
    _draw_torso(brush, clothes, pose)
    _draw_head(brush, clothes, pose)
    _draw_arm(brush, clothes, pose.arms[near])


def _draw_leg(brush, clothes, joints):
    brush.stroke(joints[:3], LEG_RADIUS, clothes.trousers)
    brush.stroke(joints[2:], LEG_RADIUS * 0.7, clothes.shoes)


def _draw_arm(brush, clothes, joints):
    brush.stroke(joints[1:], ARM_RADIUS * 0.8, clothes.skin)
    brush.stroke(joints[:2], ARM_RADIUS, clothes.sleeve)


def _draw_torso(brush, clothes, pose):
    half = math.hypot(HALF_WIDTH * pose.sin, HALF_DEPTH * pose.cos)
    front = _front(pose)

    def panel(colour, sides=(-1, 1), rows=(0, 1)):
        up = [pose.rise + SHOULDER + 0.03 - row * (SHOULDER + 0.05 - HIP) for row in rows]
        taper = [half * (1 - 0.15 * row) for row in rows]
        corners = [(sides[k] * taper[r], up[r]) for r, k in ((0, 0), (0, 1), (1, 1), (1, 0))]
        brush.polygon(corners, colour)

    panel(clothes.back)
    panel(clothes.front, sides=front)
    for band in clothes.bands:
        panel(clothes.pattern, sides=front, rows=band)


def _draw_head(brush, clothes, pose):
    up = HEAD + pose.rise
    brush.stroke([(0, SHOULDER + pose.rise), (0, up)], 0.04, clothes.skin)
    brush.ellipse((0, up), (HEAD_RADIUS, HEAD_RADIUS * 1.1), clothes.hair)
    left, right = _front(pose)
    face = ((left + right) / 2 * HEAD_RADIUS, up - 0.015)
    brush.ellipse(face, ((right - left) / 2 * HEAD_RADIUS, HEAD_RADIUS * 0.9), clothes.skin)


def _front(pose) -> tuple[float, float]:
    """The part of a standing cylinder's outline, within [-1, 1], that shows the body's front."""
    return (-pose.sin, 1.0) if pose.cos >= 0 else (-1.0, pose.sin)
