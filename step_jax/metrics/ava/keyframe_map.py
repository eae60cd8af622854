"""Frame-mAP on AVA's keyframes: what counts by a protocol, and the number that comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from step_jax.annotations.ava_csv import (
    FIRST_KEYFRAME,
    LAST_KEYFRAME,
    AvaDetections,
    AvaLabels,
    Keyframes,
)
from step_jax.annotations.ava_labels import LabelMap
from step_jax.errors import InputError
from step_jax.metrics.ava.box_matching import true_positives
from step_jax.metrics.ava.keyframe_boxes import KeyframeBoxes, by_keyframe, number_keyframes
from step_jax.metrics.ava.protocol import PROTOCOLS, Protocol
from step_jax.metrics.ava.row_limit import within_limit
from step_jax.metrics.average_precision import precision_recall, voc_ap

IOU_THRESHOLD = 0.5
OFFICIAL = PROTOCOLS["2018"]


@dataclass(frozen=True, eq=False)
class AvaMap:
    """The result; C classes in the order of the label map's ids.

    ap: float [C] in [0, 1]; NaN for a class without ground truth.
    mean: of the classes that have ground truth.
    num_ground_truth, num_detections, num_true_positives: int [C], of what counts by the protocol.
    ground_truth_rows, detection_rows: what became of the rows, by reason.
    remarks: detections as read that the official evaluation takes without a word, by what is
      remarkable.
    protocol: how it was counted, one line to print beside the number.
    options: the same as options.
    """

    label_map: LabelMap
    ap: np.ndarray
    mean: float
    num_ground_truth: np.ndarray
    num_detections: np.ndarray
    num_true_positives: np.ndarray
    ground_truth_rows: dict[str, int]
    detection_rows: dict[str, int]
    remarks: dict[str, int]
    protocol: str
    options: Protocol

    def mean_of(self, classes: np.ndarray) -> float:
        """Mean AP of some classes, [0, 1]; NaN where none of them has ground truth."""
        defined = classes & ~np.isnan(self.ap)
        return float(self.ap[defined].mean()) if defined.any() else np.nan


def ava_map(
    labels: AvaLabels,
    detections: AvaDetections,
    label_map: LabelMap,
    *,
    exclusions: Keyframes | None = None,
    protocol: Protocol = OFFICIAL,
) -> AvaMap:
    """Frame-mAP@0.5 of detections as the official evaluation counts it.

    Equal scores count by video name, timestamp and then row, so that the order of a table's shards
    does not matter.

    Raises InputError where nothing is left to count with: no ground truth, or detections that share
    no class or no keyframe with it.
    """
    num_classes = len(label_map)
    excluded = exclusions if protocol.drop_excluded and exclusions is not None else _NO_KEYFRAMES
    truth, truth_rows, found, found_rows = _what_counts(
        labels, detections, label_map, excluded, protocol
    )
    hit = true_positives(found, truth, num_classes=num_classes, iou_threshold=IOU_THRESHOLD)
    hits = _ranked_hits(found, hit, num_classes)
    num_ground_truth = np.bincount(truth.label, minlength=num_classes)
    ap = np.array([_ap(*of_class) for of_class in zip(hits, num_ground_truth, strict=True)])
    return AvaMap(
        label_map=label_map,
        ap=ap,
        mean=float(np.nanmean(ap)),
        num_ground_truth=num_ground_truth,
        num_detections=np.array([len(h) for h in hits]),
        num_true_positives=np.array([np.count_nonzero(h) for h in hits]),
        ground_truth_rows=truth_rows,
        detection_rows=found_rows,
        remarks=_remarks(labels, detections),
        protocol=_protocol_line(protocol, exclusions, labels, ap),
        options=protocol,
    )


_NO_KEYFRAMES = Keyframes((), np.zeros(0, np.int32), np.zeros(0, np.int32))


def _what_counts(
    labels: AvaLabels,
    detections: AvaDetections,
    label_map: LabelMap,
    excluded: Keyframes,
    protocol: Protocol,
) -> tuple[KeyframeBoxes, dict[str, int], KeyframeBoxes, dict[str, int]]:
    """Ground truth and detections that count, and what became of the rows of each."""
    count, numbers = number_keyframes([labels, labels.empty, detections, excluded])
    is_excluded, is_listed = np.zeros(count, bool), np.zeros(count, bool)
    is_excluded[numbers[3]] = True
    is_listed[numbers[0]] = is_listed[numbers[1]] = True

    truth = KeyframeBoxes(numbers[0], label_map.classes(labels.action_id), labels.boxes)
    truth, truth_rows = _true_boxes(truth, is_excluded)
    found = KeyframeBoxes(
        numbers[2], label_map.classes(detections.action_id), detections.boxes, detections.score
    )
    found, found_rows = _found_boxes(found, is_excluded, is_listed, protocol)
    has_truth = np.zeros(count, bool)
    has_truth[truth.keyframe] = True
    alone = np.count_nonzero(~has_truth[found.keyframe])
    found_rows["counted, on keyframes without ground truth"] = int(alone)
    return truth, truth_rows, found, found_rows


def _true_boxes(truth: KeyframeBoxes, is_excluded: np.ndarray) -> tuple[KeyframeBoxes, dict]:
    rows = {"read": len(truth)}
    truth = _dropped(truth, truth.label < 0, "outside the label map", rows)
    truth = _dropped(truth, is_excluded[truth.keyframe], "on excluded keyframes", rows)
    rows["counted"] = len(truth)
    if not len(truth):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in rows.items())
        raise InputError(f"no ground truth is left (rows: {reasons}); expected one row or more")
    return truth, rows


def _found_boxes(
    found: KeyframeBoxes, is_excluded: np.ndarray, is_listed: np.ndarray, protocol: Protocol
) -> tuple[KeyframeBoxes, dict]:
    """The detections that count, sorted by keyframe, and what became of the others."""
    rows = {"read": len(found)}
    found = _dropped(found, found.label < 0, "outside the label map", rows)
    _check_common_ground(found, is_listed, rows)
    found = _dropped(found, is_excluded[found.keyframe], "on excluded keyframes", rows)
    unlisted = ~is_listed[found.keyframe] & protocol.ignore_unlisted
    found = _dropped(found, unlisted, "on unlisted keyframes", rows)
    order = by_keyframe(found.keyframe)
    found = found if order is None else found.take(order)
    if protocol.limit is not None:
        found = _dropped(found, ~within_limit(found, protocol.limit), "beyond the limit", rows)
    x1, y1, x2, y2 = found.boxes.T
    found = _dropped(found, (x1 >= x2) | (y1 >= y2), "of boxes without area", rows)
    rows["counted"] = len(found)
    return found, rows


def _check_common_ground(found: KeyframeBoxes, is_listed: np.ndarray, rows: dict) -> None:
    if rows["read"] and not len(found):
        raise InputError(
            "no detection is of a class of the label map; expected action ids, not class indices"
        )
    if len(found) and not is_listed[found.keyframe].any():
        raise InputError(
            "detections and ground truth have no keyframe in common; expected the same split"
        )


def _dropped(boxes: KeyframeBoxes, bad: np.ndarray, reason: str, rows: dict) -> KeyframeBoxes:
    rows[reason] = int(np.count_nonzero(bad))
    return boxes.take(~bad)


def _remarks(labels: AvaLabels, detections: AvaDetections) -> dict[str, int]:
    """What a user wants to know: a wrong file may look so."""
    known = set(labels.videos)
    unknown = np.array([name not in known for name in detections.videos], bool)
    seconds, boxes = detections.timestamp, detections.boxes
    outside = (seconds < FIRST_KEYFRAME) | (seconds > LAST_KEYFRAME)
    beyond = (boxes.min(axis=1, initial=0) < 0) | (boxes.max(axis=1, initial=1) > 1)
    return {
        "of videos without ground truth": int(unknown[detections.video].sum()),
        f"outside {FIRST_KEYFRAME} to {LAST_KEYFRAME} s": int(outside.sum()),
        "reaching out of the frame": int(beyond.sum()),
    }


def _ranked_hits(found: KeyframeBoxes, hit: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """For each class whether its detections hit, best score first, equal ones in row order."""
    by_class = np.argsort(found.label, kind="stable")
    ends = np.cumsum(np.bincount(found.label, minlength=num_classes))
    return [
        hit[rows[np.argsort(-found.score[rows], kind="stable")]]
        for rows in np.split(by_class, ends[:-1])
    ]


def _ap(hits: np.ndarray, num_ground_truth: int) -> float:
    return voc_ap(*precision_recall(hits, num_ground_truth)) if num_ground_truth else np.nan


def _protocol_line(
    protocol: Protocol, exclusions: Keyframes | None, labels: AvaLabels, ap: np.ndarray
) -> str:
    if exclusions is None:
        excluded = "no exclusion list given"
    else:
        # A list of another split shows by this.
        videos = set(labels.videos)
        known = np.array([name in videos for name in exclusions.videos], bool)
        count, listed = int(known[exclusions.video].sum()), len(exclusions)
        others = "" if count == listed else f" (the list has {listed:,}, of other videos too)"
        excluded = f"{count:,} excluded keyframes dropped{others}"
    return (
        f"AVA frame-mAP@{IOU_THRESHOLD:g}, {protocol.describe(excluded=excluded)}, "
        f"mean over {np.count_nonzero(~np.isnan(ap))} of {len(ap)} classes"
    )
