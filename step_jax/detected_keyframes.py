"""A detector's tables as detections on AVA's keyframes.

The detections table (frames="middle") has the boxes on the keyframes already; of a tubelet table,
one detector's or several fused, the keyframe's boxes are taken through the thresholds first.
Frames become seconds of the movie, class indices action ids.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import numpy as np

from step_jax.annotations.ava_csv import AvaDetections
from step_jax.annotations.ava_labels import LabelMap
from step_jax.annotations.ava_time import FPS, second_of_frame
from step_jax.clip_detections import clip_detections
from step_jax.detections import Detections, read_detections, read_header
from step_jax.errors import InputError
from step_jax.nms import starts_of_runs
from step_jax.tubelet_table import TubeletRows, iter_tubelet_videos, read_tubelet_header
from step_jax.windows import reported

BLOCK_TUBELETS = 2**12  # that fit into a cache
SIDE = 400  # of the network's input, of the paper's and the released models


@dataclass(frozen=True, kw_only=True)
class KeyframeLimits:
    """What of a keyframe's tubelets becomes a detection; the defaults are those of configs/ava.py.

    score_threshold: a score must be above it.
    nms: overlap on the keyframe from which on the lower score of a class is dropped; boxes are in
      pixels of the network's input and count both border pixels.
    per_class_top: the best of a class that enter the NMS.
    top: the best (class, box) pairs of a keyframe.
    image_size: the side of the network's input; None: what the table says, or else 400.
    """

    score_threshold: float = 0.01
    nms: float = 0.4
    per_class_top: int = 400
    top: int = 300
    image_size: int | None = None

    def __post_init__(self):
        lowest = {"score_threshold": 0, "nms": 0, "per_class_top": 1, "top": 1, "image_size": 1}
        for name, value in vars(self).items():
            if value is not None and value < lowest[name]:
                raise InputError(f"{name} is {value}; expected {lowest[name]} or more")


def read_detected_keyframes(
    path: str | os.PathLike, label_map: LabelMap, *, step: int | None = None
) -> AvaDetections:
    """The detections of one step, the last by default, of a detections table.

    Raises InputError as the table's reader and `keyframe_detections`.
    """
    step = step or read_header(path).num_steps
    return keyframe_detections(read_detections(path, step=step), label_map, where=path)


def keyframe_detections(
    detections: Detections, label_map: LabelMap, *, where: str | os.PathLike
) -> AvaDetections:
    """The rows of one step. Raises InputError where they are not those of AVA's keyframes."""
    header = detections.header
    if header.frames != "middle":
        raise InputError(
            f"{where}: holds {header.frames} frames of its windows; expected the middle ones, "
            "which AVA annotates (eval.frames = 'middle')"
        )
    check_classes(header.classes, label_map, where=where)
    _check_frames(detections.frame, detections, where=where)
    return _on_keyframes(
        detections.videos,
        detections.video,
        detections.frame,
        boxes=detections.boxes,
        label=detections.label,
        score=detections.score,
        label_map=label_map,
    )


def read_tubelet_keyframes(
    path: str | os.PathLike,
    label_map: LabelMap,
    *,
    step: int | None = None,
    limits: KeyframeLimits | None = None,
) -> AvaDetections:
    """The detections of one step, the last by default, of a tubelet table.

    One detector's own detections table gives the same ones, made with the same limits. Memory: the
    detections and one video's tubelets. Raises InputError as the table's reader, and where it is
    not of AVA's keyframes.
    """
    limits, header = limits or KeyframeLimits(), read_tubelet_header(path)
    check_classes(header.classes, label_map, where=path)
    told = header.provenance.get("image_size", "")
    side = limits.image_size or (int(told) if told.isdecimal() else SIDE)
    names: list[str] = []
    parts = [_no_rows()]
    for rows in iter_tubelet_videos(path, step=step or header.steps[-1]):
        _check_frames(rows.start + header.clip_frames // 2, rows, where=path)
        names.extend(rows.videos)
        for block in _blocks(rows.start):
            found = _detections(rows.take(block), limits, side)
            parts.append({"video": np.full(len(found["frame"]), len(names) - 1), **found})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _on_keyframes(tuple(names), **columns, label_map=label_map)


def check_classes(
    classes: tuple[str, ...], label_map: LabelMap, *, where: str | os.PathLike
) -> None:
    """Raises InputError where classes, of `where`, are not those of the label map in its order."""
    if classes == label_map.names:
        return
    differing = [
        c for c, (a, b) in enumerate(zip(classes, label_map.names, strict=False)) if a != b
    ]
    what = f"it has {len(classes)} classes, the label map {len(label_map)}"
    if differing and len(classes) == len(label_map):
        c = differing[0]
        what = f"class {c} is {classes[c]!r}, in the label map {label_map.names[c]!r}"
    raise InputError(f"{where}: {what}; expected the label map that the detector was trained with")


def _detections(rows: TubeletRows, limits: KeyframeLimits, side: int) -> dict[str, np.ndarray]:
    """What some windows of one video have on their keyframes, in the order of evaluate.py."""
    K = rows.header.clip_frames
    found = clip_detections(
        rows.scores,
        rows.tubes[:, :, reported("middle", clip_frames=K)],
        clips=np.cumsum(starts_of_runs(rows.start)),
        score_threshold=limits.score_threshold,
        per_class_top=limits.per_class_top,
        nms_threshold=limits.nms,
        top=limits.top,
        inclusive_side=side,
    )
    order = np.lexsort((found.label, found.tubelet))
    return {
        "frame": rows.start[found.tubelet[order]] + K // 2,
        "boxes": found.boxes[order, 0],
        "label": found.label[order],
        "score": found.score[order],
    }


def _on_keyframes(
    videos: tuple[str, ...],
    video: np.ndarray,
    frame: np.ndarray,
    *,
    boxes: np.ndarray,
    label: np.ndarray,
    score: np.ndarray,
    label_map: LabelMap,
) -> AvaDetections:
    names = sorted(videos)
    index = {name: number for number, name in enumerate(names)}
    return AvaDetections(
        videos=tuple(names),
        video=np.array([index[name] for name in videos], np.int32)[video],
        timestamp=second_of_frame(frame).astype(np.int32),
        boxes=boxes,
        action_id=np.array(label_map.ids, np.int16)[label],
        score=score,
    )


def _no_rows() -> dict[str, np.ndarray]:
    return {
        "video": np.zeros(0, np.int64),
        "frame": np.zeros(0, np.int32),
        "boxes": np.zeros((0, 4), np.float32),
        "label": np.zeros(0, np.int64),
        "score": np.zeros(0, np.float32),
    }


def _blocks(start: np.ndarray) -> list[slice]:
    """Cuts a video's rows, ascending by window, where a window begins."""
    begins = np.flatnonzero(starts_of_runs(start))
    _, at = np.unique(begins // BLOCK_TUBELETS, return_index=True)
    edges = [*begins[at].tolist(), len(start)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _check_frames(
    frame: np.ndarray, rows: Detections | TubeletRows, *, where: str | os.PathLike
) -> None:
    bad = np.flatnonzero(frame % FPS)
    if len(bad):
        raise InputError(
            f"{where}: frame {frame[bad[0]]} of video {rows.videos[rows.video[bad[0]]]!r} is no "
            f"keyframe ({len(bad):,} such rows); expected multiples of {FPS}, of windows around "
            "AVA's keyframes"
        )
