"""A training run on one page: losses, results, samples, speed, memory.

`python -m step_jax.visualize.training --workdir DIR` draws what a run has written so far, whether
it goes on or has ended; `train.py` does so whenever it stops.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.storage import as_path, open_folder
from step_jax.training_summary import TrainingSummary, facts, read_summary
from step_jax.visualize import training_panels as panels
from step_jax.visualize.curves import finish_steps
from step_jax.visualize.training_panels import Panel

FILE = "summary.png"
_DPI = 150
_WIDTH_IN = 8.27  # A4
_MARGIN_IN = 0.45
_TITLE_IN = 0.32
_LINE_IN = 0.15
_COLUMNS_IN = (0.45, 3.15, 5.5)  # where the columns of facts begin
_KEY_IN = 0.9  # the width of what they are called
_MAX_FACT, _MAX_TITLE = 29, 60  # characters
_ROW_IN = 2.3  # the height of a row of panels
_TICKS_IN = 0.5  # of it below a panel: ticks, and the next one's title
_GAP_IN = 0.4  # between panels of a row, for the ticks


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.visualize.training", description="Draws a training run on a page."
    )
    parser.add_argument("--workdir", required=True, help="of the training run")
    parser.add_argument("--output", type=pathlib.Path, help=f"PNG file (WORKDIR/{FILE})")
    arguments = parser.parse_args()
    print(draw_summary(open_folder(arguments.workdir, flag="--workdir"), arguments.output))


def draw_summary(
    workdir: str | os.PathLike, output: str | os.PathLike | None = None
) -> str | os.PathLike:
    """Draws a run's page into `output`, or its folder; returns the file's path.

    Raises InputError if there is nothing to draw yet, or the file cannot be written.
    """
    path = output or as_path(workdir) / FILE
    figure = draw_page(read_summary(workdir))
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def draw_page(summary: TrainingSummary) -> Figure:
    """The page as a figure, A4 wide at 150 dpi: what there is nothing to show of is left out."""
    head, rows = facts(summary), _rows(summary)
    head_in = _TITLE_IN + _LINE_IN * max(map(len, head)) + 2 * _MARGIN_IN
    height = head_in + _ROW_IN * len(rows)
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    _draw_head(figure, summary.name, head)
    for number, row in enumerate(rows):
        _draw_row(figure, row, summary, top_in=height - head_in - number * _ROW_IN)
    return figure


def _rows(summary: TrainingSummary) -> list[list[Panel]]:
    """What is drawn, row by row."""
    rows = [
        [panels.loss_panel(summary)]
        + [
            panels.per_step_panel(summary, name)
            for name in ("classification", "localization", "anticipation")
        ],
        [
            panels.score_panel(summary),
            panels.rate_panel(summary),
            panels.gradient_panel(summary),
        ],
        [
            panels.samples_panel(summary),
            panels.histogram_panel(summary, at_end=False),
            panels.histogram_panel(summary, at_end=True),
        ],
        [
            panels.time_panel(summary),
            panels.speed_panel(summary),
            panels.memory_panel(summary),
        ],
    ]
    found = [[panel for panel in row if panel] for row in rows]
    return [row for row in found if row]


def _draw_head(figure: Figure, name: str, columns: list[dict[str, str]]) -> None:
    """The title and columns of facts: what they are called in grey, then what they are."""
    height = figure.get_figheight()
    write = functools.partial(figure.text, va="top", parse_math=False)
    top = 1 - _MARGIN_IN / height
    write(_MARGIN_IN / _WIDTH_IN, top, _cut(name, _MAX_TITLE), size=13, weight="bold")
    for place, column in zip(_COLUMNS_IN, columns, strict=True):
        for line, (key, value) in enumerate(column.items()):
            y = top - (_TITLE_IN + line * _LINE_IN) / height
            write(place / _WIDTH_IN, y, key, size=7, color="0.4")
            write((place + _KEY_IN) / _WIDTH_IN, y, _cut(value, _MAX_FACT), size=7)


def _cut(text: str, most: int) -> str:
    """The text, or as many characters from its end."""
    return text if len(text) <= most else "…" + text[1 - most :]


def _draw_row(figure: Figure, row: list[Panel], summary: TrainingSummary, *, top_in: float) -> None:
    """Panels side by side, over the page's whole width; a single one over half of it."""
    height, count = figure.get_figheight(), max(len(row), 2)
    width_in = (_WIDTH_IN - 2 * _MARGIN_IN - (count - 1) * _GAP_IN) / count
    steps = _step_range(summary)
    for number, panel in enumerate(row):
        left = _MARGIN_IN + number * (width_in + _GAP_IN)
        bottom = top_in - _ROW_IN + _TICKS_IN
        size = (width_in / _WIDTH_IN, (_ROW_IN - _TICKS_IN) / height)
        axes = figure.add_axes((left / _WIDTH_IN, bottom / height, *size))
        panel.draw(axes)
        if panel.over_steps:
            finish_steps(axes, steps, summary.starts())


def _step_range(summary: TrainingSummary) -> tuple[int, int]:
    steps = [line["step"] for line in summary.log] + list(summary.scores)
    return (0, max(steps))


if __name__ == "__main__":
    run_command(main)
