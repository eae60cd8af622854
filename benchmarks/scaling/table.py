"""Measurements as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# Of what the `value` of a sweep is a number.
AXES = {
    "devices": "devices",
    "proposals": "proposals M",
    "steps": "steps S",
    "window": "target clip K, frames",
    "batch": "batch, clips",
    "accumulate": "parts of a batch of 8",
    "remat": "computed again",
    "largest": "batch, clips",
}

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "batch": lambda row: f"{row['batch']}",
    "ms a clip": lambda row: f"{1e3 * row['seconds'] / row['batch']:.1f}",
    "clips/s": lambda row: f"{row['clips_per_second']:.2f}",
    "processor ms": lambda row: f"{1e3 * row['cpu_seconds'] / row['batch']:.1f}",
    "x first": lambda row: f"{row['relative']:.2f}",
    "spread": lambda row: f"{row['most_cost'] / row['least_cost'] - 1:.0%}",
    "GFLOP a clip": lambda row: f"{row['gflop_per_clip']:.2f}",
    "of peak": lambda row: f"{row['share_of_peak']:.1%}",
    "temporary MiB": lambda row: f"{row['temporary_mib']:.0f}",
    "peak MiB": lambda row: f"{row['peak_mib']:.0f}",
}


def with_relative(rows: Sequence[Row]) -> list[Row]:
    """Rows of one sweep, with the cost as a multiple of the first one's of all."""
    first = next((row for row in rows if row["fits"]), None)
    return [
        {**row, "relative": row["cost"] / first["cost"]} if row["fits"] else row for row in rows
    ]


def table(sweep: str, rows: Sequence[Row]) -> str:
    """One sweep's; columns that no row has a number for are left out."""
    rows = with_relative(rows)
    cells = {name: [_cell(show, row) for row in rows] for name, show in _COLUMNS.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    lines = [f"{AXES[sweep]:<28}" + "".join(f"{name:>14}" for name in cells)]
    for index, row in enumerate(rows):
        values = "".join(f"{column[index]:>14}" for column in cells.values())
        lines.append(f"{label(row):<28}{values}" + ("" if row["fits"] else "  does not fit"))
    return "\n".join(lines)


def label(row: Row) -> str:
    """A row's place in its sweep, in words."""
    if row["sweep"] == "remat":
        return row["series"]
    return f"{row['value']:g}" + (f", {row['series']}" if row["series"] else "")


def _cell(show: Callable[[Row], str], row: Row) -> str:
    """Empty where the row lacks the number."""
    try:
        return show(row)
    except (KeyError, TypeError):
        return ""
