"""Annotations, tubes and tubelets for the tests of the metrics, and a slow overlap of tubes."""

import numpy as np

from step_jax.annotations import Annotations, Tube, Video
from step_jax.tube_table import Tubes
from step_jax.tubelet_table import TubeletHeader, TubeletRows

SIDE = 64  # of the videos; a power of two, so that normalising is exact


def make_annotations(tubes, *, classes=("a", "b", "c"), num_frames=(10, 10), side=SIDE):
    """`tubes` are (video, labels, frames, boxes); the videos are named v0, v1, ..."""
    videos = [
        Video(
            id=f"v{v}",
            path=f"v{v}.webm",
            split="test",
            fps=25.0,
            num_frames=length,
            width=side,
            height=side,
            tubes=tuple(
                Tube(labels, frames, boxes) for video, labels, frames, boxes in tubes if video == v
            ),
        )
        for v, length in enumerate(num_frames)
    ]
    return Annotations("made_up", classes, tuple(videos), "/nowhere")


def make_tubes(tubes, *, classes=("a", "b", "c"), videos=("v0", "v1")):
    """`tubes` are (video, label, score, first frame, boxes)."""
    boxes = [np.asarray(tube[4], np.float32).reshape(-1, 4) for tube in tubes]
    lengths = np.array([len(one) for one in boxes], int)
    frames = [tube[3] + np.arange(len(one)) for tube, one in zip(tubes, boxes, strict=True)]
    return Tubes(
        classes=tuple(classes),
        videos=tuple(videos),
        video=np.array([tube[0] for tube in tubes], np.int32),
        label=np.array([tube[1] for tube in tubes], np.int32),
        score=np.array([tube[2] for tube in tubes], np.float64),
        offset=np.append(0, np.cumsum(lengths)),
        frame=np.concatenate([np.zeros(0, np.int32), *frames]).astype(np.int32),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
        frame_score=np.repeat([tube[2] for tube in tubes], lengths).astype(np.float32),
    )


def truth_as_tubes(annotations, split="test"):
    """The ground truth fed as detections, gaps filled by the box before them."""
    videos = annotations.split(split)
    rows = []
    for number, video in enumerate(videos):
        for tube in video.tubes:
            frames = np.arange(tube.frames[0], tube.frames[-1] + 1)
            at = np.searchsorted(tube.frames, frames, side="right") - 1
            for label in tube.labels:
                rows.append((number, label, 1.0, frames[0], tube.boxes[at]))
    names = tuple(video.id for video in videos)
    return make_tubes(rows, classes=annotations.classes, videos=names)


def make_tubelets(rows, *, classes=("a", "b", "c"), videos=("v0", "v1"), clip_frames=3, side=SIDE):
    """`rows` are (video, start, proposal, scores [C], pixel boxes [R, K, 4] or [K, 4][, step])."""
    rows = [row if len(row) == 6 else (*row, 1) for row in rows]
    boxes = [np.asarray(row[4], np.float32).reshape(-1, clip_frames, 4) / side for row in rows]
    num_boxes = len(boxes[0]) if boxes else 1
    num_steps = max([row[5] for row in rows], default=1)
    shape = (len(rows), num_boxes, clip_frames, 4)
    return TubeletRows(
        header=TubeletHeader(tuple(classes), clip_frames, 1, num_steps, num_boxes),
        videos=tuple(videos),
        video=np.array([row[0] for row in rows], np.int32),
        start=np.array([row[1] for row in rows], np.int32),
        step=np.array([row[5] for row in rows], np.int8),
        proposal=np.array([row[2] for row in rows], np.int32),
        scores=np.array([row[3] for row in rows], np.float32).reshape(-1, len(classes)),
        tubes=np.array(boxes, np.float32).reshape(shape),
    )


def truth_as_tubelets(annotations, *, clip_frames=3, split="test"):
    """Windows at every frame, one proposal for each tube that has all of a window's frames."""
    rows = []
    videos = annotations.split(split)
    for number, video in enumerate(videos):
        for start in range(max(video.num_frames - clip_frames, 0) + 1):
            frames = np.minimum(start + np.arange(clip_frames), video.num_frames - 1)
            for proposal, tube in enumerate(video.tubes):
                at = np.searchsorted(tube.frames, frames)
                inside = (at < len(tube.frames)).all() and (tube.frames[at] == frames).all()
                if inside:
                    scores = np.isin(np.arange(len(annotations.classes)), tube.labels)
                    rows.append((number, start, proposal, scores * 0.9, tube.boxes[at]))
    names = tuple(video.id for video in videos)
    side = videos[0].width
    return make_tubelets(
        rows, classes=annotations.classes, videos=names, clip_frames=clip_frames, side=side
    )


def box_iou_by_hand(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_iou3dt(a, b):
    """Of two {frame: box}."""
    common = sorted(a.keys() & b.keys())
    if not common:
        return 0.0
    mean = sum(box_iou_by_hand(a[f], b[f]) for f in common) / len(common)
    return mean * len(common) / len(a.keys() | b.keys())
