"""The result of AVA's metric as JSON and as text."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from step_jax.annotations.ava_labels import KINDS
from step_jax.metrics.ava.keyframe_map import AvaMap


def as_json(result: AvaMap) -> dict:
    """Ready for JSON: APs in [0, 1], None where undefined; docs/ava.md tells the schema."""
    return {
        "metric": "AVA frame-mAP@0.5",
        "protocol": result.protocol,
        "options": {"name": result.options.name, **asdict(result.options)},
        "mAP": _number(result.mean),
        "per_class": _per_class(result),
        "breakdown": breakdown(result),
        "rows": {"ground_truth": result.ground_truth_rows, "detections": result.detection_rows},
        "remarks": result.remarks,
    }


def breakdown(result: AvaMap) -> dict[str, dict]:
    """The mean over the classes of each kind that have ground truth, and their counts."""
    kinds = np.array(result.label_map.kinds)
    return {
        kind: {
            "mAP": _number(result.mean_of(kinds == kind)),
            "num_classes": int(np.count_nonzero((kinds == kind) & ~np.isnan(result.ap))),
            "num_ground_truth": int(result.num_ground_truth[kinds == kind].sum()),
            "num_detections": int(result.num_detections[kinds == kind].sum()),
            "num_true_positives": int(result.num_true_positives[kinds == kind].sum()),
        }
        for kind in KINDS
    }


def as_text(result: AvaMap) -> str:
    """Tables of the classes and of their kinds, what became of the rows, the protocol."""
    label_map = result.label_map
    names = [f"{i:>2} {name}" for i, name in zip(label_map.ids, label_map.names, strict=True)]
    counts = (result.num_ground_truth, result.num_detections, result.num_true_positives)
    width = max(len(name) for name in (*names, *KINDS))
    lines = [f"{'class':<{width}}{'AP':>8}{'truth':>10}{'detected':>13}{'hits':>10}"]
    for name, ap, *numbers in zip(names, result.ap, *counts, strict=True):
        lines.append(_line(name, width, ap, numbers))
    lines.append("")
    for kind, one in breakdown(result).items():
        ap = math.nan if one["mAP"] is None else one["mAP"]
        numbers = [one[key] for key in ("num_ground_truth", "num_detections", "num_true_positives")]
        lines.append(_line(kind, width, ap, numbers))
    lines.append(_line("mAP", width, result.mean, [numbers.sum() for numbers in counts]))
    lines += ["", f"ground truth: {_rows(result.ground_truth_rows)}"]
    lines += [f"detections: {_rows(result.detection_rows)}"]
    if any(result.remarks.values()):
        lines += [f"of the detections read: {_rows(result.remarks)}"]
    return "\n".join([*lines, result.protocol])


def _per_class(result: AvaMap) -> dict[str, dict]:
    label_map = result.label_map
    return {
        str(label_map.ids[c]): {
            "name": label_map.names[c],
            "kind": label_map.kinds[c],
            "ap": _number(result.ap[c]),
            "num_ground_truth": int(result.num_ground_truth[c]),
            "num_detections": int(result.num_detections[c]),
            "num_true_positives": int(result.num_true_positives[c]),
        }
        for c in range(len(label_map))
    }


def _line(name: str, width: int, ap: float, counts: list[int]) -> str:
    percent = "-" if math.isnan(ap) else f"{100 * ap:.2f}"
    truth, detected, hits = counts
    return f"{name:<{width}}{percent:>8}{truth:>10,}{detected:>13,}{hits:>10,}"


def _rows(rows: dict[str, int]) -> str:
    shown = {reason: n for reason, n in rows.items() if n or reason in ("read", "counted")}
    return ", ".join(f"{n:,} {reason}" for reason, n in shown.items())


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
