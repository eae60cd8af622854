"""Flow images of many videos, on several processes, continued where it stopped."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import tqdm

from step_jax import video
from step_jax.errors import InputError
from step_jax.flow import flow_record
from step_jax.flow.frame_estimate import FrameEstimate
from step_jax.flow.image_folder import ImageFormat, write_images
from step_jax.flow.methods import Estimator, encoded_flows, make_estimator
from step_jax.flow.sources import Source
from step_jax.folder_lock import locked_folder
from step_jax.interruption import end_silently, starting_workers


@dataclass(frozen=True, kw_only=True)
class FlowOptions:
    """What determines the images, and `batch`.

    method, parameters, batch: see `make_estimator`. short_side: frames whose shorter side is
    longer are shrunk to it before; 0 keeps their size.
    """

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    image_format: ImageFormat = field(default_factory=ImageFormat)
    short_side: int = 0

    def estimator(self) -> Estimator:
        return make_estimator(self.method, batch=self.batch, **self.parameters)


@dataclass
class Summary:
    """videos, frames: computed in this run. kept: videos that were there already. failed: a line
    each."""

    videos: int = 0
    frames: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)


def extract(
    sources: Sequence[Source], output: str | os.PathLike, options: FlowOptions, *, workers: int = 1
) -> Summary:
    """Writes `output`/<name>/00001.jpg and so on of every source, and `output`/flow.json.

    A video whose folder is there is left as it is. One that cannot be read is reported and the rest
    is done. workers: processes, for the methods of OpenCV; 1 works in this one.

    Raises InputError if `output` holds flow made otherwise, OSError if it cannot be written.
    """
    output = pathlib.Path(output)
    estimator = options.estimator()
    description = flow_record.describe(
        estimator, image_format=options.image_format, short_side=options.short_side
    )
    with locked_folder(output):
        flow_record.check_or_write(output, description)
        missing = [source for source in sources if not (output / source.name).exists()]
        summary = Summary(kept=len(sources) - len(missing))
        with _Progress(missing, summary) as progress:
            if workers > 1 and len(missing) > 1:
                _run_in_pool(missing, output, options, workers=workers, progress=progress)
            else:
                for source in missing:
                    on_frame = progress.frame
                    result = _compute(source, output, options, estimator, on_frame=on_frame)
                    progress.video(source, result)
    return summary


def _compute(
    source: Source,
    output: pathlib.Path,
    options: FlowOptions,
    estimator: Estimator | None = None,
    *,
    on_frame: Callable[[], object] = lambda: None,
) -> int | str:
    """The number of images written, or why there are none."""
    images = encoded_flows(_frames(source.path, options), estimator or options.estimator())
    try:
        return write_images(
            output / source.name, _each(images, on_frame), image_format=options.image_format
        )
    except InputError as error:
        return str(error)


def _frames(path: pathlib.Path, options: FlowOptions) -> Iterator[np.ndarray]:
    try:
        video.check_complete(path)
        for _, frame in video.read_frames(path):
            yield _shrunk(frame, options.short_side)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    except InputError as error:
        # The path may be that of one frame, or missing from a message about all of them.
        prefix = "" if str(path) in str(error) else f"{path}: "
        raise InputError(f"{prefix}{error}") from error


def _shrunk(frame: np.ndarray, short_side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    if not 0 < scale < 1:
        return frame
    return video.resize(frame, width=round(width * scale), height=round(height * scale))


def _each(images: Iterator[np.ndarray], on_frame: Callable[[], object]) -> Iterator[np.ndarray]:
    for image in images:
        yield image
        on_frame()


class _Progress:
    """A bar in frames with the time left, and the summary of what is done."""

    def __init__(self, sources: Sequence[Source], summary: Summary):
        self._estimate = FrameEstimate([source.path for source in sources])
        self._summary = summary
        self._shown = 0

    def __enter__(self) -> _Progress:
        total = self._estimate.total()
        self._bar = tqdm.tqdm(desc="flow", unit="frame", total=total, mininterval=1.0)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def frame(self) -> None:
        self._bar.update()
        self._shown += 1

    def video(self, source: Source, result: int | str) -> None:
        """A video is finished: with its number of frames, or with an error."""
        frames, shown = 0 if isinstance(result, str) else result, self._shown
        self._shown = 0
        self._bar.update(frames - shown)
        if isinstance(result, str):
            self._summary.failed.append(result)
            self._bar.write(f"failed: {result}", file=sys.stderr)
        else:
            self._summary.videos += 1
            self._summary.frames += frames
        self._estimate.finished(source.path, frames=frames)
        self._bar.total = self._estimate.total()


def _run_in_pool(
    sources: Sequence[Source],
    output: pathlib.Path,
    options: FlowOptions,
    *,
    workers: int,
    progress: _Progress,
) -> None:
    # spawn: a process with the threads of OpenCV or JAX must not fork
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(sources))
    compute = functools.partial(_compute, output=output, options=options)
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        with starting_workers():
            futures = {pool.submit(compute, source): source for source in sources}
        try:
            for future in concurrent.futures.as_completed(futures):
                progress.video(futures[future], future.result())
        except concurrent.futures.process.BrokenProcessPool as error:
            raise InputError(
                "a process was killed, perhaps for its memory; run the same command again to go "
                "on, with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _start_worker() -> None:
    """The end of the program reaches the workers too, if it is killed."""
    end_silently()
    cv2.setNumThreads(1)  # the pool has the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
