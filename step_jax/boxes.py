"""Boxes: coding, clipping, overlap. One box is `[..., 4]` = x1, y1, x2, y2, floating point.

The functions ask their argument for its array namespace, so the same code serves NumPy arrays on
the host and JAX arrays or tracers in the network. Where both meet, JAX wins.
"""

from __future__ import annotations

MIN_SIDE_PX = 2  # a box of this side or less, after clipping, carries no position any more


def namespace(*arrays):
    """The array namespace that `arrays` share; a NumPy array beside another kind follows it."""
    spaces = [array.__array_namespace__() for array in arrays]
    return next((space for space in spaces if space.__name__ != "numpy"), spaces[0])


def encode_boxes(boxes, references):
    """Regression targets `[..., 4]` that take `references` to `boxes`, both in pixels.

    t = ((gx - x)/w, (gy - y)/h, log(gw/w), log(gh/h)) of centres and sides, as R-CNN's. Sides count
    pixels inclusively (w = x2 - x1 + 1): the released weights were trained so, and this module is
    the only one that knows.
    """
    xp = namespace(boxes, references)
    x, y, w, h = _inclusive_centre_form(references)
    gx, gy, gw, gh = _inclusive_centre_form(boxes)
    return xp.stack([(gx - x) / w, (gy - y) / h, xp.log(gw / w), xp.log(gh / h)], axis=-1)


def decode_boxes(deltas, references):
    """Boxes `[..., 4]` in pixels from regression outputs relative to `references`.

    Neither the exponent nor the result is clamped: what a step reports is unclipped, and what it
    feeds to the next goes through `make_valid`.
    """
    xp = namespace(deltas, references)
    x, y, w, h = _inclusive_centre_form(references)
    x, y = deltas[..., 0] * w + x, deltas[..., 1] * h + y
    w, h = xp.exp(deltas[..., 2]) * w, xp.exp(deltas[..., 3]) * h
    return xp.stack([x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1], axis=-1)


def _inclusive_centre_form(boxes):
    """Centre x, centre y, width, height, each `[...]`; both corner pixels belong to the box."""
    w = boxes[..., 2] - boxes[..., 0] + 1
    h = boxes[..., 3] - boxes[..., 1] + 1
    return boxes[..., 0] + w / 2, boxes[..., 1] + h / 2, w, h


def clip_boxes(boxes, *, height, width):
    """`boxes` with x in [0, width] and y in [0, height]."""
    xp = namespace(boxes)
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return xp.stack(
        [
            xp.clip(x1, 0, width),
            xp.clip(y1, 0, height),
            xp.clip(x2, 0, width),
            xp.clip(y2, 0, height),
        ],
        axis=-1,
    )


def make_valid(boxes, *, height, width):
    """`boxes` clipped to the image; a degenerate one (2 px or less) becomes the whole image."""
    xp = namespace(boxes)
    clipped = clip_boxes(boxes, height=height, width=width)
    sides = clipped[..., 2:] - MIN_SIDE_PX  # compared as x1 >= x2 - 2: rounding decides ties
    degenerate = xp.any(clipped[..., :2] >= sides, axis=-1)
    image = xp.asarray([0, 0, width, height], dtype=clipped.dtype)
    return xp.where(degenerate[..., None], image, clipped)


def box_iou(a, b, *, inclusive=False):
    """Overlap of `a` with `b`, element by element: `[..., 4]`, broadcasting, to `[...]` in [0, 1].

    With `inclusive`, sides count one pixel more, as some benchmarks' code does. A box without area
    overlaps nothing: 0, never NaN.
    """
    xp = namespace(a, b)
    extra = 1 if inclusive else 0
    # A coordinate at a time: numpy is several times slower along an axis of two.
    left, top = (xp.maximum(a[..., i], b[..., i]) for i in (0, 1))
    right, bottom = (xp.minimum(a[..., i], b[..., i]) for i in (2, 3))
    width, height = xp.maximum(right - left + extra, 0), xp.maximum(bottom - top + extra, 0)
    intersection = width * height
    union = _area(xp, a, extra) + _area(xp, b, extra) - intersection
    positive = union > 0
    return xp.where(positive, intersection / xp.where(positive, union, 1), 0)


def _area(xp, boxes, extra):
    """Areas `[...]` of `[..., 4]`, of which a negative side counts as 0."""
    width, height = (xp.maximum(boxes[..., i + 2] - boxes[..., i] + extra, 0) for i in range(2))
    return width * height


def pairwise_iou(a, b, *, inclusive=False):
    """Overlap of every box of `a [..., N, 4]` with every box of `b [..., M, 4]`: `[..., N, M]`."""
    return box_iou(a[..., :, None, :], b[..., None, :, :], inclusive=inclusive)


def tube_iou(a, b, *, frame_mask=None):
    """Mean over the frames of the overlap of every tube of `a` with every tube of `b`.

    Args:
        a: tubes `[..., N, T, 4]`.
        b: tubes `[..., M, T, 4]`.
        frame_mask: bool `[..., M, T]`, the frames at which a tube of `b` exists; all by default.

    Returns:
        `[..., N, M]`; 0 for a tube of `b` without frames.
    """
    xp = namespace(a, b)
    iou = box_iou(a[..., :, None, :, :], b[..., None, :, :, :])
    if frame_mask is None:
        return xp.mean(iou, axis=-1)
    mask = frame_mask[..., None, :, :]
    count = xp.sum(mask, axis=-1, dtype=iou.dtype)
    return xp.sum(xp.where(mask, iou, 0), axis=-1) / xp.maximum(count, 1)


def scale_boxes(boxes, *, width, height):
    """Normalised boxes in pixels of a `width` x `height` image (1/width, 1/height: the inverse)."""
    xp = namespace(boxes)
    return boxes * xp.asarray([width, height, width, height], dtype=boxes.dtype)
