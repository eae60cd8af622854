"""AVA's frame-mAP again, slowly: lists of tuples, a heap, loops. And rows made from text."""

import collections
import heapq
import math

import numpy as np

from step_jax.annotations.ava_csv import read_detections_csv, read_keyframes, read_labels
from step_jax.annotations.ava_labels import KINDS, LabelMap


def label_map(ids):
    ids = tuple(ids)
    return LabelMap(ids, tuple(f"action {i}" for i in ids), (KINDS[0],) * len(ids))


def read(folder, *, truth, found="", excluded=""):
    """Files of these texts, read: what `ava_map` takes."""
    (folder / "gt.csv").write_text(truth)
    (folder / "det.csv").write_text(found)
    (folder / "excluded.csv").write_text(excluded)
    return (
        read_labels(folder / "gt.csv"),
        read_detections_csv(folder / "det.csv"),
        read_keyframes(folder / "excluded.csv"),
    )


def oracle(labels, detections, ids, exclusions, protocol):
    """{id: (ap, ground truth, detections, true positives)}; `protocol` as `Protocol`."""
    listed = set(_keys(labels)) | set(_keys(labels.empty))
    excluded = set(_keys(exclusions)) if protocol.drop_excluded else set()
    truth = collections.defaultdict(list)
    for key, action, box in zip(_keys(labels), labels.action_id, labels.boxes, strict=True):
        if action in ids and key not in excluded:
            truth[key, action].append([float(x) for x in box])
    found = collections.defaultdict(list)
    rows = zip(_keys(detections), detections.action_id, detections.boxes, strict=True)
    for row, (key, action, box) in enumerate(rows):
        ignored = protocol.ignore_unlisted and key not in listed
        if action in ids and key not in excluded and not ignored:
            x1, y1, x2, y2 = (float(x) for x in box)
            found[key].append((detections.score[row], int(action), y1, x1, y2, x2, row))
    for key in found:
        found[key] = _limited(found[key], protocol.limit)
    return {i: _of_class(i, truth, found) for i in ids}


def _keys(rows):
    return [(rows.videos[v], int(t)) for v, t in zip(rows.video, rows.timestamp, strict=True)]


def _limited(rows, limit):
    if limit is None:
        return rows
    heap = []
    for row in rows:
        if len(heap) < limit:
            heapq.heappush(heap, row)
        elif row[0] > heap[0][0]:
            heapq.heapreplace(heap, row)
    return sorted(heap, key=lambda row: row[-1])


def _of_class(action, truth, found):
    boxes = {key: of_key for (key, a), of_key in truth.items() if a == action}
    outcomes = []
    for key, rows in found.items():
        rows = [r for r in rows if r[1] == action and r[3] < r[5] and r[2] < r[4]]
        taken = set()
        for score, _, y1, x1, y2, x2, row in sorted(rows, key=lambda r: (-r[0], r[-1])):
            overlaps = [_iou((x1, y1, x2, y2), box) for box in boxes.get(key, [])]
            best = overlaps.index(max(overlaps)) if overlaps else None
            hit = best is not None and overlaps[best] >= 0.5 and best not in taken
            if hit:
                taken.add(best)
            outcomes.append((-score, key, row, hit))
    hits = [outcome[-1] for outcome in sorted(outcomes)]
    count = sum(map(len, boxes.values()))
    return _ap(hits, count) if count else math.nan, count, len(hits), sum(hits)


def _iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(height, 0.0) * max(width, 0.0)
    area_a, area_b = ((c[3] - c[1]) * (c[2] - c[0]) for c in (a, b))
    return inter / ((area_a + area_b) - inter)


def _ap(hits, count):
    """At every recall the best precision from there on."""
    points = [(sum(hits[: n + 1]) / (n + 1), hit) for n, hit in enumerate(hits)]
    return sum(
        max(precision for precision, _ in points[n:]) / count
        for n, (_, hit) in enumerate(points)
        if hit
    )


def assert_equal(result, expected):
    """A result is what the oracle says."""
    for c, action in enumerate(result.label_map.ids):
        ap, *counts = expected[action]
        np.testing.assert_allclose(result.ap[c], ap, rtol=0, atol=1e-12)
        found = (result.num_ground_truth, result.num_detections, result.num_true_positives)
        assert [int(numbers[c]) for numbers in found] == counts, action
