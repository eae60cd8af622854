"""An evaluation on one page: the table, what each class loses and why, precision over recall."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from step_jax.metrics.frame_errors import ERRORS
from step_jax.metrics.frame_map import FrameMap, map_of
from step_jax.metrics.ucf101_24.report import format_paper_table, protocol_lines
from step_jax.metrics.ucf101_24.results import StepResult
from step_jax.metrics.video_map import VideoMap
from step_jax.replacing import replacing
from step_jax.visualize.colors import class_colors

_DPI = 150
_WIDTH_IN, _HEIGHT_IN = 8.27, 11.69  # A4
_MARGIN_IN = 0.45
_LINE_IN = 0.145  # of the small print
_SMALL = 6.5
_SHOWN = (0.2, 0.5)  # thresholds of the classes' video-AP
_CURVE_POINTS = 400
_MAX_BAR_IN, _MAX_PANEL_IN = 0.3, 2.0
_LEGEND_IN = 0.17  # below the bars

_AP_COLOR = class_colors(7)[3] / 255
_ERROR_COLORS = {
    "localization": class_colors(7)[4] / 255,
    "classification": class_colors(7)[2] / 255,
    "time": class_colors(7)[1] / 255,
    "other": class_colors(7)[5] / 255,
    "missed": np.full(3, 0.82),
}
_VIDEO_COLOR = class_colors(7)[0] / 255
_FRAME_COLOR = class_colors(7)[6] / 255


def draw_report(path: str | os.PathLike, report: Mapping[str, Any], result: StepResult) -> None:
    """Draws a page of a report, with the classes of one of its steps that have ground truth.

    Args:
      path: of the PNG, A4 at 150 dpi.
      report: of `ucf101_24.report.make_report`.
      result: the step whose classes are drawn, the report's last.

    Raises InputError where the file cannot be written.
    """
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=_DPI)
    FigureCanvasAgg(figure)
    top = _headline(figure, report, result.step)
    step = next(one for one in report["steps"] if one["step"] == result.step)
    labels = [c for c, item in enumerate(step["per_class"]) if item["ap"] is not None]
    bars, curves = _split_rest(top, len(labels))
    _draw_bars(figure, step, labels, top=bars[0], bottom=bars[1])
    kind, tubes = list(result.tubes.items())[-1] if result.tubes else ("", None)
    _draw_curves(
        figure,
        map_of(result.frames),
        tubes and tubes.video_map,
        labels,
        kind=kind,
        top=curves[0],
        bottom=curves[1],
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _headline(figure: Figure, report: Mapping[str, Any], step: int) -> float:
    """Title, table and protocol; returns where they end, as a share of the page's height."""
    title = f"{report['annotations']}, {report['split']}: {report['num_videos']} videos"
    y = _HEIGHT_IN - _MARGIN_IN
    _write(figure, title, y, size=13, weight="bold")
    origin = ", ".join(f"{k} {v}" for k, v in list(report["provenance"].items())[:6])
    y -= 0.27
    y = _write_lines(figure, textwrap.wrap(origin, 150)[:2], y, size=_SMALL, color="0.35")
    table = format_paper_table(report).split("\n\n")
    y = _write_lines(figure, table[0].split("\n"), y - 0.08, size=9, family="monospace", line=0.175)
    notes = [line for part in table[1].split("\n") for line in textwrap.wrap(part, 150)]
    notes += [line for text in protocol_lines(report) for line in textwrap.wrap(text, 150)]
    y = _write_lines(figure, notes, y - 0.06, size=_SMALL, color="0.35")
    return (y - 0.1) / _HEIGHT_IN


def _write(figure: Figure, text: str, y_in: float, **options: Any) -> None:
    figure.text(_MARGIN_IN / _WIDTH_IN, y_in / _HEIGHT_IN, _plain(text), va="top", **options)


def _plain(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")


def _write_lines(
    figure: Figure, lines: Sequence[str], y_in: float, *, line: float = _LINE_IN, **options: Any
) -> float:
    for text in lines:
        _write(figure, text, y_in, **options)
        y_in -= line
    return y_in


def _split_rest(top: float, num_classes: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """(top, bottom) of the bars and of the curves, shares of the page's height.

    They fill the page, unless the classes are so few that bars and panels would be huge.
    """
    bottom = _MARGIN_IN / _HEIGHT_IN + 0.012
    share = min(0.25 + 0.0105 * num_classes, 0.5)
    bars = min((top - bottom) * share, num_classes * _MAX_BAR_IN / _HEIGHT_IN + 0.03)
    middle = top - bars
    rows = math.ceil(num_classes / _columns(num_classes))
    curves = min(middle - 0.065 - bottom, rows * _MAX_PANEL_IN / _HEIGHT_IN)
    return (top - 0.03, middle), (middle - 0.065, middle - 0.065 - curves)


# --- bars -----------------------------------------------------------------------------------------


def _draw_bars(
    figure: Figure, step: Mapping[str, Any], labels: Sequence[int], *, top: float, bottom: float
) -> None:
    left, right = 1.35 / _WIDTH_IN, 1 - _MARGIN_IN / _WIDTH_IN
    videos = step.get("video", {})
    width = (right - left) * (0.6 if videos else 1)
    frame = figure.add_axes((left, bottom, width, top - bottom))
    _error_bars(frame, [step["per_class"][label] for label in labels])
    if videos:
        start = left + width + 0.025
        axes = figure.add_axes((start, bottom, right - start, top - bottom), sharey=frame)
        kind, video = list(videos.items())[-1]
        classes = [video["per_class"][label] for label in labels]
        _video_bars(axes, classes, title=f"video-AP, {kind} tubes, %")


def _error_bars(axes: Axes, classes: Sequence[Mapping[str, Any]]) -> None:
    """One bar a class: AP, then what is lost to each error, which is 100 together."""
    rows = np.arange(len(classes))
    start = np.zeros(len(classes))
    # By the trapezoid rule, whatever the table's: that one and the errors are 100 together.
    found = [100 - sum(item["errors"].values()) for item in classes]
    parts = [("AP", found, _AP_COLOR)]
    parts += [(e, [item["errors"][e] for item in classes], _ERROR_COLORS[e]) for e in ERRORS]
    for name, values, color in parts:
        axes.barh(rows, values, left=start, height=0.8, color=color, label=name)
        start += values
    for row, ap in enumerate(found):
        ink = "white" if ap >= 12 else "black"
        size = _class_size(len(classes))
        axes.text(0.8, row, f"{ap:.1f}", va="center", fontsize=size, color=ink)
    axes.set_yticks(rows, [_plain(item["class"]) for item in classes])
    _finish_bars(axes, len(classes), title="frame-AP and what is lost, %")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, _legend_place(axes)),
        ncols=6,
        fontsize=_SMALL,
        frameon=False,
        columnspacing=1,
        handlelength=1,
    )


