"""One video through the detector: its table, its drawn video and its summary."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tqdm

from step_jax import proposals
from step_jax.detections import DetectionsWriter
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.flow.methods import Estimator
from step_jax.inference import Predictor
from step_jax.stopwatch import Stopwatch
from step_jax.storage import folder_beside
from step_jax.streaming.frame_detections import FrameDetections
from step_jax.streaming.network_frames import network_frames
from step_jax.streaming.report import Report, is_summary_of
from step_jax.streaming.sightings import Sightings
from step_jax.streaming.video_rows import BatchRows, stream_rows
from step_jax.streaming.video_sources import expected_frames
from step_jax.video import VideoWriter, probe, read_frames, resample
from step_jax.visualize.overlay import Overlay


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to do with every video.

    output: folder of the results.
    stride: frames between windows; batch_size: windows at a time.
    score_threshold: of what is drawn and summed up; the table has everything.
    step: of the detector, 1-based, that is summed up.
    panels: steps to draw side by side, 0 for the proposals; none: no drawn video.
    labels: classes to draw and to sum up; None: all.
    source_fps: frames a second of the input; None: by its timestamps.
    flow: how flow is computed; None where the detector reads none.
    """

    output: pathlib.Path
    stride: int
    batch_size: int
    score_threshold: float
    step: int
    panels: tuple[int, ...]
    labels: tuple[int, ...] | None = None
    source_fps: float | None = None
    flow: Estimator | None = None


def detect_video(name: str, path: pathlib.Path, predictor: Predictor, settings: Settings) -> Report:
    """Writes NAME.parquet, NAME.webm and NAME.json, all of them or none.

    Raises InputError for a video that cannot be read to its end, and where one of the three is
    there and was not made of this video.
    """
    return _VideoRun(name, path, predictor, settings).detect()


