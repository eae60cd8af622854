"""Frame-mAP: the boxes of every frame against the ground truth, as ACT's evaluation counts them.

`python -m step_jax.metrics.frame_map --annotations FILE --detections TABLE --split NAME` prints it
for every step of the detector. docs/evaluation.md tells the protocol and how others differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import Annotations, Video, read_native
from step_jax.boxes import box_iou
from step_jax.cli import run_command
from step_jax.detections import Detections, read_detections
from step_jax.errors import InputError
from step_jax.nms import starts_of_runs, suppress
from step_jax.replacing import replacing

BLOCK_ROWS = 2**17


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


@dataclass(frozen=True, eq=False)
class FrameBoxes:
    """N boxes in frames, of detections or of the ground truth.

    frame: int64 [N], counted through all videos of the split in the order of the annotations.
    label: int64 [N]; boxes: float32 [N, 4] in pixels of the video's frame; score: float32 [N].
    """

    frame: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    score: np.ndarray

    def take(self, rows: np.ndarray) -> FrameBoxes:
        return FrameBoxes(self.frame[rows], self.label[rows], self.boxes[rows], self.score[rows])


def frame_map(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    iou_threshold: float = 0.5,
    nms_threshold: float = 0.3,
) -> FrameMap:
    """Frame-mAP of one step's detections over all frames of a split.

    Args:
      detections: the table; of each video every frame counts, also without detections.
      annotations: their classes must be those of the table.
      split: its order of videos breaks ties between equal scores (ties: earlier video, frame).
      step: 1-based.
      iou_threshold: IoU from which a detection matches (inclusive pixels).
      nms_threshold: IoU above which the NMS of each frame and class drops (inclusive pixels).

    Raises InputError for other classes, a video outside the split, a frame outside its video, a
    split without ground truth.
    """
    videos = annotations.split(split)
    num_classes = len(annotations.classes)
    truth = _ground_truth(videos, split)
    kept = [
        _suppressed(block, nms_threshold)
        for block in _frame_boxes(detections, annotations, split, step=step)
    ]
    label = np.concatenate([block.label for block in kept])
    score = np.concatenate([block.score for block in kept])
    hit = np.concatenate([match(block, truth, iou_threshold=iou_threshold) for block in kept])
    order = np.lexsort((-score, label))  # stable: equal scores stay by video and frame

    num_ground_truth = np.bincount(truth.label, minlength=num_classes)
    ends = np.cumsum(np.bincount(label, minlength=num_classes))
    hits = np.split(hit[order], ends[:-1])
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
        protocol=_protocol(videos, annotations.classes, ap, iou_threshold, nms_threshold),
    )


def precision_recall(hits: np.ndarray, num_ground_truth: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, best first: bool `[n]` -> two float64 `[n]`.

    Recall is NaN where there is no ground truth.
    """
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    return precision, true_positives / (num_ground_truth or np.nan)


def trapezoid_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """The area under straight lines from (recall 0, precision 1), in [0, 1].

    No envelope and nothing beyond the last recall, unlike the VOC and COCO forms.
    """
    precision, recall = np.append(1.0, precision), np.append(0.0, recall)
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def match(found: FrameBoxes, truth: FrameBoxes, *, iou_threshold: float) -> np.ndarray:
    """Which detections are true positives: bool `[N]`.

    In the order of `found`, each takes the best overlapping box among those of its frame and class
    that are still free, if the overlap reaches the threshold (ties: the earlier box of `truth`).
    """
    num_classes = 1 + max(found.label.max(initial=0), truth.label.max(initial=0))
    cells = found.frame * num_classes + found.label
    detection, box = _pairs(cells, truth.frame * num_classes + truth.label)
    iou = box_iou(found.boxes[detection], truth.boxes[box], inclusive=True)
    close = np.flatnonzero(iou >= iou_threshold)
    close = close[np.lexsort((box[close], -iou[close], detection[close], cells[detection[close]]))]
    detection, box = detection[close], box[close]

    # Each round settles the first pair left in every cell: its detection is the best there, and
    # its box that detection's favourite. As many rounds as a cell has ground truth.
    hit = np.zeros(len(found.frame), bool)
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
    truth = _ground_truth(annotations.split(split), split)
    covered = np.zeros(len(truth.frame), bool)
    for found in _frame_boxes(detections, annotations, split, step=step):
        detection, box = _pairs(found.frame, truth.frame)
        iou = box_iou(found.boxes[detection], truth.boxes[box], inclusive=True)
        covered[box[iou >= iou_threshold]] = True
    return 100 * float(covered.mean())


