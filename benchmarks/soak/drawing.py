"""The memory of both programs over time, with every end marked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.soak.lives import Life
from step_jax.replacing import replacing

_DPI = 90
_PANEL_IN = (9, 2.2)
_MARKS = {"SIGKILL": ("x", "tab:red"), "SIGTERM": ("v", "tab:orange"), "": ("o", "tab:green")}


def draw(lives: Mapping[str, Sequence[Life]], path: str | os.PathLike, *, title: str) -> None:
    """A panel for each program: resident MiB over minutes.

    Args:
      lives: by the program's name.
      path: of the PNG.
    """
    width, height = _PANEL_IN
    figure = Figure((width, height * len(lives) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    panels = figure.subplots(len(lives), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, own) in zip(panels, lives.items(), strict=True):
        _draw_lives(axes, own)
        axes.set_ylabel(f"{name}, MiB", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
    panels[-1].set_xlabel("minutes", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _draw_lives(axes: Axes, lives: Sequence[Life]) -> None:
    for life in lives:
        if not life.samples:
            continue
        seconds, mib = zip(*life.samples, strict=True)
        axes.plot([one / 60 for one in seconds], mib, color="tab:blue", linewidth=1)
        if life.stop is not None:
            marker, color = _MARKS[life.signal]
            axes.plot(
                life.stop / 60, mib[-1], marker, color=color, markersize=5,
                label=life.signal or "its own end",
            )  # fmt: skip
    handles = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    axes.legend(handles.values(), handles.keys(), fontsize=6, loc="lower right")
