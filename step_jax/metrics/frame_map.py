"""Frame-mAP: the boxes of every frame against the ground truth, as ACT's evaluation counts them.

`python -m step_jax.metrics.frame_map --annotations FILE --detections TABLE --split NAME` prints it
for every step of the detector. docs/evaluation.md tells the protocol and how others differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, read_native
from step_jax.cli import run_command
from step_jax.detections import Detections, read_detections
from step_jax.files import write_json
from step_jax.metrics.average_precision import (
    AP_RULES,
    average_precision,
    check_ap_rule,
    precision_recall,
)
from step_jax.metrics.frame_boxes import detected_boxes
from step_jax.metrics.frame_errors import ERRORS, FrameErrors, errors_of
from step_jax.metrics.frame_tally import HIT, FrameTally, tally
from step_jax.replacing import check_outputs

_NAMED = 6  # classes without ground truth that a protocol names


@dataclass(frozen=True, eq=False)
class FrameMap:
    """The result; C classes.

    ap: float [C], percent; NaN for a class without ground truth in the split.
    mean: of the classes that have ground truth, percent.
    num_ground_truth: int [C], boxes.
    num_detections: int [C], boxes after the NMS of the frame.
    num_true_positives: int [C].
    precision, recall: for each class float [num_detections], in descending score.
    protocol: how it was counted, one line to print beside the number.
    """

    classes: tuple[str, ...]
    ap: np.ndarray
    mean: float
    num_ground_truth: np.ndarray
    num_detections: np.ndarray
    num_true_positives: np.ndarray
    precision: tuple[np.ndarray, ...]
    recall: tuple[np.ndarray, ...]
    protocol: str


def frame_map(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    ap: str = "trapezoid",
    **options,
) -> FrameMap:
    """Frame-mAP of one step's detections over the frames of a split.

    Args:
      detections: the table; a video or frame without rows counts as one without detections. Its
        header says whether all frames count or only those in the middle of a window.
      annotations: their classes must be those of the table.
      split: equal scores count in its order of videos, then in that of the frames.
      step: 1-based.
      ap: one of `average_precision.AP_RULES`.
      options: of `FrameTally`: iou_threshold (.5), nms_threshold (.3), frames ("all").

    Raises InputError as `truth_boxes` and `detected_boxes`.
    """
    blocks = detected_boxes(detections, annotations, split, step=step)
    return map_of(tally(blocks, annotations, split, detections.header, **options), ap=ap)


def map_of(counted: FrameTally, *, ap: str = "trapezoid") -> FrameMap:
    """Frame-mAP of what was counted. Raises InputError for an unknown rule."""
    check_ap_rule(ap)
    hits = [kinds == HIT for kinds in counted.ranked()]
    num_ground_truth = counted.num_ground_truth
    curves = [precision_recall(h, n) for h, n in zip(hits, num_ground_truth, strict=True)]
    areas = np.array([100 * average_precision(*curve, rule=ap) for curve in curves])
    areas = np.where(num_ground_truth > 0, areas, np.nan)
    return FrameMap(
        classes=counted.annotations.classes,
        ap=areas,
        mean=float(np.nanmean(areas)),
        num_ground_truth=num_ground_truth,
        num_detections=np.array([len(h) for h in hits]),
        num_true_positives=np.array([np.count_nonzero(h) for h in hits]),
        precision=tuple(precision for precision, _ in curves),
        recall=tuple(recall for _, recall in curves),
        protocol=_protocol(counted, areas, rule=ap),
    )


def localization_recall(
    detections: Detections, annotations: Annotations, split: str, *, step: int, **options
) -> float:
    """`FrameTally.localization_recall` of one step's detections."""
    blocks = detected_boxes(detections, annotations, split, step=step)
    return tally(blocks, annotations, split, detections.header, **options).localization_recall


def evaluate_table(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    ap: str = "trapezoid",
    **options,
) -> dict:
    """Frame-mAP, its errors and localization recall of every step, ready for JSON (NaN as None).

    Arguments and errors as for `frame_map`.
    """
    tallies = {}
    for step in range(1, detections.header.num_steps + 1):
        blocks = detected_boxes(detections.at_step(step), annotations, split, step=step)
        tallies[step] = tally(blocks, annotations, split, detections.header, **options)
    return table_report(
        tallies,
        ap=ap,
        num_videos_with_detections=len(np.unique(detections.video)),
        provenance=detections.header.provenance,
    )


