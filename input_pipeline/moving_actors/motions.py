"""The actions as functions of time: where the body goes, where it faces, how its limbs move.

Lengths are in heights of the actor and y points down, as in the image. Walk, pace, circle and
zigzag share limbs and speeds on purpose: what differs is the path's shape over 18 to 30 frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

CLASSES = ("walk", "pace", "circle", "zigzag", "hop_red", "hop_blue", "spin_red", "spin_blue")
TRANSLATING = CLASSES[:4]

MIN_FRAMES, MAX_FRAMES = 50, 90
CLIP_FRAMES = 30  # the clip over which "displacement in heights" is set

TILT = 0.6  # vertical image motion counts this much as motion in depth when choosing the facing


@dataclass(frozen=True)
class Motion:
    """T frames of one body. All arrays are float64 with T in front.

    offset: [T, 2] of the feet from where they start, in heights, x right and y down.
    yaw: [T] radians the body faces: 0 right, pi/2 the camera, pi left.
    legs: [T, 2] forward angles of the left and right leg, radians.
    arms: [T, 2] forward angles of the left and right arm.
    raised: [T, 2] sideways angles of the arms, 0 hanging, pi straight up.
    crouch: [T] 0 standing to 1, knees fully bent.
    """

    offset: np.ndarray
    yaw: np.ndarray
    legs: np.ndarray
    arms: np.ndarray
    raised: np.ndarray
    crouch: np.ndarray

    def __len__(self) -> int:
        return len(self.yaw)

    def pad(self, before: int, after: int) -> Motion:
        """The same motion with its first and last frames held, for the idle time around it."""
        widths = {1: [(before, after)], 2: [(before, after), (0, 0)]}
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Motion(**{k: np.pad(v, widths[v.ndim], mode="edge") for k, v in parts.items()})


def stand(rng: np.random.Generator, num_frames: int, *, yaw: float | None = None) -> Motion:
    """Idles: a slight sway of the body and the arms, facing anywhere (or `yaw`)."""
    t = np.arange(num_frames)
    yaw = rng.uniform(-np.pi, np.pi) if yaw is None else yaw
    sway = np.sin(2 * np.pi * t / rng.uniform(30, 60) + rng.uniform(0, 2 * np.pi))
    offset = np.stack([0.008 * sway, np.zeros(num_frames)], axis=1)
    hang = rng.uniform(0.1, 0.3, 2) + 0.05 * sway[:, None]
    feet = np.broadcast_to(rng.uniform(-0.15, 0.15, 2), (num_frames, 2))
    return Motion(
        offset=offset,
        yaw=yaw + 0.08 * sway,
        legs=feet,
        arms=0.1 * np.stack([sway, -sway], axis=1),
        raised=hang,
        crouch=np.zeros(num_frames),
    )


def act(rng: np.random.Generator, label: str, *, height: float) -> Motion:
    """One instance of a class, MIN_FRAMES to MAX_FRAMES long.

    height: of the actor, as a fraction of the frame; a path never needs more room than the frame
        has, so tall actors travel fewer of their heights.
    """
    motion, _ = split_label(label)
    return _ACTIONS[motion](rng, height)


def split_label(label: str) -> tuple[str, str | None]:
    """The motion of a class, and in front of which wall alone it is done; None: of any."""
    motion, _, wall = label.partition("_")
    return motion, wall or None


def _walk(rng, height):
    return _stride(rng, _walk_path(rng, height))


def _walk_path(rng, height):
    room = _room(height, 0.4)
    distance = min(rng.uniform(0.9, 1.6), room * CLIP_FRAMES / MIN_FRAMES)
    longest = max(MIN_FRAMES, int(min(MAX_FRAMES, room * CLIP_FRAMES / distance)))
    t = _clock(rng, rng.integers(MIN_FRAMES, longest + 1))
    return np.stack([_side(rng) * distance / CLIP_FRAMES * t, np.zeros(len(t))], axis=1)


def _pace(rng, height):
    t = _clock(rng, _duration(rng))
    width = min(rng.uniform(0.5, 0.9), _room(height, 0.4))
    phase = t / (2 * rng.uniform(12, 15)) + rng.uniform()
    return _stride(rng, np.stack([width / 2 * _triangle(phase), np.zeros(len(t))], axis=1))


def _circle(rng, height):
    """Round an ellipse pulled out to a diamond: a few frames of a side could be a zigzag's."""
    width = min(rng.uniform(0.6, 1.0), _room(height, 0.4))
    depth = min(width * rng.uniform(0.55, 1), _room(height, 1.0))
    phase = _side(rng) * _clock(rng, _duration(rng)) / rng.uniform(26, 34) + rng.uniform()
    corners = rng.uniform(0.9, 0.99)
    sides = [width * _triangle(phase + 0.25, corners), depth * _triangle(phase, corners)]
    return _stride(rng, np.stack(sides, axis=1) / 2)


