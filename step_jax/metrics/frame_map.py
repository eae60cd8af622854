"""Frame-mAP: the boxes of every frame against the ground truth, as ACT's evaluation counts them.

`python -m step_jax.metrics.frame_map --annotations FILE --detections TABLE --split NAME` prints it
for every step of the detector. docs/evaluation.md tells the protocol and how others differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, Video, read_native
from step_jax.boxes import box_iou
from step_jax.cli import run_command
from step_jax.detections import Detections, TableHeader, read_detections
from step_jax.files import write_json
from step_jax.metrics.average_precision import precision_recall, ranking, trapezoid_ap
from step_jax.metrics.frame_boxes import (
    FrameBoxes,
    detected_boxes,
    frames_that_count,
    pairs,
    truth_boxes,
)
from step_jax.nms import starts_of_runs, suppress


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
    iou_threshold: float = 0.5,
    nms_threshold: float = 0.3,
) -> FrameMap:
    """Frame-mAP of one step's detections over the frames of a split.

    Args:
      detections: the table; a video or frame without rows counts as one without detections. Its
        header says whether all frames count or only those in the middle of a window.
      annotations: their classes must be those of the table.
      split: equal scores count in its order of videos, then in that of the frames.
      step: 1-based.
      iou_threshold: overlap from which a detection matches.
      nms_threshold: overlap above which the NMS of each frame and class drops.

    Raises InputError as `truth_boxes` and `detected_boxes`.
    """
    num_classes = len(annotations.classes)
    truth = truth_boxes(annotations, split, detections.header)
    blocks = [
        suppressed(block, nms_threshold)
        for block in detected_boxes(detections, annotations, split, step=step)
    ]
    hit = np.concatenate([match(block, truth, iou_threshold=iou_threshold) for block in blocks])
    label = np.concatenate([block.label for block in blocks])
    score = np.concatenate([block.score for block in blocks])
    hits = [hit[rows] for rows in ranking(label, score, num_classes=num_classes)]

    num_ground_truth = np.bincount(truth.label, minlength=num_classes)
    curves = [precision_recall(h, n) for h, n in zip(hits, num_ground_truth, strict=True)]
    areas = np.array([100 * trapezoid_ap(*curve) for curve in curves])
    ap = np.where(num_ground_truth > 0, areas, np.nan)
    return FrameMap(
        classes=annotations.classes,
        ap=ap,
        mean=float(np.nanmean(ap)),
        num_ground_truth=num_ground_truth,
        num_detections=np.array([len(h) for h in hits]),
        num_true_positives=np.array([np.count_nonzero(h) for h in hits]),
        precision=tuple(precision for precision, _ in curves),
        recall=tuple(recall for _, recall in curves),
        protocol=_protocol(annotations, split, detections.header, ap, iou_threshold, nms_threshold),
    )


def suppressed(found: FrameBoxes, threshold: float) -> FrameBoxes:
    """What the NMS of each frame and class leaves of boxes in the order of `detected_boxes`."""
    cells = found.cells(1 + found.label.max(initial=0))
    return found.take(suppress(found.boxes, cells, threshold, inclusive=True))


def match(found: FrameBoxes, truth: FrameBoxes, *, iou_threshold: float) -> np.ndarray:
    """Which detections are true positives: bool `[N]`.

    In the order of `found`, each takes the best overlapping box among those of its frame and class
    that are still free, if the overlap reaches the threshold (ties: the earlier box of `truth`).
    """
    num_classes = 1 + max(found.label.max(initial=0), truth.label.max(initial=0))
    cells = found.cells(num_classes)
    detection, box = pairs(cells, truth.cells(num_classes))
    iou = box_iou(found.boxes[detection], truth.boxes[box], inclusive=True)
    close = np.flatnonzero(iou >= iou_threshold)
    close = close[np.lexsort((box[close], -iou[close], detection[close], cells[detection[close]]))]
    detection, box = detection[close], box[close]

    # Each round settles the first pair left in every cell: its detection is the best there, and
    # its box that detection's favourite. As many rounds as a cell has ground truth.
    hit = np.zeros(len(cells), bool)
    while len(detection):
        is_first = starts_of_runs(cells[detection])
        hit[detection[is_first]] = True
        of_cell = np.cumsum(is_first) - 1
        left = detection != detection[is_first][of_cell]
        left &= box != box[is_first][of_cell]
        detection, box = detection[left], box[left]
    return hit


def localization_recall(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    iou_threshold: float = 0.5,
) -> float:
    """Percentage of the ground truth that some detection of any class overlaps, before NMS.

    A box with several classes counts once for each. Says whether a step fails at boxes or at
    actions.
    """
    truth = truth_boxes(annotations, split, detections.header)
    covered = np.zeros(len(truth.frame), bool)
    for found in detected_boxes(detections, annotations, split, step=step):
        detection, box = pairs(found.frame, truth.frame)
        iou = box_iou(found.boxes[detection], truth.boxes[box], inclusive=True)
        covered[box[iou >= iou_threshold]] = True
    return 100 * float(covered.mean())


def evaluate_table(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    iou_threshold: float = 0.5,
    nms_threshold: float = 0.3,
) -> dict:
    """Frame-mAP and localization recall of every step, ready for JSON (NaN as None)."""
    steps = []
    for step in range(1, detections.header.num_steps + 1):
        rows = detections.at_step(step)
        result = frame_map(
            rows,
            annotations,
            split,
            step=step,
            iou_threshold=iou_threshold,
            nms_threshold=nms_threshold,
        )
        recall = localization_recall(
            rows, annotations, split, step=step, iou_threshold=iou_threshold
        )
        steps.append(
            {
                "step": step,
                "mean": result.mean,
                "localization_recall": recall,
                "per_class": _per_class(result),
            }
        )
    return {
        "metric": f"frame-mAP@{iou_threshold:g}",
        "protocol": result.protocol,
        "annotations": annotations.name,
        "split": split,
        "num_videos": len(annotations.split(split)),
        "num_videos_with_detections": len(np.unique(detections.video)),
        "provenance": dict(detections.header.provenance),
        "steps": steps,
    }


def format_table(report: dict) -> str:
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
    return "\n".join([*lines, "", report["protocol"]])


def _protocol(
    annotations: Annotations,
    split: str,
    header: TableHeader,
    ap: np.ndarray,
    iou_threshold: float,
    nms_threshold: float,
) -> str:
    videos, classes = annotations.split(split), annotations.classes
    absent = [name for name, value in zip(classes, ap, strict=True) if np.isnan(value)]
    left_out = f" (no ground truth: {', '.join(absent)})" if absent else ""
    return (
        f"frame-mAP@{iou_threshold:g}, ACT protocol: NMS {nms_threshold:g} per frame and class, "
        f"{_frames(videos, header)} of {len(videos)} videos (also those without ground truth), "
        "inclusive-pixel IoU, trapezoid AP from precision 1 at recall 0, mean over "
        f"{len(classes) - len(absent)} of {len(classes)} classes{left_out}"
    )


def _frames(videos: Sequence[Video], header: TableHeader) -> str:
    counts = frames_that_count(videos, header)
    if header.frames == "all":
        return f"all {len(counts):,} frames"
    return (
        f"{np.count_nonzero(counts):,} of {len(counts):,} frames (the middle ones of windows of "
        f"{header.clip_frames} frames, stride {header.stride})"
    )


def _per_class(result: FrameMap) -> list[dict]:
    counts = (result.num_ground_truth, result.num_detections, result.num_true_positives)
    return [
        {
            "class": name,
            "ap": None if np.isnan(ap) else float(ap),
            "num_ground_truth": int(ground_truth),
            "num_detections": int(found),
            "num_true_positives": int(hits),
        }
        for name, ap, ground_truth, found, hits in zip(
            result.classes, result.ap, *counts, strict=True
        )
    ]


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
    annotations = read_native(args.annotations)
    report = evaluate_table(
        read_detections(args.detections), annotations, args.split, nms_threshold=args.frame_nms
    )
    print(format_table(report))
    if args.output:
        write_json(args.output, report)


if __name__ == "__main__":
    run_command(main)
