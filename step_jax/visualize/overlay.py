"""A video's frames with what was found in them: one picture, or the steps side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from step_jax.boxes import scale_boxes
from step_jax.streaming.frame_detections import FrameBoxes
from step_jax.video import resize
from step_jax.visualize.colors import class_colors
from step_jax.visualize.draw import draw_boxes, line_width
from step_jax.visualize.panels import captioned, display_size, grid_columns, tile
from step_jax.visualize.stacks import stacks

SHORTEST_PX = 360  # a smaller video is enlarged, so that labels can be read
SHORTEST_PANEL_PX = 270
WIDEST_PX = 1920  # of all panels together
MAX_PANELS = 4
MAX_LINES = 5  # of an actor's label
_PROPOSAL_GREY = np.array([190, 190, 190], np.uint8)


class Overlay:
    """Draws the boxes of steps on frames of one size.

    Args:
      classes: names.
      width, height: of the frames.
      proposals: the initial boxes `[M, 4]`, normalised.
      steps: what to draw: 0 for the proposals, 1, 2, ... for the detector's steps; more than one is
        drawn as panels.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        width: int,
        height: int,
        proposals: np.ndarray,
        steps: Sequence[int],
    ):
        self._classes = classes
        self._colors = class_colors(len(classes))
        self._proposals = proposals
        self._steps = tuple(steps)
        alone = len(self._steps) == 1
        self._columns = grid_columns(len(self._steps), width=width, height=height)
        self._cell = display_size(
            width,
            height,
            columns=self._columns,
            shortest=SHORTEST_PX if alone else SHORTEST_PANEL_PX,
            # One picture keeps the video's own size, however large.
            widest=max(width, WIDEST_PX) if alone else WIDEST_PX,
        )
        blank = np.zeros((height, width, 3), np.uint8)
        nothing = FrameBoxes(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
        size = self(blank, dict.fromkeys(self._steps, nothing)).shape
        self.height, self.width = size[:2]

    def __call__(self, frame: np.ndarray, found: Mapping[int, FrameBoxes]) -> np.ndarray:
        """The picture, RGB uint8 `[self.height, self.width, 3]`.

        Args:
          frame: RGB uint8 `[H, W, 3]`.
          found: for each step to draw the boxes in this frame; what is under 0 is not looked at.
        """
        width, height = self._cell
        frame = resize(frame, width=width, height=height)
        if len(self._steps) == 1:
            return self._draw_step(frame, found[self._steps[0]])
        pictures = [self._panel(frame, step, found) for step in self._steps]
        return tile(pictures, columns=self._columns)

    def _panel(self, frame: np.ndarray, step: int, found: Mapping[int, FrameBoxes]) -> np.ndarray:
        if step == 0:
            return captioned(self._draw_proposals(frame, found[self._steps[-1]]), "input")
        return captioned(self._draw_step(frame, found[step]), f"step {step}")

    def _draw_step(self, frame: np.ndarray, found: FrameBoxes) -> np.ndarray:
        """One box an actor, its best class's in the colour of this, with all its classes beside."""
        boxes = _pixels(found.boxes, frame)
        actors = stacks(boxes)
        best = [rows[0] for rows in actors]
        texts = [self._text(found, rows) for rows in actors]
        return draw_boxes(frame, boxes[best], self._colors[found.label[best]], labels=texts)

    def _text(self, found: FrameBoxes, rows: np.ndarray) -> str:
        """A line a class, the best first."""
        lines = [f"{self._classes[found.label[row]]} {found.score[row]:.2f}" for row in rows]
        if len(lines) > MAX_LINES:
            lines = [*lines[: MAX_LINES - 1], f"and {len(lines) - MAX_LINES + 1} more"]
        return "\n".join(lines)

    def _draw_proposals(self, frame: np.ndarray, final: FrameBoxes) -> np.ndarray:
        """All proposals, thin; those that became the final boxes in the colours of these."""
        boxes = _pixels(self._proposals, frame)
        grey = np.repeat(_PROPOSAL_GREY[None], len(boxes), axis=0)
        picture = draw_boxes(frame, boxes, grey, thickness=1, opacity=0.5)
        origins = final.tubelet % len(boxes)
        thickness = line_width(*frame.shape[:2])
        return draw_boxes(picture, boxes[origins], self._colors[final.label], thickness=thickness)


def panel_steps(num_steps: int) -> list[int]:
    """The proposals (0), the last step and those between, evenly chosen where they are too many."""
    count = min(num_steps + 1, MAX_PANELS)
    return [round(step) for step in np.linspace(0, num_steps, count)]


def _pixels(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return scale_boxes(boxes, width=frame.shape[1], height=frame.shape[0])
