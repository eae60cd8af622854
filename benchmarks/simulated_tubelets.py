"""Videos that nobody filmed and what a detector might say of them: loads for the benchmarks.

Random, but with what makes linking and evaluation work hard in reality: several proposals follow
every actor and overlap, others sit on the background, a softmax with a background is peaky, classes
have boxes of their own, and some windows miss the actor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, Tube, Video
from step_jax.tubelet_table import TubeletHeader, TubeletRows

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much there is to evaluate.

    num_videos; num_clips: of all videos together, which have about equally many.
    num_classes; proposals: of a window, at most; fewest: at least.
    class_boxes: whether every class has boxes of its own.
    """

    num_videos: int
    num_clips: int
    num_classes: int = 24
    clip_frames: int = 6
    proposals: int = 11
    fewest: int = 11
    class_boxes: bool = True
    seed: int = 0

    @property
    def header(self) -> TubeletHeader:
        return TubeletHeader(
            classes=tuple(f"class {c:02}" for c in range(self.num_classes)),
            clip_frames=self.clip_frames,
            stride=1,
            num_steps=1,
            num_boxes=self.num_classes if self.class_boxes else 1,
            provenance={"simulated": str(self)},
        )


# The test list of UCF101-24, and a load as that of the reference's measurements.
FULL = Load(num_videos=910, num_clips=160_000)
SMALL = Load(num_videos=30, num_clips=3_706, proposals=7, fewest=1, class_boxes=False)


def simulated_annotations(load: Load) -> Annotations:
    """One class a video, one or two actors, who act for most of it; split "test"."""
    rng = np.random.default_rng(load.seed)
    mean = load.num_clips / load.num_videos
    clips = rng.uniform(0.5, 1.5, load.num_videos)
    clips = np.maximum((clips * mean / clips.mean()).round().astype(int), 10)
    videos = []
    for number, count in enumerate(clips):
        num_frames = int(count) + load.clip_frames - 1
        tubes = tuple(
            _random_tube(rng, number % load.num_classes, num_frames)
            for _ in range(rng.integers(1, 3))
        )
        name = f"video {number:04}"
        videos.append(Video(name, name, "test", 25.0, num_frames, WIDTH, HEIGHT, tubes))
    return Annotations("simulated", load.header.classes, tuple(videos), root=".")


def simulated_videos(load: Load, annotations: Annotations) -> Iterator[TubeletRows]:
    """The tubelets of one video after the other."""
    for number, video in enumerate(annotations.videos):
        yield _tubelets_of(load, video, np.random.default_rng((load.seed, number)))


def _random_tube(rng: np.random.Generator, label: int, num_frames: int) -> Tube:
    """Somebody who wanders through the frame, with a share of it as action."""
    action = rng.integers(num_frames // 2, num_frames + 1)
    first = rng.integers(0, num_frames - action + 1)
    size = rng.uniform((30, 60), (90, 150))
    ends = rng.uniform(size / 2, (WIDTH, HEIGHT) - size / 2, (2, 2))
    time = np.linspace(0, 1, num_frames)[:, None]
    centre = ends[0] + (ends[1] - ends[0]) * time + 5 * np.sin(6 * time + rng.uniform(0, 6, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    boxes = np.clip(boxes, 0, [WIDTH, HEIGHT] * 2)[first : first + action]
    return Tube((label,), np.arange(first, first + action), boxes)


def _tubelets_of(load: Load, video: Video, rng: np.random.Generator) -> TubeletRows:
    K, M, C = load.clip_frames, load.proposals, load.num_classes
    windows = max(video.num_frames - K + 1, 1)
    start, proposal = (grid.ravel() for grid in np.mgrid[:windows, :M])
    seen = proposal < rng.integers(load.fewest, M + 1, windows)[start]
    start, proposal = start[seen], proposal[seen]

    target = rng.integers(-1, len(video.tubes), M)  # whom a proposal follows; -1: nobody
    target[: len(video.tubes)] = np.arange(len(video.tubes))
    boxes, acts = _followed(video, target, start, proposal, rng, clip_frames=K)
    scale = (boxes[..., 2:] - boxes[..., :2]).mean(axis=(1, 2))[:, None, None, None]
    num_boxes = load.header.num_boxes
    wobble = rng.normal(0, 0.04, (len(start), num_boxes, 1, 4)) * scale
    tubes = (boxes[:, None] + wobble) / np.tile([WIDTH, HEIGHT], 2)
    return TubeletRows(
        header=load.header,
        videos=(video.id,),
        video=np.zeros(len(start), np.int32),
        start=start.astype(np.int32),
        step=np.ones(len(start), np.int8),
        proposal=proposal.astype(np.int32),
        scores=_scores(rng, video.tubes[0].labels[0], acts, num_classes=C),
        tubes=tubes.astype(np.float32),
    )


def _followed(video, target, start, proposal, rng, *, clip_frames):
    """Boxes [N, K, 4] of proposals in pixels, and how well each sees an action, [N] in 0 to 1."""
    frames = np.minimum(start[:, None] + np.arange(clip_frames), video.num_frames - 1)
    corner = rng.uniform(0, (WIDTH - 80, HEIGHT - 80), (len(target), 2))
    background = np.concatenate([corner, corner + rng.uniform(40, 160, corner.shape)], axis=1)
    boxes = np.repeat(background[proposal][:, None], clip_frames, axis=1)
    acts = np.zeros(len(start))
    for number, tube in enumerate(video.tubes):
        rows = np.flatnonzero(target[proposal] == number)
        at = np.clip(frames[rows] - tube.frames[0], 0, len(tube.frames) - 1)
        boxes[rows] = tube.boxes[at]
        acts[rows] = np.isin(frames[rows], tube.frames).mean(axis=1)
    offset = rng.normal(0, 8, (len(target), 4))[proposal] + rng.normal(0, 4, (len(start), 4))
    return boxes + offset[:, None], acts


def _scores(rng, label, acts, *, num_classes):
    """Softmax over the classes and a background, which is left out: float32 [N, C].

    A few classes are confused with the video's own throughout it; of one window in ten the network
    makes nothing.
    """
    likes = rng.normal(-1, 1.5, num_classes + 1)
    likes[-1] = 4
    logits = likes + rng.normal(0, 0.7, (len(acts), num_classes + 1))
    sure = rng.uniform(5, 9) * acts * (rng.uniform(size=len(acts)) > 0.1)
    logits[:, label] += sure
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True))[:, :-1].astype(np.float32)