def table_report(
    tallies: Mapping[int, FrameTally],
    *,
    ap: str,
    num_videos_with_detections: int,
    provenance: Mapping[str, str],
) -> dict:
    """The report of `evaluate_table` from what was counted at each step."""
    steps, protocol = [], ""
    for step, counted in tallies.items():
        result, errors = map_of(counted, ap=ap), errors_of(counted)
        protocol = result.protocol
        steps.append(
            {
                "step": step,
                "mean": result.mean,
                "localization_recall": counted.localization_recall,
                "errors": {name: errors.means()[name] for name in ERRORS},
                "per_class": _per_class(result, errors),
            }
        )
    return {
        "metric": f"frame-mAP@{counted.iou_threshold:g}",
        "protocol": protocol,
        "annotations": counted.annotations.name,
        "split": counted.split,
        "num_videos": len(counted.annotations.split(counted.split)),
        "num_videos_with_detections": num_videos_with_detections,
        "provenance": dict(provenance),
        "steps": steps,
    }


def format_table(report: dict, *, protocol: bool = True) -> str:
    """The report of `evaluate_table` as text: one row a class, one column a step."""
    steps = report["steps"]
    width = max(len("localization recall"), *(len(c["class"]) for c in steps[0]["per_class"]))
    header = "".join(f"{'step ' + str(step['step']):>9}" for step in steps)
    lines = [f"{'class':<{width}}{header}{'boxes':>9}"]
    for row in zip(*(step["per_class"] for step in steps), strict=True):
        cells = "".join(_percent(item["ap"]) for item in row)
        lines.append(f"{row[0]['class']:<{width}}{cells}{row[0]['num_ground_truth']:>9,}")
    for name, key in (("mean", "mean"), ("localization recall", "localization_recall")):
        lines.append(f"{name:<{width}}" + "".join(_percent(step[key]) for step in steps))
    return "\n".join([*lines, "", report["protocol"]] if protocol else lines)


def _protocol(counted: FrameTally, ap: np.ndarray, *, rule: str) -> str:
    classes = counted.annotations.classes
    plain = rule == "trapezoid" and counted.frames == "all"
    return (
        f"frame-mAP@{counted.iou_threshold:g}, {'' if plain else 'not '}ACT protocol: "
        f"NMS {counted.nms_threshold:g} per frame and class, {counted.frames_text}, "
        f"inclusive-pixel IoU, {AP_RULES[rule]}, {classes_text(classes, ap)}"
    )


def classes_text(classes: Sequence[str], ap: np.ndarray) -> str:
    """Over which classes the mean is, for a protocol; NaN marks those without ground truth."""
    absent = [name for name, value in zip(classes, ap, strict=True) if np.isnan(value)]
    names = ", ".join(absent[:_NAMED])
    others = f" and {len(absent) - _NAMED} others" if len(absent) > _NAMED else ""
    left_out = f" (no ground truth: {names}{others})" if absent else ""
    return f"mean over {len(classes) - len(absent)} of {len(classes)} classes{left_out}"


def _per_class(result: FrameMap, errors: FrameErrors) -> list[dict]:
    rows = []
    for label, name in enumerate(result.classes):
        known = result.num_ground_truth[label] > 0
        shares = {e: float(getattr(errors, e)[label]) if known else None for e in ERRORS}
        rows.append(
            {
                "class": name,
                "ap": float(result.ap[label]) if known else None,
                "num_ground_truth": int(result.num_ground_truth[label]),
                "num_detections": int(result.num_detections[label]),
                "num_true_positives": int(result.num_true_positives[label]),
                "errors": shares,
            }
        )
    return rows


def _percent(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:>9.2f}"


def main():
    parser = argparse.ArgumentParser(description="Frame-mAP@0.5 of a detections table.")
    parser.add_argument("--annotations", required=True, help="native annotation file (JSON)")
    parser.add_argument("--detections", required=True, help="table that evaluate.py wrote")
    parser.add_argument("--split", required=True, help="split of the annotations, e.g. test")
    parser.add_argument("--frame_nms", type=float, default=0.3, help="IoU (0.3); 1: no NMS")
    parser.add_argument("--output", help="JSON file for the numbers")
    args = parser.parse_args()
    check_outputs([args.output], inputs=[args.annotations, args.detections])
    annotations = read_native(args.annotations)
    report = evaluate_table(
        read_detections(args.detections), annotations, args.split, nms_threshold=args.frame_nms
    )
    print(format_table(report))
    if args.output:
        write_json(args.output, report)


if __name__ == "__main__":
    run_command(main)