def evaluate_table(detections: Detections, annotations: Annotations, split: str) -> dict:
    """Frame-mAP@0.5 and localization recall of every step, ready for JSON (NaN as None)."""
    steps = []
    for step in range(1, detections.header.num_steps + 1):
        rows = detections.at_step(step)
        result = frame_map(rows, annotations, split, step=step)
        steps.append(
            {
                "step": step,
                "mean": result.mean,
                "localization_recall": localization_recall(rows, annotations, split, step=step),
                "per_class": _per_class(result),
            }
        )
    return {
        "metric": "frame-mAP@0.5",
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


# --- boxes of a split -----------------------------------------------------------------------------


def _ground_truth(videos: Sequence[Video], split: str) -> FrameBoxes:
    """One row for each label of each box; the score is unused."""
    frames, labels, boxes = [], [], []
    for first_frame, video in zip(_first_frames(videos), videos, strict=False):
        for tube in video.tubes:
            for label in tube.labels:
                frames.append(first_frame + tube.frames)
                labels.append(np.full(len(tube.frames), label))
                boxes.append(tube.boxes)
    if not frames:
        raise InputError(f"split {split!r} has no annotated box; there is nothing to compare with")
    frame = np.concatenate(frames)
    return FrameBoxes(
        frame, np.concatenate(labels), np.concatenate(boxes), np.ones(len(frame), np.float32)
    )


def _frame_boxes(
    detections: Detections, annotations: Annotations, split: str, *, step: int
) -> Iterator[FrameBoxes]:
    """The step's rows, clipped to the image, by video, frame, class, descending score, tubelet.

    In blocks of whole videos, at least one; what fits into a cache is faster.
    """
    videos = annotations.split(split)
    _check_classes(detections, annotations)
    rows = detections.at_step(step)
    number = _video_numbers(rows, videos, annotations.name, split)
    rows = rows.take(np.argsort(number[rows.video], kind="stable"))
    video = number[rows.video]
    _check_frames(rows, video, videos)
    first_frames = _first_frames(videos)
    sizes = np.array([[v.width, v.height, v.width, v.height] for v in videos], np.float32)
    for block in _blocks(video, num_videos=len(videos)):
        some = rows.take(block)
        frame = first_frames[video[block]] + some.frame
        order = np.lexsort((some.tubelet, -some.score, some.label, frame))
        boxes = np.clip(some.boxes, 0, 1) * sizes[video[block]]
        yield FrameBoxes(frame, some.label.astype(np.int64), boxes, some.score).take(order)


def _blocks(video: np.ndarray, *, num_videos: int) -> Iterator[slice]:
    """Cuts rows `[N]`, ascending by video, where a video begins, about every BLOCK_ROWS rows."""
    starts = np.searchsorted(video, np.arange(num_videos))
    _, at = np.unique(starts // BLOCK_ROWS, return_index=True)
    for start, stop in itertools.pairwise([*starts[at], len(video)]):
        yield slice(int(start), int(stop))


def _suppressed(found: FrameBoxes, threshold: float) -> FrameBoxes:
    cells = found.frame * (1 + found.label.max(initial=0)) + found.label
    return found.take(suppress(found.boxes, cells, threshold, inclusive=True))


def _first_frames(videos: Sequence[Video]) -> np.ndarray:
    """Where each video begins in the count of all frames, and their number: int64 [V + 1]."""
    return np.cumsum([0, *(video.num_frames for video in videos)])


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of equal keys, as indices into `first` (ascending) and into `second`."""
    order = np.argsort(second, kind="stable")
    start = np.searchsorted(second, first, side="left", sorter=order)
    count = np.searchsorted(second, first, side="right", sorter=order) - start
    left = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    return left, order[start[left] + offset]


def _video_numbers(rows: Detections, videos: Sequence[Video], name: str, split: str) -> np.ndarray:
    """For each name of `rows.videos` its number in the split; -1 for one that has no rows."""
    numbers = {video.id: i for i, video in enumerate(videos)}
    used = np.unique(rows.video)
    for i in used:
        if rows.videos[i] not in numbers:
            raise InputError(
                f"detections of video {rows.videos[i]!r}, which is not among the {len(videos)} "
                f"videos of split {split!r} of {name}; give the annotations and split that were "
                "evaluated"
            )
    return np.array([numbers.get(name, -1) for name in rows.videos], np.int64)


def _check_frames(rows: Detections, video: np.ndarray, videos: Sequence[Video]):
    num_frames = np.array([v.num_frames for v in videos])[video]
    bad = np.flatnonzero(rows.frame >= num_frames)
    if len(bad):
        row = bad[0]
        raise InputError(
            f"detection in frame {rows.frame[row]} of video {videos[video[row]].id!r}, which has "
            f"{num_frames[row]} frames (from 0); evaluate the same videos as are annotated"
        )


def _check_classes(detections: Detections, annotations: Annotations):
    if tuple(detections.classes) != tuple(annotations.classes):
        raise InputError(
            f"the detections' classes are {list(detections.classes)}, those of "
            f"{annotations.name} {list(annotations.classes)}; expected the same, in the same order"
        )


# --- report ---------------------------------------------------------------------------------------


def _protocol(videos, classes, ap, iou_threshold: float, nms_threshold: float) -> str:
    frames = sum(video.num_frames for video in videos)
    absent = [name for name, value in zip(classes, ap, strict=True) if np.isnan(value)]
    left_out = f" (no ground truth: {', '.join(absent)})" if absent else ""
    return (
        f"frame-mAP@{iou_threshold:g}, ACT protocol: NMS {nms_threshold:g} per frame and class, "
        f"all {frames:,} frames of {len(videos)} videos (also those without ground truth), "
        "inclusive-pixel IoU, trapezoid AP from precision 1 at recall 0, mean over "
        f"{len(classes) - len(absent)} of {len(classes)} classes{left_out}"
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
    parser.add_argument("--output", help="JSON file for the numbers")
    args = parser.parse_args()
    annotations = read_native(args.annotations)
    report = evaluate_table(read_detections(args.detections), annotations, args.split)
    print(format_table(report))
    if args.output:
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
