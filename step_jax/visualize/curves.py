"""Curves over the training steps: what the panels of a training's page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from step_jax.visualize.colors import class_colors

SMALL = 6.5  # points, of ticks and legends
_SMOOTHED = 0.02  # share of the curve that the running mean looks to each side
_TICKS = (1, 2, 5, 10)
_SHOWN_POINTS = 3  # so few points get a mark each, or nothing would be seen of one

Curve = tuple[np.ndarray, np.ndarray]


def curve_colors(count: int) -> np.ndarray:
    """Blue, orange, green, ...: of the classes' palette what is dark enough on white."""
    order = [6, 0, 3, 2, 5, 1]
    return class_colors(7)[[order[number % len(order)] for number in range(count)]] / 255


def draw_smoothed(axes: Axes, curve: Curve, *, color, label: str, style: str = "-") -> None:
    """Faint as measured, strong as the mean of the values around."""
    steps, values = curve
    marker = "o" if len(steps) <= _SHOWN_POINTS else None
    mean = running_mean(values, round(_SMOOTHED * len(values)))
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.7, linestyle=style)
    axes.plot(
        steps, mean, color=color, linewidth=1.2, linestyle=style, label=label,
        marker=marker, markersize=3,
    )  # fmt: skip


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means `[N]` of up to `window` values on both sides; fewer, but as many, near the ends."""
    places = np.arange(len(values))
    reach = np.minimum(window, np.minimum(places, places[::-1]))
    sums = np.cumsum(np.insert(values, 0, 0.0))
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Curve],
    *,
    title: str,
    log: bool = False,
    from_zero: bool = False,
) -> None:
    """Smoothed curves by their labels, of one colour each; a single one needs no legend.

    Args:
      axes: to draw in.
      curves: label -> (training steps [N], values [N]).
      title: of the panel.
      log: whether values are drawn on a logarithmic axis, if there are positive ones.
      from_zero: whether the axis begins at zero, with room for the legend at its top.
    """
    for (label, curve), color in zip(curves.items(), curve_colors(len(curves)), strict=True):
        draw_smoothed(axes, curve, color=color, label=label)
    if log and any((values > 0).any() for _, values in curves.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=_TICKS))
    if from_zero:
        start_at_zero(axes)
    axes.yaxis.set_major_formatter(short_number)
    finish_panel(axes, title=title, legend=len(curves) > 1)


def start_at_zero(axes: Axes) -> None:
    """The values' axis from zero, with room for a legend at its top."""
    axes.set_ylim(0, 1.25 * max(axes.dataLim.y1, 1e-9))


def short_number(value: float, place: int | None = None) -> str:
    """A tick's label: 0.01, 5e-4, 20, 3e5."""
    del place
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def finish_panel(axes: Axes, *, title: str, legend: bool) -> None:
    """Title, ticks, grid; what all panels have."""
    axes.set_title(title, loc="left", fontsize=8, fontweight="bold", pad=4)
    axes.tick_params(labelsize=SMALL, length=2, pad=2)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(
            fontsize=SMALL,
            handlelength=1.2,
            labelspacing=0.25,
            borderpad=0.1,
            framealpha=0.7,
            edgecolor="none",
        )


def finish_steps(axes: Axes, steps: tuple[float, float], starts: Sequence[int]) -> None:
    """The axis of training steps, the same in all panels, with a dotted line at each new start."""
    first, last = steps
    axes.set_xlim(first, first + 1.02 * max(last - first, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_TICKS, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for start in starts:
        axes.axvline(start, color="0.45", linewidth=0.8, linestyle=":", zorder=0)
