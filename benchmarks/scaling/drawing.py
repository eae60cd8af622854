"""Measurements as one picture: time and memory of a training step over each sweep's axis."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.scaling.cases import PLAIN
from benchmarks.scaling.table import AXES
from step_jax.replacing import replacing

Row = Mapping[str, Any]
_DPI = 110
_PANEL_IN = (2.6, 2.5)


def draw(
    sweeps: Mapping[str, Sequence[Row]],
    path: str | os.PathLike,
    *,
    title: str,
    cost: str = "ms a clip",
) -> None:
    """A column for each sweep: the cost of a clip above, memory below.

    Args:
      sweeps: rows of `Measurement.row`, by sweep.
      path: of the PNG.
      cost: what it is, in milliseconds.
    """
    width, height = _PANEL_IN
    figure = Figure((max(2, len(sweeps)) * width, 2 * height + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    panels = figure.subplots(2, len(sweeps), squeeze=False)
    for (above, below), (sweep, rows) in zip(panels.T, sweeps.items(), strict=True):
        fitting = [row for row in rows if row["fits"]]
        _draw_time(above, fitting)
        _draw_memory(below, fitting)
        for axes in (above, below):
            _label_values(axes, sweep, fitting)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=7)
        below.set_xlabel(AXES[sweep], fontsize=8)
    panels[0, 0].set_ylabel(cost, fontsize=8)
    panels[1, 0].set_ylabel("MiB", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _draw_time(axes: Axes, rows: Sequence[Row]) -> None:
    """Medians, and bars from the cheapest round to the dearest."""
    for color, (series, own) in enumerate(_by_series(rows).items()):
        middle = [1e3 * row["cost"] for row in own]
        if series == PLAIN:
            axes.axhline(middle[0], color="black", linestyle="--", linewidth=1, label=series)
            continue
        below = [1e3 * (row["cost"] - row["least_cost"]) for row in own]
        above = [1e3 * (row["most_cost"] - row["cost"]) for row in own]
        axes.errorbar(
            [row["value"] for row in own], middle, yerr=[below, above],
            marker="o", markersize=4, capsize=2, color=f"C{color}", label=series or None,
        )  # fmt: skip
    _legend(axes)


def _draw_memory(axes: Axes, rows: Sequence[Row]) -> None:
    """The process's peak as lines, of it XLA's temporary buffers dashed."""
    for color, (series, own) in enumerate(_by_series(rows).items()):
        if series == PLAIN:
            continue
        for name, style, text in (("peak_mib", "-", "peak"), ("temporary_mib", "--", "temporary")):
            points = [(row["value"], row[name]) for row in own if row[name] is not None]
            axes.plot(
                *zip(*points, strict=True), style,
                marker="o", markersize=4, color=f"C{color}",
            )  # fmt: skip
            axes.plot([], [], style, color="black", label=text)
    _legend(axes)


def _label_values(axes: Axes, sweep: str, rows: Sequence[Row]) -> None:
    """The values that were measured, and no others; doubling ones at equal distances."""
    values = sorted({row["value"] for row in rows})
    if sweep in ("devices", "batch", "accumulate", "largest") and values:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    names = [f"{value:g}" for value in values]
    if sweep == "remat":
        names = [row["series"] for row in rows]
        axes.margins(x=0.3)
    axes.set_xticks(values, names)


def _by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of the lines of a panel; those of remat are one line."""
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault("" if row["sweep"] == "remat" else row["series"], []).append(row)
    return series


def _legend(axes: Axes) -> None:
    """Each text once."""
    handles = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        axes.legend(handles.values(), handles.keys(), fontsize=6)
