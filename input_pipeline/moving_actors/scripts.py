"""What happens in a video: who acts what, when and where, on which ground, under which camera.

A script is a pure function of (VERSION, seed, split, index, size): videos can be rendered in any
order by any number of workers, and a larger data set begins with the smaller one's videos.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from input_pipeline.moving_actors import SPLITS, VERSION, actors, motions, scenes
from input_pipeline.moving_actors.motions import CLASSES, Motion, split_label

MIN_VIDEO_FRAMES, MAX_VIDEO_FRAMES = 96, 120
BLOCK = 16  # videos that together hold every class equally often: 16 first and 8 second actors
IDLE_PROBABILITY = 0.5  # of one more actor who does nothing
MIN_HEIGHT, MAX_HEIGHT = 0.40, 0.68  # of the frame
TURN_FRAMES = 5  # from idling to acting and back
PLACES = 16  # tried for each actor, to keep the actors apart


@dataclass(frozen=True)
class Role:
    """One actor. `label` is None for an idle one; T covers the whole video.

    feet: [T, 2] on the screen, pixels. acting: the frames [start, stop) of the action.
    """

    label: int | None
    acting: tuple[int, int]
    height: float
    motion: Motion
    feet: np.ndarray
    clothes: actors.Clothes


@dataclass(frozen=True)
class Script:
    """One video: the world, the camera's shift [T, 2] in pixels, the roles from back to front."""

    id: str
    split: str
    size: int
    scene: str
    wall: str
    world: np.ndarray
    shift: np.ndarray
    roles: tuple[Role, ...]

    @property
    def num_frames(self) -> int:
        return len(self.shift)


def write_script(*, seed: int, split: str, index: int, size: int) -> Script:
    """Video `index` of a split, for frames of `size` x `size` pixels."""
    rng = np.random.default_rng([VERSION, seed, SPLITS.index(split), index, size])
    labels = cast(seed=seed, split=split, index=index)
    scene, wall = str(rng.choice(scenes.SCENES)), _choose_wall(rng, labels)
    num_frames = int(rng.integers(MIN_VIDEO_FRAMES, MAX_VIDEO_FRAMES + 1))
    world = scenes.paint(rng, scene, wall, size=size)
    shift = scenes.pan(rng, num_frames, size=size)
    idle = [None] if rng.uniform() < IDLE_PROBABILITY else []
    roles: list[Role] = []
    for label in [*labels, *idle]:
        roles.append(_choose_role(rng, label, roles, shift, size=size))
    roles.sort(key=lambda role: role.feet[:, 1].mean())  # who stands lower is nearer
    id = f"{split}_{index:04d}"
    return Script(id, split, size, scene, wall, world, shift, tuple(roles))


def cast(*, seed: int, split: str, index: int) -> list[int]:
    """The labels of the one or two acting actors of a video, balanced over each BLOCK of videos."""
    block, place = divmod(index, BLOCK)
    # One number fewer than a video's own key, so that the streams never coincide.
    rng = np.random.default_rng([VERSION, seed, SPLITS.index(split), block])
    count = len(CLASSES)
    first = np.concatenate([rng.permutation(count) for _ in range(BLOCK // count)])
    while True:
        second = dict(zip(rng.permutation(BLOCK)[:count].tolist(), range(count), strict=True))
        casts = [
            [int(label), second[i]] if i in second else [int(label)]
            for i, label in enumerate(first)
        ]
        if all(len(_asked_walls(labels)) <= 1 for labels in casts):
            return casts[place]


def _choose_wall(rng, labels: list[int]) -> str:
    """The wall that the actions ask for, any if they ask for none."""
    asked = _asked_walls(labels)
    return asked.pop() if asked else str(rng.choice(list(scenes.WALLS)))


def _asked_walls(labels: list[int]) -> set[str]:
    walls = (split_label(CLASSES[label])[1] for label in labels)
    return {wall for wall in walls if wall}


def _choose_role(rng, label, others: list[Role], shift: np.ndarray, *, size: int) -> Role:
    num_frames = len(shift)
    fraction = float(np.exp(rng.uniform(np.log(MIN_HEIGHT), np.log(MAX_HEIGHT))))
    idle = motions.stand(rng, num_frames, yaw=0.0 if label is not None else None)
    motion, acting = idle, (0, num_frames)
    if label is not None:
        action = motions.act(rng, CLASSES[label], height=fraction)
        start = int(rng.integers(2, num_frames - len(action) - 1))
        acting = (start, start + len(action))
        motion = _within_idling(rng, action, idle, start)
    motion = _fit(motion, acting, shift, height=fraction * size, size=size)
    role = Role(
        label, acting, fraction * size, motion, np.zeros((num_frames, 2)), actors.dress(rng)
    )
    places = [_place(rng, role, shift, size=size) for _ in range(PLACES)]
    return min(places, key=lambda place: sum(_crowding(place, other) for other in others))


def _within_idling(rng, action: Motion, idle: Motion, start: int) -> Motion:
    """The whole video's motion: idle, turn, act, turn, idle (having stayed where the act ended)."""
    after = len(idle) - start - len(action)
    held = action.pad(start, after)
    t = np.arange(len(idle))
    outside = np.maximum(start - t, t - (start + len(action) - 1))
    w = np.clip(1 - outside / TURN_FRAMES, 0, 1)
    turns = np.where(t < start, *rng.uniform(-1.2, 1.2, 2))
    mixed = {
        name: w[:, None] * getattr(held, name) + (1 - w)[:, None] * getattr(idle, name)
        for name in ("legs", "arms", "raised")
    }
    return replace(
        held,
        offset=held.offset + (1 - w)[:, None] * idle.offset,
        yaw=held.yaw + (1 - w) * (idle.yaw + turns),
        crouch=w * held.crouch,
        **mixed,
    )


def _fit(motion: Motion, acting, shift, *, height: float, size: int) -> Motion:
    """Shortens a path, should the camera's own motion leave too little room for it."""
    for _ in range(40):
        low, high = _place_range(motion.offset, acting, shift, height=height, size=size)
        if (low <= high).all():
            break
        motion = replace(motion, offset=motion.offset * np.where(low <= high, 1, 0.95))
    return motion


def _place_range(offset, acting, shift, *, height: float, size: int):
    """Where the feet may start, so that at least nine tenths of the actor stay in view."""
    frames = slice(*acting)
    path = offset[frames] * height - shift[frames]
    low = np.array([0.16, 0.94]) * height - path.min(axis=0)
    high = size - np.array([0.16, -0.04]) * height - path.max(axis=0)
    return low, high


def _place(rng, role: Role, shift, *, size: int) -> Role:
    low, high = _place_range(role.motion.offset, role.acting, shift, height=role.height, size=size)
    start = rng.uniform(np.minimum(low, high), high)
    return replace(role, feet=start + role.motion.offset * role.height - shift)


def _crowding(role: Role, other: Role) -> float:
    """How much two actors cover each other, first of all at the start: 0 is not at all."""
    a, b = _outline(role), _outline(other)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(0).prod(axis=1)
    covered = shared / np.minimum(_area(a), _area(b))
    return float(covered.mean() + 2 * covered[role.acting[0]] + 2 * covered[other.acting[0]])


def _outline(role: Role) -> np.ndarray:
    x, y = role.feet.T
    return np.stack([x - 0.2 * role.height, y - role.height, x + 0.2 * role.height, y], axis=1)


def _area(boxes_Tx4: np.ndarray) -> np.ndarray:
    return (boxes_Tx4[:, 2:] - boxes_Tx4[:, :2]).prod(axis=1)
