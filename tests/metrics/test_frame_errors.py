"""Each kind of error by a made-up case, and the areas by hand."""

import dataclasses

import numpy as np

from step_jax.annotations import Annotations, Tube, Video
from step_jax.detections import Detections, TableHeader
from step_jax.metrics.frame_boxes import detected_boxes
from step_jax.metrics.frame_errors import frame_errors
from step_jax.metrics.frame_tally import (
    CLASSIFICATION,
    HIT,
    LOCALIZATION,
    OTHER,
    TIME,
    tally,
)

BOX, FAR = [0, 0, 16, 16], [32, 32, 48, 48]

# (video, frame, label, score, box) -> kind. Video 0 has class 0 in frames 0 and 1 and class 1 in
# frame 2, of 4; video 1 has class 1 in frame 2.
CASES = [
    ((0, 0, 0, 0.9, BOX), HIT),
    ((0, 0, 0, 0.8, FAR), LOCALIZATION),
    ((0, 1, 0, 0.7, FAR), LOCALIZATION),
    ((1, 2, 0, 0.6, BOX), CLASSIFICATION),
    ((1, 2, 0, 0.5, FAR), OTHER),  # no class 0 in the video, nothing under the box
    ((0, 3, 0, 0.4, BOX), TIME),
    ((1, 3, 0, 0.3, BOX), OTHER),
    ((0, 1, 1, 0.2, BOX), CLASSIFICATION),
    ((0, 3, 1, 0.1, BOX), TIME),
    ((0, 2, 0, 0.05, FAR), OTHER),  # the frame has an action, a different one
]


def problem():
    walk, run = Tube((0,), [0, 1], [BOX, BOX]), Tube((1,), [2], [BOX])
    videos = [
        Video(f"v{v}", f"v{v}.avi", "test", 25.0, 4, 64, 64, tubes)
        for v, tubes in enumerate([(walk, run), (run,)])
    ]
    annotations = Annotations("made_up", ("a", "b", "c"), tuple(videos), "/nowhere")
    video, frame, label, score, boxes = zip(*(case for case, _ in CASES), strict=True)
    detections = Detections(
        header=TableHeader(annotations.classes, 6, 1, 1),
        videos=("v0", "v1"),
        video=np.array(video),
        frame=np.array(frame),
        step=np.ones(len(video), np.int8),
        tubelet=np.arange(len(video)),
        label=np.array(label),
        score=np.array(score, np.float32),
        boxes=np.array(boxes, np.float32) / 64,
    )
    return detections, annotations


def test_every_kind():
    detections, annotations = problem()
    blocks = detected_boxes(detections, annotations, "test", step=1)
    ranked = tally(blocks, annotations, "test", detections.header).ranked()
    for label in range(3):
        assert ranked[label].tolist() == [kind for case, kind in CASES if case[2] == label]


def test_shares_by_hand():
    """Class a: one of two boxes found, by the best detection; nothing lies beyond recall 1/2."""
    detections, annotations = problem()
    errors = frame_errors(detections, annotations, "test", step=1)
    np.testing.assert_allclose(errors.ap, [50, 0, np.nan])
    np.testing.assert_allclose(errors.missed, [50, 100, np.nan])
    for share in (errors.localization, errors.classification, errors.time, errors.other):
        np.testing.assert_allclose(share, [0, 0, np.nan])

    late = np.array(detections.score)
    late[0] = 0.75  # a hit after one localization error: its rate falls from 1 to 1/2
    changed = dataclasses.replace(detections, score=late)
    errors = frame_errors(changed, annotations, "test", step=1)
    np.testing.assert_allclose(errors.localization[0], 100 * 0.5 * (1 + 1 / 2) / 2)
    np.testing.assert_allclose(errors.ap[0], 100 * 0.5 * (0 + 1 / 2) / 2)
