"""What was found in a video, for people and as JSON."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from step_jax.streaming.sightings import Sighting, Sightings

_COPIED = (
    "frames",
    "fps",
    "width",
    "height",
    "checkpoint",
    "detector_step",
    "stride",
    "score_threshold",
)
_KEYS = {"video", "checkpoint", "detector_step"}  # by which a summary is told from other JSON


@dataclass(frozen=True)
class Report:
    """The result of one video.

    video: absolute path, by which a later run knows these results as its own.
    frames, width, height: of what was decoded, at `fps` frames a second.
    expected: how many frames the file promised; None if it did not say.
    checkpoint: training step of the detector; detector_step: which of its steps is summed up.
    seconds: of each phase of the work.
    files: what was written.
    """

    name: str
    video: pathlib.Path
    frames: int
    expected: int | None
    fps: float
    width: int
    height: int
    checkpoint: int
    detector_step: int
    stride: int
    score_threshold: float
    seconds: Mapping[str, float]
    classes: Sequence[str]
    sightings: Sightings
    files: Sequence[pathlib.Path]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; frames count from 0."""
        return {
            "video": str(self.video),
            **{key: getattr(self, key) for key in _COPIED},
            "seconds": {phase: round(value, 3) for phase, value in self.seconds.items()},
            "classes": {
                self.classes[label]: seen.to_json() for label, seen in self.sightings.best_first()
            },
        }

    def text(self) -> str:
        """A table of the classes, the surest first, and where the files lie."""
        return "\n".join([self._heading(), *self._table(), *(f"  {file}" for file in self.files)])

    def _heading(self) -> str:
        seconds = sum(self.seconds.values())
        return (
            f"\n{self.name}: {self.frames} frames, {self.frames / self.fps:.1f} s at "
            f"{self.fps:.4g} fps; took {seconds:.1f} s, {self.frames / seconds:.1f} frames a second"
        )

    def _table(self) -> list[str]:
        found = self.sightings.best_first()
        if not found:
            return [self._nothing_found()]
        width = max(len("class"), *(len(self.classes[label]) for label, _ in found))
        rows = [f"{self.classes[label]:{width}}  {self._cells(seen)}" for label, seen in found]
        heading = f"{'class':{width}}  best  frames  longest  seen"
        return [f"  {line}" for line in (heading, *rows)]

    def _cells(self, seen: Sighting) -> str:
        span = f"{clock_time(seen.first / self.fps)} - {clock_time((seen.last + 1) / self.fps)}"
        longest = f"{seen.longest_run / self.fps:.1f} s"
        return f"{seen.best_score:.2f}  {seen.frames:6d}  {longest:>7}  {span}"

    def _nothing_found(self) -> str:
        text = f"  nothing with a score of {self.score_threshold} or more"
        text += f" at step {self.detector_step}"
        if self.sightings.best_label is None:
            return text
        best = self.classes[self.sightings.best_label]
        return f"{text}; the best of all is {best!r} with {self.sightings.best_score:.3f}"


def is_summary_of(video: pathlib.Path, file: pathlib.Path) -> bool:
    """Whether a file is what `Report.to_json` says of this video, and nobody else's JSON."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or not told.keys() >= _KEYS:
            return False
        return pathlib.Path(str(told["video"])).resolve() == video.resolve()
    except (OSError, ValueError, RecursionError):
        return False


def clock_time(seconds: float) -> str:
    """75.25 -> 1:15.2 and 3675 -> 1:01:15.0"""
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{rest / 10:04.1f}"
