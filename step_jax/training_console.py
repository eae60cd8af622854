"""A training report as one line of text: how far, how well, how fast, and when it ends."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

_HOST_SHARE = 0.1  # from which on the loop's own work is worth a word


def console_line(
    line: Mapping[str, Any], *, total_steps: int, seconds_left: float | None, skipped: int = 0
) -> str:
    """The text of one of the log's lines, 140 characters at most for three steps.

    Args:
      line: as in `train_log.jsonl`.
      total_steps: of the training.
      seconds_left: until it ends, None where nothing is known about it.
      skipped: examples left out since the start.
    """
    parts = [f"step {line['step']}/{total_steps}", f"loss {line['loss']:.3f}"]
    parts += _per_step(line, "classification", "class", digits=2)
    parts += _per_step(line, "localization", "box", digits=3)
    if "gradient_norm" in line:
        parts.append(f"grad {line['gradient_norm']:.2g}")
    if "clips_per_second" in line:
        parts.append(f"{line['clips_per_second']:.1f} clips/s")
        parts.append(f"data {line['data_wait']:.0%}")
        if line["host_work"] >= _HOST_SHARE:
            parts[-1] += f" host {line['host_work']:.0%}"
    if skipped:
        parts.append(f"{skipped} skipped")
    if seconds_left is not None:
        parts.append(f"ETA {duration(seconds_left)} ({_clock(seconds_left)})")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`0:30:00`, or `2d 4:30` from a day on."""
    left = datetime.timedelta(seconds=round(seconds))
    if not left.days:
        return str(left)
    return f"{left.days}d {left.seconds // 3600}:{left.seconds // 60 % 60:02}"


def _per_step(line: Mapping[str, Any], name: str, short: str, *, digits: int) -> list[str]:
    values = [value for key, value in line.items() if key.startswith(f"{name}_")]
    return [f"{short} " + " ".join(f"{value:.{digits}f}" for value in values)] if values else []


def _clock(seconds_left: float) -> str:
    """When that is, local time, with the day if it is not within 24 hours."""
    end = datetime.datetime.now() + datetime.timedelta(seconds=seconds_left)
    return end.strftime("%H:%M" if seconds_left < 24 * 3600 else "%a %H:%M")
