"""From a script to frames and tubes: boxes are the extents of what was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from input_pipeline.moving_actors import actors, scenes
from input_pipeline.moving_actors.scripts import Role, Script
from step_jax.annotations import Tube

DRAWN = 64  # coverage, of 255, from which a pixel belongs to an actor
MIN_VISIBLE = 0.25  # of the actor's pixels, in the frame and not behind others
MIN_SIDE = 8 / 96  # of the frame


@dataclass(frozen=True)
class Sighting:
    """One actor in one frame: its box (x1 y1 x2 y2, far edges exclusive) and its visible share."""

    box: tuple[int, int, int, int]
    visible: float

    def counts(self, size: int) -> bool:
        """Whether a frame of that size shows enough of the actor to annotate it."""
        x1, y1, x2, y2 = self.box
        return self.visible >= MIN_VISIBLE and min(x2 - x1, y2 - y1) >= MIN_SIDE * size


def render(script: Script) -> Iterator[tuple[np.ndarray, list[Sighting]]]:
    """Draws a script: per frame, RGB uint8 [size, size, 3] and one sighting for each role."""
    for t in range(script.num_frames):
        frame = scenes.look(script.world, script.shift[t], size=script.size)
        masks = [_draw(frame, role, t) for role in script.roles]
        yield frame, _sightings(masks)


def tubes(script: Script, sightings: list[list[Sighting]]) -> tuple[Tube, ...]:
    """The annotation: one tube for each acting role, over its action's frames, with its gaps."""
    found = []
    for number, role in enumerate(script.roles):
        if role.label is None:
            continue
        seen = [(t, sightings[t][number]) for t in range(*role.acting)]
        kept = [(t, sighting.box) for t, sighting in seen if sighting.counts(script.size)]
        if kept:
            frames, boxes = zip(*kept, strict=True)
            found.append(Tube((role.label,), np.array(frames), np.array(boxes)))
    return tuple(found)


def _draw(frame: np.ndarray, role: Role, t: int) -> tuple[np.ndarray, int]:
    """Draws a role over the frame; returns its mask in the frame and its pixels in all."""
    sprite = actors.draw(role.clothes, role.motion, t, feet=role.feet[t], height=role.height)
    mask = np.zeros(frame.shape[:2], bool)
    rows, columns = sprite.alpha.shape
    top, left = max(0, -sprite.top), max(0, -sprite.left)
    bottom = min(rows, frame.shape[0] - sprite.top)
    right = min(columns, frame.shape[1] - sprite.left)
    drawn = sprite.alpha >= DRAWN
    if bottom > top and right > left:
        inside = (slice(top, bottom), slice(left, right))
        here = (
            slice(top + sprite.top, bottom + sprite.top),
            slice(left + sprite.left, right + sprite.left),
        )
        through = 255 - sprite.alpha[inside].astype(np.uint16)[..., None]
        frame[here] = frame[here] * through // 255 + sprite.rgb[inside]
        mask[here] = drawn[inside]
    return mask, int(drawn.sum())


def _sightings(masks: list[tuple[np.ndarray, int]]) -> list[Sighting]:
    """From masks in drawing order: later ones hide earlier ones, but do not shorten their boxes."""
    found: list[Sighting] = []
    hidden = np.zeros_like(masks[0][0])
    for mask, pixels in reversed(masks):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        visible = np.count_nonzero(mask & ~hidden) / max(pixels, 1)
        found.append(Sighting((x, y, x + width, y + height), visible))
        hidden |= mask
    return found[::-1]
