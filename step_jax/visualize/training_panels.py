"""The panels of a training's page: each function makes one of a run's summary, or None without
anything to show in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes

from step_jax.training_summary import Curve, TrainingSummary
from step_jax.visualize.curves import (
    curve_colors,
    draw_curves,
    draw_smoothed,
    finish_panel,
    start_at_zero,
)

_MAX_NAME = 24  # characters of a group's pattern
_MEMORY = {
    "host": "host_mib",
    "host, peak": "host_peak_mib",
    "device": "device_mib",
    "device, peak": "device_peak_mib",
}
_TIMES = {"device": 5, "data": 3, "host": 0}  # part of a step's time -> place in the palette


@dataclasses.dataclass(frozen=True)
class Panel:
    """`draw(axes)`, and whether the axis below is that of training steps."""

    draw: Callable[[Axes], None]
    over_steps: bool = True


def loss_panel(summary: TrainingSummary) -> Panel | None:
    return _single(summary.curve("loss"), "loss")


def per_step_panel(summary: TrainingSummary, name: str) -> Panel | None:
    """One of the losses, a curve for each step of the detector."""
    curves = summary.per_step(name)
    return _curves(curves, name) if curves else None


def score_panel(summary: TrainingSummary) -> Panel | None:
    """mAP of each step of the detector at each evaluation, the last one in the legend."""
    return Panel(lambda axes: _draw_scores(axes, summary)) if summary.scores else None


def _draw_scores(axes: Axes, summary: TrainingSummary) -> None:
    steps, count = list(summary.scores), max(map(len, summary.scores.values()))
    table = np.full((count, len(steps)), np.nan)
    for column, values in enumerate(summary.scores.values()):
        table[: len(values), column] = [np.nan if one is None else one for one in values]
    for number, (values, color) in enumerate(zip(table, curve_colors(count), strict=True), start=1):
        label = f"step {number}: " + ("none" if np.isnan(values[-1]) else f"{values[-1]:.1f}")
        axes.plot(
            steps,
            values,
            color=color,
            marker="o",
            markersize=3,
            linewidth=1.2,
            label=label,
            clip_on=False,
        )
    start_at_zero(axes)
    finish_panel(axes, title=f"{summary.metric}, %", legend=True)


def rate_panel(summary: TrainingSummary) -> Panel | None:
    """The learning rate, or those of all groups of parameters, which differ by factors."""
    lines = [line["learning_rates"] for line in summary.log if "learning_rates" in line]
    if not lines:
        return _single(summary.curve("learning_rate"), "learning rate")
    curves = {_short(name): summary.curve("learning_rates", part=name) for name in lines[-1]}

    return _curves(curves, "learning rate", log=True)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def gradient_panel(summary: TrainingSummary) -> Panel | None:
    curve = summary.curve("gradient_norm")
    return curve and _curves({"": curve}, "norm of the gradient", log=True)


def samples_panel(summary: TrainingSummary) -> Panel | None:
    """What each step is trained on; negatives dashed."""
    kinds = [(name, summary.per_step(name)) for name in ("positives", "negatives")]
    if not kinds[0][1]:
        return None

    several = len(kinds[0][1]) > 1

    def draw(axes: Axes) -> None:
        for (name, curves), style in zip(kinds, ("-", "--"), strict=True):
            colors = curve_colors(len(curves))
            for (label, curve), color in zip(curves.items(), colors, strict=True):
                shown = label if name == "positives" else ""
                draw_smoothed(axes, curve, color=color, label=shown, style=style)
        axes.set_ylim(bottom=0)
        finish_panel(axes, title="positives, negatives (dashed) a clip", legend=several)

    return Panel(draw)


def histogram_panel(summary: TrainingSummary, *, at_end: bool) -> Panel | None:
    """Figure 4: which share of a step's inputs overlaps the ground truth by how much."""
    histograms = summary.histograms(at_end=at_end)
    if not histograms:
        return None
    both = [*summary.histograms(at_end=False).values(), *summary.histograms(at_end=True).values()]
    top = 105 * np.max(both)

    def draw(axes: Axes) -> None:
        colors = curve_colors(len(histograms))
        for (label, shares), color in zip(histograms.items(), colors, strict=True):
            edges = np.linspace(0, 1, len(shares) + 1)
            axes.stairs(100 * shares, edges, color=color, linewidth=1.3, label=label)
            axes.stairs(100 * shares, edges, color=color, alpha=0.08, fill=True)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, top)
        when = "end" if at_end else "start"
        finish_panel(axes, title=f"inputs by IoU, at the {when}, %", legend=len(histograms) > 1)

    return Panel(draw, over_steps=False)


def time_panel(summary: TrainingSummary) -> Panel | None:
    """A step's milliseconds, split into the three parts of `step_time.StepTime`."""
    parts = {name: summary.curve(f"{name}_ms") for name in _TIMES}
    return Panel(lambda axes: _draw_times(axes, parts)) if parts["device"] else None


def _draw_times(axes: Axes, parts: Mapping[str, Curve]) -> None:
    steps, below = parts["device"][0], 0.0
    total = sum(values.sum() for _, values in parts.values())
    for name, (_, values) in parts.items():
        label, color = f"{name} {values.sum() / total:.0%}", curve_colors(6)[_TIMES[name]]
        above = below + values
        axes.fill_between(steps, below, above, color=color, alpha=0.75, linewidth=0, label=label)
        below = above
    if len(steps) == 1:
        axes.plot(steps, below, marker="o", markersize=3, color=curve_colors(6)[_TIMES["host"]])
    start_at_zero(axes)
    finish_panel(axes, title="ms a step, by what it waits for", legend=True)


def speed_panel(summary: TrainingSummary) -> Panel | None:
    curve = summary.curve("clips_per_second")
    return curve and _curves({"": curve}, "clips/s", from_zero=True)


def memory_panel(summary: TrainingSummary) -> Panel | None:
    """The host's memory and the fullest device's, as they are and at their highest."""
    curves = {}
    for label, key in _MEMORY.items():
        if curve := summary.curve(key):
            curves[label] = curve[0], curve[1] / 1024
    return _curves(curves, "memory, GiB", from_zero=True) if curves else None


def _curves(
    curves: Mapping[str, Curve], title: str, *, log: bool = False, from_zero: bool = False
) -> Panel:
    options = {"title": title, "log": log, "from_zero": from_zero}
    return Panel(lambda axes: draw_curves(axes, curves, **options))


def _single(curve: Curve | None, title: str) -> Panel | None:
    return curve and _curves({"": curve}, title)
