"""When each class was seen in a video, and how surely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from step_jax.streaming.frame_detections import FrameBoxes


@dataclass
class Sighting:
    """One class's frames, numbered from 0, of which at least one was added.

    frames: how many show it; first, last: the outermost of them.
    best_score, best_frame: where it is surest.
    longest_run, longest_start: the most frames without a break, and the first of them.
    run_start: where the run that holds `last` began.
    """

    frames: int = 0
    first: int = -1
    last: int = -1
    best_score: float = -1.0
    best_frame: int = -1
    longest_run: int = 0
    longest_start: int = -1
    run_start: int = -1

    def add(self, frame: int, score: float) -> None:
        """One more frame, later than those before."""
        if not self.frames:
            self.first = frame
        if not self.frames or frame > self.last + 1:
            self.run_start = frame
        self.frames, self.last = self.frames + 1, frame
        if score > self.best_score:
            self.best_score, self.best_frame = score, frame
        run = frame + 1 - self.run_start
        if run > self.longest_run:
            self.longest_run, self.longest_start = run, self.run_start

    def to_json(self) -> dict[str, int | float]:
        return {key: value for key, value in asdict(self).items() if key != "run_start"}


class Sightings:
    """Of all classes; filled frame by frame."""

    def __init__(self):
        self._of_label: dict[int, Sighting] = {}
        self.best_label: int | None = None
        self.best_score = -1.0

    def consider(self, rows: Mapping[str, np.ndarray]) -> None:
        """Remembers the best of rows of the detections table, shown or not."""
        if len(rows["score"]) and rows["score"].max() > self.best_score:
            best = int(rows["score"].argmax())
            self.best_label = int(rows["class"][best])
            self.best_score = float(rows["score"][best])

    def add(self, frame: int, found: FrameBoxes) -> None:
        """Counts what is shown in a frame; frames come in order."""
        for label in np.unique(found.label).tolist():
            sighting = self._of_label.setdefault(label, Sighting())
            sighting.add(frame, float(found.score[found.label == label].max()))

    def best_first(self) -> list[tuple[int, Sighting]]:
        """(label, sighting) of the classes seen, the surest first."""
        return sorted(self._of_label.items(), key=lambda item: -item[1].best_score)