class _VideoRun:
    """One video on its way: frames wait here until no window to come can cover them."""

    def __init__(self, name: str, path: pathlib.Path, predictor: Predictor, settings: Settings):
        self._name, self._path = name, path
        self._predictor, self._settings = predictor, settings
        self._files = _output_files(name, path, settings)
        self._info = probe(path, fps=settings.source_fps)
        self._fps = predictor.fps or self._info.fps
        self._overlay = self._make_overlay() if settings.panels else None
        self._found = {
            step: FrameDetections(
                width=self._info.width,
                height=self._info.height,
                score_threshold=settings.score_threshold,
                labels=settings.labels,
            )
            for step in {*settings.panels, settings.step} - {0}
        }
        self._waiting: collections.deque[np.ndarray] = collections.deque()
        self._finished = 0
        self._sightings = Sightings()
        self._stopwatch = Stopwatch()

    def detect(self) -> Report:
        fps, source_fps = self._predictor.fps, self._settings.source_fps
        expected = expected_frames(self._path, fps=fps, source_fps=source_fps)
        # All files are complete there before the first of them comes to its place.
        with folder_beside(self._files["summary"], prefix=".detecting.") as folder:
            made = {kind: folder / file.name for kind, file in self._files.items()}
            self._write(made, expected)
            report = self._report(expected)
            write_json(made["summary"], report.to_json())
            # The summary first: by it a later run knows the others as its own, were this one killed
            # here.
            for kind in reversed(self._files):
                os.replace(made[kind], self._files[kind])
        return report

    def _write(self, made: Mapping[str, pathlib.Path], expected: int | None) -> None:
        """The table and the drawn video, from the first frame to the last."""
        bar = tqdm.tqdm(total=expected, desc=self._name, unit="frame", disable=None, leave=False)
        with bar, self._open_table(made) as table, self._open_video(made) as video:
            for batch in self._batches():
                self._take(batch, table)
                while self._finished < batch.final:
                    self._finish_frame(video)
                    bar.update()

    def _batches(self) -> Iterator[BatchRows]:
        """The rows of all windows, batch by batch, and at last an empty batch: all is final."""
        yield from stream_rows(
            self._network_frames(),
            self._predictor,
            video=self._name,
            stride=self._settings.stride,
            batch_size=self._settings.batch_size,
            stopwatch=self._stopwatch,
        )
        yield BatchRows([], final=self._finished + len(self._waiting))

    def _network_frames(self) -> Iterator[np.ndarray]:
        """What the network reads of each of the video's frames."""
        return network_frames(
            self._own_frames(),
            modality=self._predictor.modality,
            side=self._predictor.image_size,
            estimator=self._settings.flow and self._timed(self._settings.flow),
            flow_side=self._predictor.flow_side,
        )

    def _timed(self, estimator: Estimator) -> Estimator:
        def compute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            with self._stopwatch("flow"):
                return estimator.compute(first, second)

        return dataclasses.replace(estimator, compute=compute)

    def _own_frames(self) -> Iterator[np.ndarray]:
        """The video's frames in their own size, which start to wait here."""
        frames = read_frames(self._path, fps=self._settings.source_fps)
        if self._predictor.fps:
            frames = resample(frames, fps=self._predictor.fps)
        for _, frame in self._stopwatch.iterate("read", frames):
            if frame.shape[:2] != (self._info.height, self._info.width):
                raise InputError(
                    f"{self._path}: its frames change from {self._info.width}x{self._info.height} "
                    f"to {frame.shape[1]}x{frame.shape[0]} pixels; convert it to one size first"
                )
            self._waiting.append(frame)
            yield frame

    def _take(self, batch: BatchRows, table: DetectionsWriter) -> None:
        for step, rows in enumerate(batch.steps, start=1):
            with self._stopwatch("table"):
                table.append(rows)
            if step in self._found:
                self._found[step].add(rows)
            if step == self._settings.step:
                self._sightings.consider(rows)

    def _finish_frame(self, video: VideoWriter | None) -> None:
        frame = self._waiting.popleft()
        found = {step: waiting.take(self._finished) for step, waiting in self._found.items()}
        self._sightings.add(self._finished, found[self._settings.step])
        self._finished += 1
        if video is not None:
            with self._stopwatch("draw"):
                picture = self._overlay(frame, found)
            with self._stopwatch("encode"):
                video.write(picture)

    def _make_overlay(self) -> Overlay:
        return Overlay(
            classes=self._predictor.classes,
            width=self._info.width,
            height=self._info.height,
            proposals=proposals.initial_boxes(self._predictor.proposals),
            steps=self._settings.panels,
        )

    def _open_video(
        self, made: Mapping[str, pathlib.Path]
    ) -> contextlib.AbstractContextManager[VideoWriter | None]:
        if self._overlay is None:
            return contextlib.nullcontext()
        size = {"width": self._overlay.width, "height": self._overlay.height}
        return VideoWriter(made["video"], fps=self._fps, **size)

    def _open_table(self, made: Mapping[str, pathlib.Path]) -> DetectionsWriter:
        flow = {"flow": self._settings.flow.method} if self._settings.flow else {}
        return DetectionsWriter(
            made["table"],
            classes=self._predictor.classes,
            clip_frames=self._predictor.clip_frames,
            stride=self._settings.stride,
            num_steps=self._predictor.num_steps,
            provenance={
                "video": str(self._path),
                "checkpoint": str(self._predictor.step),
                "fps": f"{self._fps:.6g}",
                **flow,
            },
        )

    def _report(self, expected: int | None) -> Report:
        return Report(
            name=self._name,
            video=self._path.resolve(),
            frames=self._finished,
            expected=expected,
            fps=self._fps,
            width=self._info.width,
            height=self._info.height,
            checkpoint=self._predictor.step,
            detector_step=self._settings.step,
            stride=self._settings.stride,
            score_threshold=self._settings.score_threshold,
            seconds=self._stopwatch.seconds,
            classes=self._predictor.classes,
            sightings=self._sightings,
            files=tuple(self._files.values()),
        )


def _output_files(name: str, path: pathlib.Path, settings: Settings) -> dict[str, pathlib.Path]:
    """What is written for a video, by kind.

    Raises InputError where that would replace the video itself or anything but the results of the
    same video: another recording, or the results of another one of that name.
    """
    suffixes = {"video": ".webm", "table": ".parquet", "summary": ".json"}
    files = {kind: settings.output / f"{name}{suffix}" for kind, suffix in suffixes.items()}
    # All three, also where no video is drawn: the next time it may be.
    taken = [file for file in files.values() if file.exists() and not _is_same(file, path)]
    if not settings.panels:
        del files["video"]
    if any(_is_same(file, path) for file in files.values()):
        raise InputError(f"{path}: the result would replace it; give another folder as --output")
    if taken and not is_summary_of(path, files["summary"]):
        raise InputError(
            f"{path}: the result would replace {taken[0]}, which was not made of it; move that "
            "away or give another folder as --output"
        )
    return files


def _is_same(one: pathlib.Path, other: pathlib.Path) -> bool:
    return one.resolve() == other.resolve()
