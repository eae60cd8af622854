"""AVA's result as one page: every class by its AP, the kinds of actions, the protocol."""

from __future__ import annotations

import os
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from step_jax.annotations.ava_labels import KINDS
from step_jax.metrics.ava.keyframe_map import AvaMap
from step_jax.replacing import replacing

_DPI = 150
_SIZE_IN = (8.27, 11.69)  # A4
_COLORS = dict(zip(KINDS, ("#4477aa", "#ee8866", "#44aa77"), strict=True))
_MAX_NAME = 40  # characters
_COUNTS_AT = (1.33, 1.67, 1.88)  # where the columns end, shares of the bars' width
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def draw_page(result: AvaMap, path: str | os.PathLike) -> None:
    """Draws a result as a PNG of one page, A4 upright."""
    figure = Figure(figsize=_SIZE_IN, dpi=_DPI)
    FigureCanvasAgg(figure)
    figure.text(0.05, 0.965, f"AVA frame-mAP@0.5: {100 * result.mean:.2f}", size=17, weight="bold")
    protocol = textwrap.fill(result.protocol, 118)
    figure.text(0.05, 0.957, protocol, size=8.5, va="top", color="#444444", parse_math=False)
    _draw_kinds(figure.add_axes((0.36, 0.85, 0.32, 0.055)), result)
    _draw_classes(figure.add_axes((0.36, 0.03, 0.32, 0.78)), result)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_kinds(axes: Axes, result: AvaMap) -> None:
    kinds = np.array(result.label_map.kinds)
    members = [kinds == kind for kind in KINDS]
    counts = [
        [int(numbers[chosen].sum()) for chosen in members]
        for numbers in (result.num_ground_truth, result.num_detections, result.num_true_positives)
    ]
    defined = [int((chosen & ~np.isnan(result.ap)).sum()) for chosen in members]
    names = [f"{kind} ({n} classes)" for kind, n in zip(KINDS, defined, strict=True)]
    means = np.array([result.mean_of(chosen) for chosen in members])
    _draw_bars(axes, names, means, counts, [_COLORS[kind] for kind in KINDS], size=8.5)
    axes.set_title("mean by kind of action", loc="left", size=9)


def _draw_classes(axes: Axes, result: AvaMap) -> None:
    """The classes in descending AP, those without ground truth last."""
    order = np.argsort(np.where(np.isnan(result.ap), 1, -result.ap), kind="stable")
    label_map = result.label_map
    names = [f"{_short(label_map.names[c])}  {_padded(label_map.ids[c])}" for c in order]
    counts = [
        numbers[order].tolist()
        for numbers in (result.num_ground_truth, result.num_detections, result.num_true_positives)
    ]
    colors = [_COLORS[label_map.kinds[c]] for c in order]
    size = min(8.5, 500 / max(len(order), 1))
    _draw_bars(axes, names, result.ap[order], counts, colors, size=size)
    axes.axvline(100 * result.mean, color="#888888", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_title("AP by class and its id, %; dashed: their mean", loc="left", size=9)


def _draw_bars(
    axes: Axes,
    names: list[str],
    ap: np.ndarray,
    counts: list[list[int]],
    colors: list[str],
    *,
    size: float,
) -> None:
    """One bar a name, with its AP and three columns of counts beside it."""
    places = np.arange(len(names))
    axes.barh(places, np.nan_to_num(100 * ap), color=colors, height=0.72)
    axes.set_yticks(places, names, size=size, parse_math=False)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    across = axes.get_yaxis_transform()
    for place, value in zip(places, ap, strict=True):
        text = "no ground truth" if np.isnan(value) else f"{100 * value:.1f}"
        start = 0 if np.isnan(value) else 100 * value
        axes.text(start + 1, place, text, size=size - 1, va="center", bbox=_ON_WHITE)
    for x, title, column in zip(_COUNTS_AT, ("truth", "detected", "hits"), counts, strict=True):
        axes.text(x, -0.9, title, size=8, ha="right", transform=across, color="#444444")
        for place, number in zip(places, column, strict=True):
            axes.text(x, place, f"{number:,}", size=size, ha="right", va="center", transform=across)


def _padded(action_id: int) -> str:
    """With a space as wide as a digit before one."""
    return f"{action_id:>2}".replace(" ", "\N{FIGURE SPACE}")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
