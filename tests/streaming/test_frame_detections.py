"""Boxes of a frame against one NMS call per class on all rows of the frame."""

import numpy as np

from step_jax.nms import nms
from step_jax.streaming.frame_detections import FrameDetections

WIDTH, HEIGHT = 64, 48


def random_rows(rng, count, *, frames=5, classes=3):
    corner = rng.uniform(0, 0.6, (count, 2)).astype(np.float32)
    side = rng.uniform(0.2, 0.4, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + side], axis=1)
    return {
        "frame": rng.integers(0, frames, count),
        "tubelet": np.arange(count),
        "class": rng.integers(0, classes, count),
        "score": rng.permutation(count).astype(np.float32) / count,
        **dict(zip(("x1", "y1", "x2", "y2"), boxes.T, strict=True)),
    }


def shown_slowly(parts, frame, *, threshold, labels):
    """Tubelets of the frame's boxes that survive, in descending score."""
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    boxes = np.stack([rows["x1"] * WIDTH, rows["y1"] * HEIGHT, rows["x2"] * WIDTH,
                      rows["y2"] * HEIGHT], axis=1)  # fmt: skip
    kept = []
    for label in labels:
        mine = np.flatnonzero((rows["frame"] == frame) & (rows["class"] == label))
        mine = mine[nms(boxes[mine], rows["score"][mine], 0.3)]
        kept += [i for i in mine if rows["score"][i] >= threshold]
    kept.sort(key=lambda i: -rows["score"][i])
    return rows["tubelet"][kept].tolist()


def test_every_frame_against_brute_force():
    rng = np.random.default_rng(0)
    parts = [random_rows(rng, 60), random_rows(rng, 60)]
    parts[1]["tubelet"] += 1000
    parts[1]["score"] += 0.001  # no ties
    for labels in (None, {0, 2}):
        found = FrameDetections(width=WIDTH, height=HEIGHT, score_threshold=0.3, labels=labels)
        for part in parts:
            found.add(part)
        for frame in range(5):
            boxes = found.take(frame)
            expected = shown_slowly(parts, frame, threshold=0.3, labels=labels or {0, 1, 2})
            assert boxes.tubelet.tolist() == expected
            assert len(expected) > 3
            assert (np.diff(boxes.score) <= 0).all()


def test_taking_forgets():
    found = FrameDetections(width=WIDTH, height=HEIGHT, score_threshold=0.0)
    found.add(random_rows(np.random.default_rng(1), 10, frames=1))
    assert len(found.take(0).score)
    assert found.take(0).boxes.shape == (0, 4)
    assert found.take(7).label.dtype.kind == "i"
