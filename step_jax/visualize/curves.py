"""Training curves as pictures: losses and mAP over the training steps.

`python -m step_jax.visualize.curves --workdir DIR` draws what a training run has written so far.
"""

from __future__ import annotations

import argparse
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from step_jax import evaluations
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.training_log import read_log
from step_jax.visualize.colors import class_colors

_DPI = 120
_WIDTH_IN = 10.0
_PANEL_HEIGHT_IN = 2.7
_SMOOTHED = 0.02  # share of the curve that the running mean looks to each side
_FIRST = ("loss", "classification", "localization")  # then the others by name
_STEP_OF_DETECTOR = re.compile(r"(.+)_(\d+)")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.visualize.curves", description="Draws a run's curves as PNG files."
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of the training run")
    parser.add_argument(
        "--output", type=pathlib.Path, help="folder of the pictures (WORKDIR/curves)"
    )
    arguments = parser.parse_args()
    for path in draw_run(arguments.workdir, arguments.output or arguments.workdir / "curves"):
        print(path)


def draw_run(workdir: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
    """Draws the curves of a run's folder and returns the pictures' paths.

    Raises InputError if there is nothing to draw yet.
    """
    log = read_log(workdir)
    scores: dict[str, dict[int, list[float]]] = {}
    for (split, step), metrics in evaluations.read_metrics(workdir).items():
        scores.setdefault(split, {})[step] = [one["mean"] for one in metrics["steps"]]
    if not log and not scores:
        raise InputError(f"{workdir}: has no training log and no evaluation; nothing to draw")
    output.mkdir(parents=True, exist_ok=True)
    written = []
    if log:
        written.append(output / "losses.png")
        plot_losses(log, written[-1])
    for split, of_step in sorted(scores.items()):
        written.append(output / f"frame_map_{split}.png")
        plot_scores(of_step, written[-1], title=f"frame-mAP on {split}")
    return written


def plot_losses(log: Sequence[Mapping[str, float]], path: str | os.PathLike) -> None:
    """Draws every number of a training log over the training steps.

    Args:
      log: its lines, {"step": 50, "loss": ..., "classification_1": ..., ...}. What ends in the
        number of a step of the detector shares a panel with its like.
      path: of the PNG.
    """
    families = _families(log)
    columns = 2 if len(families) > 1 else 1
    rows = math.ceil(len(families) / columns)
    figure = _figure(rows)
    for number, (family, curves) in enumerate(families.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for color, (label, (steps, values)) in zip(
            _curve_colors(len(curves)), curves.items(), strict=True
        ):
            _smoothed_curve(axes, steps, values, color=color, label=label)
        _finish(axes, title=family.replace("_", " "), legend=len(curves) > 1)
    _save(figure, path)


def plot_scores(
    scores: Mapping[int, Sequence[float]], path: str | os.PathLike, *, title: str = "frame-mAP"
) -> None:
    """Draws the mAP of each step of the detector over training, its last value in the legend.

    Args:
      scores: training step -> mAP of the detector's steps 1, 2, ..., percent; NaN leaves a gap.
      path: of the PNG.
      title: of the picture.
    """
    steps = sorted(scores)
    num_steps = max(len(values) for values in scores.values())
    table = np.full((num_steps, len(steps)), np.nan)
    for column, step in enumerate(steps):
        table[: len(scores[step]), column] = scores[step]
    figure = _figure(2)
    axes = figure.add_subplot()
    for number, (values, color) in enumerate(
        zip(table, _curve_colors(num_steps), strict=True), start=1
    ):
        label = f"step {number}: {values[-1]:.1f} %"
        axes.plot(steps, values, color=color, marker="o", markersize=5, linewidth=2, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mAP, %")
    _finish(axes, title=title, legend=True)
    _save(figure, path)


Curve = tuple[np.ndarray, np.ndarray]


def _families(log: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Curve]]:
    """Panel -> curve's label -> (training steps, values)."""
    names = sorted({name for line in log for name in line} - {"step"})
    families: dict[str, dict[str, Curve]] = {}
    for name in names:
        match = _STEP_OF_DETECTOR.fullmatch(name)
        family, label = (match[1], f"step {match[2]}") if match else (name, name)
        points = [(line["step"], line[name]) for line in log if name in line]
        steps, values = np.array(points, float).T
        families.setdefault(family, {})[label] = steps, values
    first = {name: place for place, name in enumerate(_FIRST)}
    return dict(sorted(families.items(), key=lambda item: (first.get(item[0], 9), item[0])))


def _smoothed_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, *, color, label: str):
    """Faint as measured, strong as the mean of the values around."""
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
    axes.plot(steps, running_mean(values, round(_SMOOTHED * len(values))), color=color, label=label)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means `[N]` of up to `window` values on both sides; fewer, but as many, near the ends."""
    places = np.arange(len(values))
    reach = np.minimum(window, np.minimum(places, places[::-1]))
    sums = np.cumsum(np.insert(values, 0, 0.0))
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def _curve_colors(count: int) -> np.ndarray:
    """Blue, orange, green, ...: of the classes' palette what is dark enough on white."""
    order = [6, 0, 3, 2, 5, 1]
    return class_colors(7)[[order[number % len(order)] for number in range(count)]] / 255


def _figure(rows: int) -> Figure:
    figure = Figure(
        figsize=(_WIDTH_IN, _PANEL_HEIGHT_IN * rows + 0.3), dpi=_DPI, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure


def _finish(axes: Axes, *, title: str, legend: bool) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("training step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=9)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    run_command(main)