def _zigzag(rng, height):
    path = _walk_path(rng, height)
    depth = min(rng.uniform(0.25, 0.5), _room(height, 1.0))
    phase = _clock(rng, len(path)) / rng.uniform(16, 22) + rng.uniform()
    path[:, 1] = depth / 2 * _triangle(phase)
    return _stride(rng, path)


def _hop(rng, height):
    period = rng.uniform(12, 16)
    hops = np.floor(rng.uniform(MIN_FRAMES + period, MAX_FRAMES) / period)
    num_frames = int(np.ceil(hops * period))
    u = (np.arange(num_frames) / period) % 1
    air = np.clip((u - 0.3) / 0.7, 0, 1)
    up = 4 * air * (1 - air) * min(rng.uniform(0.25, 0.45), _room(height, 1.0))
    squat = np.where(u < 0.3, np.sin(np.pi * u / 0.3), 0)
    drift = rng.uniform(-0.1, 0.1) * np.arange(num_frames) / CLIP_FRAMES
    body = stand(rng, num_frames)
    swing = rng.uniform(0.4, 1.2) * (air > 0) * np.sin(np.pi * air)
    return replace(
        body,
        offset=body.offset + np.stack([drift, -up], axis=1),
        crouch=0.8 * squat,
        raised=body.raised + swing[:, None],
    )


def _spin(rng, height):
    body = stand(rng, _duration(rng))
    turn = _side(rng) * 2 * np.pi * np.arange(len(body)) / rng.uniform(14, 22)
    return replace(body, yaw=body.yaw + turn, raised=body.raised + rng.uniform(0, 0.6))


_ACTIONS = {
    "walk": _walk,
    "pace": _pace,
    "circle": _circle,
    "zigzag": _zigzag,
    "hop": _hop,
    "spin": _spin,
}


def _stride(rng, path_Tx2: np.ndarray) -> Motion:
    """A body that walks along a path: legs and arms swing, the facing follows the velocity."""
    num_frames = len(path_Tx2)
    phase = 2 * np.pi * np.arange(num_frames) / rng.uniform(9, 14) + rng.uniform(0, 2 * np.pi)
    swing = np.sin(phase)[:, None] * [[1, -1]]
    return Motion(
        offset=path_Tx2 - path_Tx2[0] + _wobble(rng, num_frames),
        yaw=_facing(path_Tx2, lean=rng.uniform(-0.5, 0.6)),
        legs=rng.uniform(0.45, 0.6) * swing,
        arms=-rng.uniform(0.3, 0.7) * swing,
        raised=np.full((num_frames, 2), rng.uniform(0.05, 0.25)),
        crouch=np.zeros(num_frames),
    )


def _facing(path_Tx2: np.ndarray, *, lean: float) -> np.ndarray:
    """Yaw along a path; `lean` turns every heading towards the camera (> 0) or away from it.

    The lean blurs what a still frame says: a walker seen half from behind could be circling.
    """
    velocity = np.gradient(path_Tx2, axis=0)
    speed = np.hypot(*velocity.T).mean()
    heading = np.stack([velocity[:, 0], TILT * velocity[:, 1] + lean * speed], axis=1)
    padded = np.pad(heading, [(2, 2), (0, 0)], mode="edge")
    x, y = np.stack([np.convolve(p, np.full(5, 0.2), mode="valid") for p in padded.T])
    return np.unwrap(np.arctan2(y, x))


def _clock(rng, num_frames: int) -> np.ndarray:
    """Time, [T] frames, that now runs faster and now slower, by up to 0.6, and is right on average.

    So that the speed within a few frames does not give the class away.
    """
    period, depth = rng.uniform(12, 30), rng.uniform(0.2, 0.6)
    phase = 2 * np.pi * (np.arange(num_frames) / period + rng.uniform())
    return np.arange(num_frames) - depth * period / (2 * np.pi) * (np.cos(phase) - np.cos(phase[0]))


def _wobble(rng, num_frames: int) -> np.ndarray:
    """An unsteady gait, [T, 2] heights from 0: blurs the curvature of a few frames' path."""
    t = np.arange(num_frames)[:, None]
    phase = 2 * np.pi * (t / rng.uniform(6, 10, 2) + rng.uniform(size=2))
    return rng.uniform(0.01, 0.035, 2) * (np.sin(phase) - np.sin(phase[0]))


def _triangle(phase: np.ndarray, corners: float = 0.98) -> np.ndarray:
    """A wave of period 1 between -1 and 1: a sine for `corners` near 0, a triangle for 1."""
    return np.arcsin(corners * np.sin(2 * np.pi * phase)) / np.arcsin(corners)


def _room(height: float, extent: float) -> float:
    """Heights that an actor can travel along an axis where it is `extent` heights long itself.

    A tenth of the body may leave the frame.
    """
    return 1 / height - 0.9 * extent


def _duration(rng) -> int:
    return int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))


def _side(rng) -> int:
    return int(rng.choice([-1, 1]))
