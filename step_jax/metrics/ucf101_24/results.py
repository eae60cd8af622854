"""One step of a detector put to account on a split: boxes in frames, and tubes."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from step_jax.annotations import Annotations
from step_jax.detections import Detections
from step_jax.errors import InputError
from step_jax.linking import LinkOptions, check_options, link_videos, video_sizes
from step_jax.metrics.frame_boxes import check_classes, detected_boxes
from step_jax.metrics.frame_tally import FrameTally, tally
from step_jax.metrics.tubelet_frames import as_table_header, frame_detections
from step_jax.metrics.ucf101_24.detected_tubelets import CANDIDATES, detected_tubelets
from step_jax.metrics.ucf101_24.protocol import (
    ClipLimits,
    Protocol,
    linking_text,
    trimming_text,
)
from step_jax.metrics.video_map import VideoMap, video_map
from step_jax.trimming import TrimOptions, trim
from step_jax.tube_table import Tubes, join_tubes, no_tubes
from step_jax.tubelet_table import (
    TubeletHeader,
    TubeletRows,
    iter_tubelet_videos,
    read_tubelet_header,
)

LINKED, TRIMMED = "linked", "trimmed"


@dataclass(frozen=True, eq=False)
class TubeResult:
    """Tubes, how they were made (one line) and their video-mAP."""

    tubes: Tubes
    made: str
    video_map: VideoMap


@dataclass(frozen=True, eq=False)
class StepResult:
    """One step: what became of its boxes in frames, and of its tubes, LINKED and TRIMMED.

    num_videos: of the split, those that the table has rows of.
    """

    step: int
    frames: FrameTally
    num_videos: int
    tubes: dict[str, TubeResult] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TubeOptions:
    """How tubes are made; without `trim` there are only LINKED ones.

    Where trimming needs the scores of all classes, linking keeps them.
    """

    link: LinkOptions = field(default_factory=LinkOptions)
    trim: TrimOptions | None = None

    def __post_init__(self):
        if self.trim is not None and self.trim.multi_label:
            object.__setattr__(self, "link", replace(self.link, class_scores=True))


def evaluate_tubelets(
    path: str | os.PathLike,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    limits: ClipLimits | None = None,
    protocol: Protocol | None = None,
    tubes: TubeOptions | None = None,
    left_out: Container[str] = (),
) -> StepResult:
    """Everything of one step of a tubelet table, which is read once, video by video.

    Without `tubes` boxes in frames alone. Rows of videos `left_out` do not count. The order of the
    videos in the table does not matter. Raises InputError as the readers, the linker and
    `FrameTally`.
    """
    protocol, limits = protocol or Protocol(), limits or ClipLimits()
    header = read_tubelet_header(path)
    check_classes(header.classes, annotations)
    if tubes is not None:
        check_options(tubes.link, header)
    counted = FrameTally(annotations, split, as_table_header(header), **protocol.frame_options())
    seen: list[str] = []

    def counting(videos: Iterable[TubeletRows]) -> Iterator[TubeletRows]:
        for rows in videos:
            seen.extend(rows.videos)
            for block in frame_detections(rows, annotations, split, **limits.options()):
                counted.add(block)
            yield rows

    videos = counting(_counted_videos(path, step=step, left_out=left_out))
    if tubes is None:
        for _ in videos:
            pass
        return StepResult(step, counted, len(seen))
    linked = _link(videos, header, annotations, split, tubes.link)
    results = _tube_results(linked, annotations, split, header, tubes, protocol)
    return StepResult(step, counted, len(seen), results)


def evaluate_detections(
    detections: Detections,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    protocol: Protocol | None = None,
    tubes: TubeOptions | None = None,
    left_out: Container[str] = (),
) -> StepResult:
    """The same of one step of a detections table, with tubes of what it holds.

    Without `tubes` there are none. Raises InputError as `frame_map` and `detected_tubelets`.
    """
    protocol = protocol or Protocol()
    detections = detections.at_step(step)
    counts = np.array([name not in left_out for name in detections.videos], bool)
    if not counts.all():
        detections = detections.take(counts[detections.video])
    blocks = detected_boxes(detections, annotations, split, step=step)
    counted = tally(blocks, annotations, split, detections.header, **protocol.frame_options())
    num_videos = len(np.unique(detections.video))
    if tubes is None:
        return StepResult(step, counted, num_videos)
    header = detected_tubelets(detections.take(slice(0))).header
    check_options(tubes.link, header)
    linked = _link(_detected_videos(detections), header, annotations, split, tubes.link)
    # What stands for a class that was not detected has score 0 and is no tube.
    linked = linked.take(linked.score > 0)
    results = _tube_results(
        linked, annotations, split, header, tubes, protocol, candidates=CANDIDATES
    )
    return StepResult(step, counted, num_videos, results)


def tubes_of_table(
    path: str | os.PathLike,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    protocol: Protocol | None = None,
    options: TubeOptions | None = None,
) -> dict[str, TubeResult]:
    """The tubes alone of one step of a tubelet table. Errors as for `evaluate_tubelets`."""
    options = options or TubeOptions()
    linked = link_table(path, annotations, split, step=step, options=options.link)
    header = read_tubelet_header(path)
    return _tube_results(linked, annotations, split, header, options, protocol or Protocol())


def link_table(
    path: str | os.PathLike,
    annotations: Annotations,
    split: str,
    *,
    step: int,
    options: LinkOptions,
    left_out: Container[str] = (),
) -> Tubes:
    """The tubes of one step of a tubelet table, without those of videos `left_out`.

    Raises InputError as the reader and the linker.
    """
    header = read_tubelet_header(path)
    check_classes(header.classes, annotations)
    check_options(options, header)
    videos = _counted_videos(path, step=step, left_out=left_out)
    return _link(videos, header, annotations, split, options)


def _counted_videos(
    path: str | os.PathLike, *, step: int, left_out: Container[str]
) -> Iterator[TubeletRows]:
    videos = iter_tubelet_videos(path, step=step)
    return (rows for rows in videos if rows.videos[0] not in left_out)


def _link(
    videos: Iterable[TubeletRows],
    header: TubeletHeader,
    annotations: Annotations,
    split: str,
    options: LinkOptions,
) -> Tubes:
    sizes = video_sizes(annotations, split)
    parts = list(
        link_videos(_known(videos, sizes, annotations, split), sizes=sizes, options=options)
    )
    empty = replace(no_tubes(header.classes), provenance=options.provenance())
    return join_tubes([empty, *parts])


def _known(videos: Iterable[TubeletRows], sizes, annotations, split) -> Iterator[TubeletRows]:
    for rows in videos:
        for name in rows.videos:
            if name not in sizes:
                raise InputError(
                    f"tubelets of video {name!r}, which is not among the {len(sizes)} videos of "
                    f"split {split!r} of {annotations.name}; expected the annotations and the "
                    "split that the detector was evaluated on"
                )
        yield rows


def _tube_results(
    linked: Tubes,
    annotations: Annotations,
    split: str,
    header: TubeletHeader,
    options: TubeOptions,
    protocol: Protocol,
    *,
    candidates: str = "raw tubelets",
) -> dict[str, TubeResult]:
    """Video-mAP of the tubes, and of the trimmed ones if they are wanted."""
    made = linking_text(options.link, clip_frames=header.clip_frames, candidates=candidates)
    how = protocol.video_options()
    results = {LINKED: TubeResult(linked, made, video_map(linked, annotations, split, **how))}
    if options.trim is not None:
        trimmed = trim(linked, options.trim)
        made = f"{made}; {trimming_text(options.trim)}"
        result = video_map(trimmed, annotations, split, **how)
        results[TRIMMED] = TubeResult(trimmed, made, result)
    return results


def _detected_videos(detections: Detections) -> Iterator[TubeletRows]:
    """The tubelets of one video after the other; memory is that of one."""
    order = np.argsort(detections.video, kind="stable")
    ends = np.cumsum(np.bincount(detections.video, minlength=len(detections.videos)))
    for number, rows in enumerate(np.split(order, ends[:-1])):
        if len(rows):
            one = detections.take(rows)
            one = replace(one, videos=(one.videos[number],), video=np.zeros_like(one.video))
            yield detected_tubelets(one)
