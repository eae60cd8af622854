"""The results as one picture: the paper's figures 4, 5 and 6, and its tables as curves and bars."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from benchmarks.claims.layout import FIGURE_5, PROPOSALS, SECTION_42, TABLE_1A, TABLE_1B
from benchmarks.claims.matrix import FULL, PLAIN
from benchmarks.claims.statements import Results
from step_jax.replacing import replacing
from step_jax.visualize.curves import curve_colors

_DPI = 110
_SIZE_IN = (14, 6.4)


def draw(results: Results, speed: Mapping[str, Any] | None, path: str | os.PathLike) -> None:
    """Eight panels; those of rows that were not run are empty.

    Args:
      results: row -> runs.
      speed: what `speed.measure` told, if it was measured.
      path: of the PNG.
    """
    figure = Figure(_SIZE_IN, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4)
    _draw_steps(panels[0, 0], results, TABLE_1A, title="Table 1a: S steps")
    _draw_steps(panels[0, 1], results, FIGURE_5, title="Figure 5: temporal extension")
    _draw_steps(panels[0, 2], results, SECTION_42, title="Section 4.2: without one technique")
    _draw_bars(panels[0, 3], results, TABLE_1B, title="Table 1b: modalities")
    _draw_overlaps(panels[1, 0], results)
    _draw_speed(panels[1, 1], speed)
    _draw_proposals(panels[1, 2], results, speed)
    _draw_tubes(panels[1, 3], results)
    for axes in panels.flat:
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _draw_steps(axes: Axes, results: Results, rows: Mapping[str, str], *, title: str) -> None:
    """Frame-mAP over the detector's steps: means, and bars of a standard deviation."""
    for color, (row, name) in zip(curve_colors(len(rows)), rows.items(), strict=True):
        runs = results.get(row, ())
        if not runs:
            continue
        values = np.array([run["frame_map"] for run in runs])
        steps = np.arange(1, values.shape[1] + 1)
        axes.errorbar(
            steps, values.mean(axis=0), yerr=_deviation(values), color=color, label=name,
            marker="o", markersize=3, linewidth=1.2, capsize=2,
        )  # fmt: skip
    _finish(axes, title, x="step", y="frame-mAP", legend=True)
    axes.xaxis.set_major_locator(MultipleLocator(1))


def _draw_bars(axes: Axes, results: Results, rows: Mapping[str, str], *, title: str) -> None:
    colors = curve_colors(len(rows))
    for place, (row, color) in enumerate(zip(rows, colors, strict=True)):
        runs = results.get(row, ())
        if runs:
            values = np.array([run["frame_map"][-1] for run in runs])
            axes.bar(place, values.mean(), yerr=_deviation(values), color=color, capsize=3)
    axes.set_xticks(range(len(rows)), rows.values())
    _finish(axes, title, x="", y="frame-mAP")


def _draw_overlaps(axes: Axes, results: Results) -> None:
    """Figure 4: a histogram of each step, the mean over the seeds."""
    runs = results.get(FULL, ())
    if runs:
        shares = np.mean([run["overlap_histogram"] for run in runs], axis=0)
        edges = np.linspace(0, 1, shares.shape[1] + 1)
        for step, (own, color) in enumerate(zip(shares, curve_colors(len(shares)), strict=True)):
            axes.stairs(own, edges, color=color, label=f"step {step + 1}", linewidth=1.4)
    _finish(
        axes, "Figure 4: input proposals", x="IoU with the ground truth", y="share", legend=True
    )


def _draw_speed(axes: Axes, speed: Mapping[str, Any] | None) -> None:
    """Figure 6a: frames a second of detectors of more and more steps."""
    kinds = {"steps": "K = 6", "extended": "extended"}
    for color, (kind, name) in zip(curve_colors(len(kinds)), kinds.items(), strict=True):
        if speed:
            rates = [speed[f"{kind}_{steps}"]["frames_per_second"] for steps in (1, 2, 3, 4)]
            axes.plot([1, 2, 3, 4], rates, color=color, label=name, marker="o", markersize=3)
    _finish(axes, "Figure 6a: speed", x="steps", y="frames/s", legend=True)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MultipleLocator(1))


def _draw_tubes(axes: Axes, results: Results) -> None:
    """Table 2: video-mAP over thresholds, of tubes as they are linked and trimmed."""
    rows = {FULL: "extended", PLAIN: "K = 6", "dense": "one step, dense"}
    kinds = {"linked": "--", "trimmed": "-"}
    for color, (row, name) in zip(curve_colors(len(rows)), rows.items(), strict=True):
        for kind, line in kinds.items():
            runs = [run["video_map"][kind] for run in results.get(row, ()) if "video_map" in run]
            if runs:
                thresholds = sorted((one for one in runs[0] if ":" not in one), key=float)
                means = [np.mean([run[one] for run in runs]) for one in thresholds]
                axes.plot(
                    [float(one) for one in thresholds], means, line, color=color,
                    label=f"{name}, {kind}", linewidth=1.2,
                )  # fmt: skip
    _finish(axes, "Table 2: tubes", x="IoU threshold", y="video-mAP", legend=True)


def _draw_proposals(axes: Axes, results: Results, speed: Mapping[str, Any] | None) -> None:
    """Figure 6b: frame-mAP as points, frames a second as bars."""
    for place, row in enumerate(PROPOSALS.values()):
        runs = results.get(row, ())
        if runs:
            values = np.array([run["frame_map"][-1] for run in runs])
            axes.errorbar(
                place, values.mean(), yerr=_deviation(values), color="tab:green", marker="o",
                capsize=3,
            )  # fmt: skip
    if speed:
        rates = [speed[f"proposals_{number}"]["frames_per_second"] for number in PROPOSALS]
        other = axes.twinx()
        other.bar(range(len(rates)), rates, color="tab:blue", alpha=0.35, width=0.6)
        other.set_ylabel("frames/s (bars)", fontsize=7)
        other.tick_params(labelsize=7)
    axes.set_xticks(range(len(PROPOSALS)), PROPOSALS)
    _finish(axes, "Figure 6b: proposals", x="M", y="frame-mAP (points)")


def _deviation(values: np.ndarray) -> np.ndarray:
    """Of the seeds, the first axis; nothing of one."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def _finish(axes: Axes, title: str, *, x: str, y: str, legend: bool = False) -> None:
    axes.set_title(title, fontsize=8)
    axes.set_xlabel(x, fontsize=7)
    axes.set_ylabel(y, fontsize=7)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6.5)
