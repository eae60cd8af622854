"""Tubes in time: how a tube reaches the clips before and after its own (paper, Section 3.2).

A tube is `[..., L, 4]`, one box a frame, in pixels. As in `boxes`, NumPy and JAX arrays both serve.
"""

from __future__ import annotations

from step_jax.boxes import namespace
from step_jax.errors import InputError

METHODS = ("extrapolate", "recursive", "anticipate", "mean")


def extend(tubes, *, method, chunk, height, width, anticipated=None):
    """`tubes [..., L, 4]` and a clip of `chunk` frames on each side: `[..., L + 2*chunk, 4]`.

    Args:
        tubes: boxes in pixels; L >= chunk.
        method: "extrapolate" (Eq. 4, linear), "recursive" (the released model's extrapolation),
            "anticipate" (Eq. 5: the network's own boxes for the neighbour clips) or "mean" (the
            baseline: the mean box of the tube at every frame, a cuboid).
        chunk: frames of a clip, in the frames of `tubes`.
        height, width: of the network's input; "recursive" alone clips, so pass the result on to
            `boxes.make_valid` whatever the method.
        anticipated: (first, last), both decoded boxes `[..., chunk, 4]`; for "anticipate".

    Raises:
        InputError: an unknown method.
    """
    if method == "extrapolate":
        return extrapolate(tubes, chunk=chunk)
    if method == "recursive":
        return extrapolate_recursive(tubes, chunk=chunk, height=height, width=width)
    if method == "anticipate":
        first, last = anticipated
        return namespace(tubes, first, last).concat([first, tubes, last], axis=-2)
    if method == "mean":
        return repeat_mean(tubes, num_frames=tubes.shape[-2] + 2 * chunk)
    raise InputError(f"extension method {method!r} is none of {', '.join(METHODS)}")


def extrapolate(tubes, *, chunk):
    """Eq. 4: on a straight line at the mean velocity over the nearest `chunk` boxes, unclipped.

    After: B_K + k/(K-1) (B_K - B_1), k = 1..K, over the last K = `chunk` boxes; before, mirrored.
    One box alone has no velocity: it is repeated.
    """
    xp = namespace(tubes)
    before = xp.flip(_continue_line(xp, xp.flip(tubes, axis=-2), chunk), axis=-2)
    return xp.concat([before, tubes, _continue_line(xp, tubes, chunk)], axis=-2)


def _continue_line(xp, tubes, chunk):
    """The `chunk` boxes that follow `tubes` by Eq. 4."""
    last, first = tubes[..., -1:, :], tubes[..., -chunk, :][..., None, :]
    steps = xp.arange(1, chunk + 1, dtype=tubes.dtype)[:, None] / max(chunk - 1, 1)
    return last + steps * (last - first)


def extrapolate_recursive(tubes, *, chunk, height, width):
    """The released model's form: x_t = x_{t-1} + (x_{t-1} - x_{t-T})/(T - 1), T = `chunk`.

    Each new box moves at the velocity over the T boxes before it, new ones included, so it departs
    from Eq. 4 wherever the motion is not uniform. Clipping comes last and is one-sided, over all
    frames, originals included: x1, y1 >= 0; x2 <= width - 1, y2 <= height - 1.
    """
    xp = namespace(tubes)
    boxes = [tubes[..., i, :] for i in range(tubes.shape[-2])]
    before = _continue_recursively(boxes[::-1], chunk)[::-1]
    boxes = xp.stack([*before, *boxes, *_continue_recursively(boxes, chunk)], axis=-2)
    limit = xp.asarray([width - 1, height - 1], dtype=boxes.dtype)
    return xp.concat([xp.maximum(boxes[..., :2], 0), xp.minimum(boxes[..., 2:], limit)], axis=-1)


def _continue_recursively(boxes, chunk):
    """The `chunk` boxes that follow the list `boxes`."""
    boxes = list(boxes)
    for _ in range(chunk):
        boxes.append(boxes[-1] + (boxes[-1] - boxes[-chunk]) / max(chunk - 1, 1))
    return boxes[-chunk:]


def repeat_mean(tubes, *, num_frames):
    """The mean box of every tube at each of `num_frames` frames: `[..., num_frames, 4]`."""
    xp = namespace(tubes)
    mean = xp.mean(tubes, axis=-2, keepdims=True)
    return xp.broadcast_to(mean, (*tubes.shape[:-2], num_frames, 4))


def path(tubes):
    """How tubes move, whatever their place and size: `[..., L, 4]` -> `[..., L, 4]`.

    Offsets of the centre from the tube's mean centre, in mean widths and heights, and the
    logarithms of the sides relative to the mean sides. Zero for a cuboid.
    """
    xp = namespace(tubes)
    centres = (tubes[..., :2] + tubes[..., 2:]) / 2
    # At least a pixel, so that an inverted box gives a finite path.
    sides = xp.maximum(tubes[..., 2:] - tubes[..., :2], xp.ones_like(centres))
    mean_sides = sides.mean(axis=-2, keepdims=True)
    offsets = (centres - centres.mean(axis=-2, keepdims=True)) / mean_sides
    return xp.concatenate([offsets, xp.log(sides / mean_sides)], axis=-1)