def _video_bars(axes: Axes, classes: Sequence[Mapping[str, Any]], *, title: str) -> None:
    rows = np.arange(len(classes))
    keys = [f"{t:g}" for t in _SHOWN if f"{t:g}" in classes[0]["ap"]] or list(classes[0]["ap"])[:1]
    shades = [0.45, 1.0][-len(keys) :]
    height = 0.8 / len(keys)
    for number, (key, shade) in enumerate(zip(keys, shades, strict=True)):
        values = [item["ap"][key] for item in classes]
        color = 1 - shade * (1 - _VIDEO_COLOR)
        place = rows + (number - (len(keys) - 1) / 2) * height
        axes.barh(place, values, height=height, color=color, label=f"iou3dt {float(key):g}")
    axes.tick_params(labelleft=False)
    _finish_bars(axes, len(classes), title=title)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, _legend_place(axes)),
        ncols=2,
        fontsize=_SMALL,
        frameon=False,
    )


def _finish_bars(axes: Axes, count: int, *, title: str) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(count - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=_class_size(count))
    axes.tick_params(axis="x", labelsize=_SMALL)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)


def _legend_place(axes: Axes) -> float:
    """Where the legend begins, in heights of the panel."""
    return -_LEGEND_IN / (axes.get_position().height * _HEIGHT_IN)


def _class_size(count: int) -> float:
    """Points of the classes' names: smaller where there are many."""
    return float(np.clip(270 / count, 3.5, 7))


# --- curves ---------------------------------------------------------------------------------------


def _draw_curves(
    figure: Figure,
    frames: FrameMap,
    videos: VideoMap | None,
    labels: Sequence[int],
    *,
    kind: str,
    top: float,
    bottom: float,
) -> None:
    """A small panel a class: precision over recall of boxes in frames, and of tubes."""
    count = len(labels)
    columns = _columns(count)
    left, right = _MARGIN_IN / _WIDTH_IN + 0.02, 1 - _MARGIN_IN / _WIDTH_IN
    grid = figure.add_gridspec(
        math.ceil(count / columns),
        columns,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        hspace=0.55,
        wspace=0.12,
    )
    titles = [("precision over recall", np.zeros(3)), ("boxes in frames", _FRAME_COLOR)]
    if videos is not None:
        text = f"{kind} tubes at iou3dt {_tube_threshold(videos):g}"
        titles.append((text, _VIDEO_COLOR * 0.85))
    for number, (text, color) in enumerate(titles):
        x = left - 0.02 + (0, 0.21, 0.36)[number]
        figure.text(x, top + 0.018, text, fontsize=9, fontweight="bold", color=color)
    for place, label in enumerate(labels):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        _panel(axes, frames, videos, label, first=place % columns == 0, columns=columns)


def _columns(num_classes: int) -> int:
    return math.ceil(math.sqrt(num_classes * 1.6)) if num_classes > 24 else min(num_classes, 6)


def _panel(
    axes: Axes, frames: FrameMap, videos: VideoMap | None, label: int, *, first: bool, columns: int
) -> None:
    size = 6 if columns <= 6 else 4
    if videos is not None:
        at = videos.thresholds.index(_tube_threshold(videos))
        _curve(axes, videos.precision[at][label], videos.recall[at][label], _VIDEO_COLOR)
    _curve(axes, frames.precision[label], frames.recall[label], _FRAME_COLOR)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.set_title(_plain(frames.classes[label]), fontsize=size + 0.5, pad=2)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=size)
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"] if first else ["", "", ""], fontsize=size)
    axes.tick_params(length=1.5, pad=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)


def _tube_threshold(videos: VideoMap) -> float:
    return 0.5 if 0.5 in videos.thresholds else videos.thresholds[0]


def _curve(axes: Axes, precision: np.ndarray, recall: np.ndarray, color: np.ndarray) -> None:
    """From (0, 1), thinned out to what a small panel can show."""
    if not len(recall) or np.isnan(recall[0]):
        return
    precision, recall = np.append(1.0, precision), np.append(0.0, recall)
    moved = np.append(True, np.diff(recall) > 0)
    keep = np.flatnonzero(moved | np.append(moved[1:], True))
    thinned = np.linspace(0, len(keep) - 1, min(len(keep), _CURVE_POINTS))
    keep = keep[np.unique(thinned.astype(int))]
    axes.plot(recall[keep], precision[keep], color=color, linewidth=1)
