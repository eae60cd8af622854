"""The numbers of an evaluation as JSON, as rows of a Parquet table, and as the paper's table.

docs/evaluation.md describes the keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from step_jax.metrics.frame_errors import ERRORS
from step_jax.metrics.frame_map import table_report
from step_jax.metrics.ucf101_24.results import StepResult, TubeResult
from step_jax.metrics.video_map import THRESHOLDS
from step_jax.replacing import replacing

RANGE = ".5:.95"
MADE_BY = "step_jax.ucf101_24_report"

_PARQUET = pa.schema(
    [
        ("step", pa.int8()),
        ("metric", pa.string()),  # "frame" or "video"
        ("tubes", pa.string()),  # "linked" or "trimmed"; empty for frames
        ("threshold", pa.float32()),  # of IoU or iou3dt
        ("class", pa.string()),
        ("ap", pa.float64()),  # percent; empty for a class without ground truth
        ("num_ground_truth", pa.int64()),
        ("num_detections", pa.int64()),
        ("num_true_positives", pa.int64()),
        *((name, pa.float64()) for name in ERRORS),  # percent, of boxes in frames alone
    ]
)


def make_report(
    results: Sequence[StepResult], *, ap: str, provenance: Mapping[str, str]
) -> dict[str, Any]:
    """The report of some steps of one detector, ready for JSON (NaN as None).

    The keys of `frame_map.evaluate_table`, and in each step with tubes "video": for each kind of
    tubes the means at the thresholds, at .5:.95, the classes' AP, how the tubes were made and the
    protocol.
    """
    report = table_report(
        {result.step: result.frames for result in results},
        ap=ap,
        num_videos_with_detections=max(result.num_videos for result in results),
        provenance=provenance,
    )
    for step, result in zip(report["steps"], results, strict=True):
        if result.tubes:
            step["video"] = {kind: _video(tubes) for kind, tubes in result.tubes.items()}
    return report


def format_paper_table(report: Mapping[str, Any]) -> str:
    """A report as text: a row for each step and kind of tubes, as in the paper's Table 2."""
    thresholds = _shown_thresholds(report)
    rows = [_Row(step, kind) for step in report["steps"] for kind in step.get("video", {"": None})]
    names = [row.name(report) for row in rows]
    width = max(map(len, names))
    frame = report["metric"].removeprefix("frame-mAP")
    head = f"{'':<{width}}  {'frame-mAP':>9}"
    units = f"{'':<{width}}  {frame:>9}"
    if thresholds:
        head += "  video-mAP"
        units += "".join(f"{_short(value):>8}" for value in (*thresholds, RANGE))
    lines = [head, units]
    for name, row in zip(names, rows, strict=True):
        values = "".join(_number(value) for value in row.video_means(thresholds))
        lines.append(f"{name:<{width}}  {row.step['mean']:9.2f}{values}")
    last = report["steps"][-1]
    lines += ["", _errors_line(last), *_missing_videos(report), "", *protocol_lines(report)]
    return "\n".join(lines)


def protocol_lines(report: Mapping[str, Any]) -> list[str]:
    """What to print beside the numbers: how boxes and tubes were counted, and how tubes made."""
    lines = [report["protocol"]]
    for kind, video in _last_video(report).items():
        if video["protocol"] not in lines:
            lines.append(video["protocol"])
        lines.append(f"{kind} tubes: {video['made']} ({video['num_tubes']:,} tubes)")
    return lines


def write_report_table(path: str | os.PathLike, report: Mapping[str, Any]) -> None:
    """The report's classes as Parquet: a row for each step, metric, threshold and class.

    The protocols are among the file's metadata.
    """
    table = pa.Table.from_pylist(list(_class_rows(report)), schema=_PARQUET)
    metadata = {"format": MADE_BY, "version": "1", "protocol": "\n".join(protocol_lines(report))}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def _video(result: TubeResult) -> dict[str, Any]:
    found = result.video_map
    keys = [f"{threshold:g}" for threshold in found.thresholds]
    return {
        "protocol": found.protocol,
        "made": result.made,
        "num_tubes": len(result.tubes),
        "mean": dict(zip(keys, map(float, found.mean), strict=True)),
        "mean_50_95": found.averaged,
        "per_class": [
            {
                "class": name,
                "num_ground_truth": int(found.num_ground_truth[label]),
                "num_detections": int(found.num_detections[label]),
                "ap": {k: _or_none(v) for k, v in zip(keys, found.ap[:, label], strict=True)},
                "num_true_positives": {
                    k: int(v) for k, v in zip(keys, found.num_true_positives[:, label], strict=True)
                },
            }
            for label, name in enumerate(found.classes)
        ],
    }


class _Row:
    """A row of the paper's table: a step, and one kind of its tubes if it has any."""

    def __init__(self, step: Mapping[str, Any], kind: str):
        self.step, self.kind = step, kind

    def name(self, report: Mapping[str, Any]) -> str:
        trimmed = ", trimmed" if self.kind == "trimmed" else ""
        return f"step {self.step['step']}{trimmed}"

    def video_means(self, thresholds: Sequence[float]) -> list[float | None]:
        if not self.kind:
            return [None] * (len(thresholds) + 1 if thresholds else 0)
        video = self.step["video"][self.kind]
        return [video["mean"].get(f"{t:g}") for t in thresholds] + [video["mean_50_95"]]


def _last_video(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the last step that has tubes."""
    found = [step["video"] for step in report["steps"] if "video" in step]
    return found[-1] if found else {}


def _shown_thresholds(report: Mapping[str, Any]) -> list[float]:
    """Of the thresholds that were asked for, the paper's; all of them where none is the paper's."""
    for video in _last_video(report).values():
        known = [float(key) for key in video["mean"]]
        return [t for t in known if t in THRESHOLDS] or known
    return []


def _errors_line(step: Mapping[str, Any]) -> str:
    shares = "  ".join(f"{name} {step['errors'][name]:.2f}" for name in ERRORS)
    recall = f"localization recall {step['localization_recall']:.2f}"
    return f"step {step['step']}, lost frame-AP: {shares}; {recall}"


def _missing_videos(report: Mapping[str, Any]) -> list[str]:
    total, found = report["num_videos"], report["num_videos_with_detections"]
    if found == total:
        return []
    return [
        f"{total - found} of {total} videos have no rows in the table; they count as videos in "
        "which nothing was found"
    ]


def _class_rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    iou = float(report["metric"].partition("@")[2])
    for step in report["steps"]:
        for item in step["per_class"]:
            errors, rest = item["errors"], {k: v for k, v in item.items() if k != "errors"}
            place = {"step": step["step"], "metric": "frame", "tubes": "", "threshold": iou}
            yield place | rest | errors
        for kind, video in step.get("video", {}).items():
            for item in video["per_class"]:
                for key, ap in item["ap"].items():
                    yield {
                        "step": step["step"],
                        "metric": "video",
                        "tubes": kind,
                        "threshold": float(key),
                        "class": item["class"],
                        "ap": ap,
                        "num_ground_truth": item["num_ground_truth"],
                        "num_detections": item["num_detections"],
                        "num_true_positives": item["num_true_positives"][key],
                    }


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}".removeprefix("0")


def _number(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.2f}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
