"""The tubes of one video, found and annotated, as they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, Tube, Video
from step_jax.errors import InputError
from step_jax.metrics.tube_overlap import tube_nms
from step_jax.tube_table import Tubes
from step_jax.visualize.colors import WHITE, class_colors


@dataclass(frozen=True, eq=False)
class Track:
    """One tube.

    name: of its class or classes.
    color: RGB uint8 [3].
    frames: int [n], increasing.
    boxes: float [n, 4], shares of the frame's sides.
    score: of the tube, None for an annotated one.
    frame_scores: float [n], None for an annotated one.
    """

    name: str
    color: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    score: float | None = None
    frame_scores: np.ndarray | None = None

    @property
    def is_truth(self) -> bool:
        return self.score is None

    @property
    def title(self) -> str:
        return f"truth: {self.name}" if self.is_truth else f"{self.name} {self.score:.2f}"

    def label(self, row: int) -> str:
        """What is written beside the box of a row."""
        return self.name if self.is_truth else f"{self.name} {self.frame_scores[row]:.2f}"

    def row(self, frame: int) -> int | None:
        """Which row is of a frame; None where the tube is not there."""
        row = int(np.searchsorted(self.frames, frame))
        return row if row < len(self.frames) and self.frames[row] == frame else None


def annotated_tracks(video: Video, classes: Sequence[str]) -> list[Track]:
    """The annotated tubes, white."""

    def track(tube: Tube) -> Track:
        name = ", ".join(classes[label] for label in tube.labels)
        return Track(name, WHITE, tube.frames, tube.boxes / _sides(video))

    return [track(tube) for tube in video.tubes]


def found_tracks(tubes: Tubes, video: Video, *, top: int, min_score: float = 0.0) -> list[Track]:
    """The best tubes of a video after the NMS of each class, best first, in a colour each."""
    own = tubes.take(_of_video(tubes, video.id) & (tubes.score >= min_score))
    own = own.take(tube_nms(own)) if len(own) else own
    best = own.take(np.argsort(-own.score, kind="stable")[:top])
    colors = class_colors(top)

    def track(number: int) -> Track:
        rows = best.tube(number)
        return Track(
            name=tubes.classes[best.label[number]],
            color=colors[number],
            frames=best.frame[rows],
            boxes=best.boxes[rows] / _sides(video),
            score=float(best.score[number]),
            frame_scores=best.frame_score[rows],
        )

    return [track(number) for number in range(len(best))]


def check_same_data(tubes: Tubes, annotations: Annotations) -> None:
    """Raises InputError where tubes have other classes than the annotations."""
    if tubes.classes != annotations.classes:
        raise InputError(
            f"the tubes are of {len(tubes.classes)} classes from {tubes.classes[0]!r} on, the "
            f"annotations {annotations.name!r} of {len(annotations.classes)} from "
            f"{annotations.classes[0]!r} on; expected tubes found on this data set"
        )


def _of_video(tubes: Tubes, name: str) -> np.ndarray:
    is_it = np.array([video == name for video in tubes.videos], bool)
    return is_it[tubes.video] if len(is_it) else np.zeros(len(tubes), bool)


def _sides(video: Video) -> np.ndarray:
    return np.array([video.width, video.height] * 2, np.float32)
