"""One video into one record file: what every worker does, of a pool or of a cluster."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from input_pipeline.ava import seconds, sources
from input_pipeline.ava.report import VideoReport, read_report, write_report
from input_pipeline.segments import Segment, segments
from step_jax.annotations.ava_csv import FIRST_KEYFRAME, LAST_KEYFRAME
from step_jax.errors import InputError
from step_jax.replacing import replacing


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """What changes the records.

    core_frames: of a record, whole seconds. halo_before, halo_after: frames around it: windows of
        36 frames around 12 need 12 and 23, and the pre-training's, of 36 alone, 0 and 35.
    short_side: frames whose shorter side is longer are shrunk to it, pixels; 0 keeps their size.
    jpeg_quality: 1 to 100.
    """

    core_frames: int = 180
    halo_before: int = 12
    halo_after: int = 35
    short_side: int = 360
    jpeg_quality: int = 85

    def __post_init__(self):
        if self.core_frames < 1 or self.core_frames % seconds.FRAMES_PER_SECOND:
            raise InputError(
                f"core_frames is {self.core_frames}; expected a multiple of "
                f"{seconds.FRAMES_PER_SECOND}, so that no second is cut"
            )
        if seconds.NUM_FRAMES % self.core_frames:
            raise InputError(
                f"core_frames is {self.core_frames}; expected a divisor of {seconds.NUM_FRAMES}, "
                "the frames of a video, so that all records are of whole seconds"
            )
        for name in ("halo_before", "halo_after", "short_side"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"jpeg_quality is {self.jpeg_quality}; expected 1 to 100")

    @property
    def segments(self) -> list[Segment]:
        """The records of every video."""
        return segments(
            seconds.NUM_FRAMES,
            core_frames=self.core_frames,
            halo_before=self.halo_before,
            halo_after=self.halo_after,
        )

    @property
    def overlap(self) -> float:
        """Frames that the records hold for each frame of a video."""
        return sum(segment.stop - segment.start for segment in self.segments) / seconds.NUM_FRAMES


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What to do with one video. Paths are text, since jobs travel to other machines.

    source: the video's file or folder. shard: the record file to write. report: of the video.
    """

    video: str
    split: str
    source: str
    shard: str
    report: str
    timing: sources.Timing
    options: ShardOptions

    @property
    def key(self) -> str:
        """Of the options and the source's version."""
        stat = pathlib.Path(self.source).stat()
        parts = [self.video, stat.st_size, stat.st_mtime_ns, str(self.timing), str(self.options)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def with_source(self, source: pathlib.Path) -> ShardJob:
        """The same job, once it is known where the video is."""
        return dataclasses.replace(self, source=str(source))

    def has_shard(self) -> bool:
        """Whether the shard is there, whole, of whatever version of the source."""
        report, shard = read_report(pathlib.Path(self.report)), pathlib.Path(self.shard)
        if report is None or report.error or not shard.exists():
            return False
        return shard.stat().st_size == report.num_bytes

    def is_finished(self) -> bool:
        """Whether the shard is there, and of this very source and options."""
        report = read_report(pathlib.Path(self.report))
        return report is not None and report.key == self.key and self.has_shard()

    def failed(self, error: str) -> VideoReport:
        """The report of a job that failed."""
        return VideoReport(
            video=self.video, split=self.split, key="", source=self.source, error=error
        )


def prepare_video(job: ShardJob, progress: Callable[[float], object] = lambda s: None) -> str:
    """Makes a video's shard and report, or the report of why not.

    progress: called with the seconds of the movie that were done since the last call.

    Returns the error, "" where there is none. Raises OSError if the disk does not take the shard.
    """
    from input_pipeline import accelerators

    accelerators.hide_accelerators()
    done = [0]

    def count(number: int):
        done[0] += number
        progress(number)

    try:
        report = _write_shard(job, count)
    except InputError as error:
        pathlib.Path(job.shard).unlink(missing_ok=True)
        report = job.failed(str(error))
        progress(seconds.STOP_SECOND - seconds.FIRST_SECOND - done[0])
    write_report(pathlib.Path(job.report), report)
    return report.error


def _write_shard(job: ShardJob, progress: Callable[[int], object]) -> VideoReport:
    path = pathlib.Path(job.source)
    key = job.key
    with sources.open_source(path, job.timing) as source:
        frames = ChosenFrames(source, job.options, progress)
        pathlib.Path(job.shard).parent.mkdir(parents=True, exist_ok=True)
        with replacing(job.shard) as temporary:
            _write_records(job, frames, temporary)
            num_bytes, account = temporary.stat().st_size, frames.report()
        return VideoReport(
            video=job.video,
            split=job.split,
            key=key,
            source=job.source,
            num_records=len(job.options.segments),
            num_bytes=num_bytes,
            source_bytes=0 if path.is_dir() else path.stat().st_size,
            **account,
        )


def _write_records(job: ShardJob, frames: ChosenFrames, path: pathlib.Path):
    import tensorflow as tf

    from input_pipeline import builders

    features = builders.pixel_features()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for segment, jpegs in _cut(frames.jpegs(), job.options.segments):
            example = {
                "video": job.video,
                "num_frames": seconds.NUM_FRAMES,
                "width": frames.size[0],
                "height": frames.size[1],
                "first_frame": segment.start,
                "core_start": segment.core_start,
                "core_end": segment.core_end,
                "frames": jpegs,
            }
            writer.write(features.serialize_example(example))


def _cut(jpegs: Iterable[bytes], cuts: Iterable[Segment]) -> Iterator[tuple[Segment, list[bytes]]]:
    """Segments with their frames, from a stream of all frames; holds one segment."""
    jpegs, held, start = iter(jpegs), deque[bytes](), 0
    for segment in cuts:
        while start < segment.start:
            held.popleft()
            start += 1
        held.extend(itertools.islice(jpegs, segment.stop - start - len(held)))
        yield segment, list(held)


class ChosenFrames:
    """The JPEGs of a source's chosen frames, and the account of what was not as it should be."""

    def __init__(
        self, source: sources.Source, options: ShardOptions, progress: Callable[[int], object]
    ):
        self._source, self._options, self._progress = source, options, progress
        self._seconds: list[seconds.Second] = []  # without their frames
        self._damaged: set[int] = set()
        self._num_undecodable = 0
        self._jpeg, self._last = b"", None
        self.size = (0, 0)

    def jpegs(self) -> Iterator[bytes]:
        """12 JPEGs a second. One that cannot be decoded repeats the last one before, if any."""
        waiting = 0  # at the beginning, for the first that can be
        for second in seconds.choose_frames(self._pictures()):
            for jpeg in self._encode_second(second):
                waiting += 1
                if jpeg:
                    yield from itertools.repeat(jpeg, waiting)
                    waiting = 0

    def report(self) -> dict[str, object]:
        """What a `VideoReport` says about the frames, once all have been taken.

        Raises InputError if there was none.
        """
        source = self._source
        empty = [s.second for s in self._seconds if not s.num_frames or s.second in self._damaged]
        if len(empty) == len(self._seconds):
            raise InputError(_no_frames(source))
        missing = seconds.missing_keyframes(empty)
        keyframes = range(FIRST_KEYFRAME, LAST_KEYFRAME + 1)
        return {
            "kind": source.kind,
            "fps": source.fps,
            "first_s": None if source.first is None else float(source.first),
            "first_is_exact": source.is_exact,
            "start_second": float(source.start_second),
            "num_frames": sum(s.num_frames for s in self._seconds),
            "warned_seconds": [s.second for s in self._seconds if not s.is_regular(source.fps)],
            "repeated_seconds": [
                s.second for s in self._seconds if 0 < s.num_frames < seconds.FRAMES_PER_SECOND
            ],
            "empty_seconds": empty,
            "missing_keyframes": missing,
            "repeated_keyframes": sorted({*empty}.intersection(keyframes).difference(missing)),
            "num_undecodable": self._num_undecodable,
            "width": self.size[0],
            "height": self.size[1],
        }

    def _pictures(self) -> Iterator[tuple]:
        """A movie's pictures have to be taken as they come by; images can be opened later."""
        for time, picture in self._source.frames:
            yield time, picture() if self._source.kind == "movie" else picture

    def _encode_second(self, second: seconds.Second) -> list[bytes]:
        """Its JPEGs, "" before the video's first one."""
        jpegs, decoded = [], False
        for picture in second.frames:
            if picture is not self._last:  # a repeated one is there already
                good = self._encode(picture)
                self._num_undecodable += not good
                decoded |= good
            self._last = picture
            jpegs.append(self._jpeg)
        if second.num_frames and not decoded:
            self._damaged.add(second.second)
        self._seconds.append(dataclasses.replace(second, frames=()))
        self._progress(1)
        return jpegs

    def _encode(self, picture: np.ndarray | sources.Picture) -> bool:
        """Encodes a frame, or leaves the one before in its place if it is damaged."""
        try:
            pixels = picture() if callable(picture) else picture
        except InputError:
            return False
        if not self._jpeg:
            self.size = sources.shrunk_size(pixels, self._options.short_side)
        self._jpeg = sources.encode(sources.shrink(pixels, self.size), self._options.jpeg_quality)
        return True


def _no_frames(source: sources.Source) -> str:
    where = f"seconds {seconds.FIRST_SECOND} to {seconds.STOP_SECOND - 1} of the movie"
    first = "" if source.first is None else f" (its first is at {float(source.first):.3f} s)"
    return (
        f"{source.path}: has no frame in {where}{first}; of a file that was cut from the movie, "
        "tell with --start_second at which second it begins"
    )
