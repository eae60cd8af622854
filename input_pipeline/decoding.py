"""Fills the frame stores of a data set, several videos at a time, and goes on where it stopped."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import multiprocessing
import pathlib
import re
import signal
from collections.abc import Callable, Sequence

import tqdm

from input_pipeline import frame_store
from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError


def store_frames(
    annotations: Annotations,
    folder: pathlib.Path,
    *,
    workers: int,
    short_side: int,
    jpeg_quality: int,
):
    """Decodes the videos that have no complete store in `folder` yet.

    workers: processes; 1 works in this one. short_side, jpeg_quality: see `frame_store`.

    Raises InputError for a video that cannot be decoded or has another number of frames than its
    annotation; the stores that are complete stay.
    """
    jobs, done = [], 0
    for video in annotations.videos:
        path = _store_path(annotations, folder, video)
        if frame_store.is_complete(path):
            done += video.num_frames
            continue
        job = functools.partial(
            frame_store.write_store,
            path,
            annotations.video_path(video),
            name=video.id,
            fps=video.fps,
            num_frames=video.num_frames,
            short_side=short_side,
            jpeg_quality=jpeg_quality,
        )
        jobs.append(job)
    with frame_progress(annotations, "decoding", done) as progress:
        if workers > 1:
            _run_in_pool(jobs, workers, progress)
        else:
            for job in jobs:
                progress.update(job())


def open_store(
    annotations: Annotations, folder: pathlib.Path, video: Video
) -> frame_store.FrameStore:
    """The store that `store_frames` made of a video."""
    return frame_store.FrameStore(_store_path(annotations, folder, video))


def frame_progress(annotations: Annotations, what: str, done: int = 0) -> tqdm.tqdm:
    """A progress bar over all frames of the data set, with the time that is left."""
    total = sum(video.num_frames for video in annotations.videos)
    return tqdm.tqdm(desc=what, unit="frame", initial=done, total=total, mininterval=1.0)


def _store_path(annotations: Annotations, folder: pathlib.Path, video: Video) -> pathlib.Path:
    """One store a version of the file: a replaced video is decoded again after an interruption."""
    stat = annotations.video_path(video).stat()
    key = json.dumps([video.id, video.path, stat.st_size, stat.st_mtime_ns])
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", video.id)[:60]
    return folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _run_in_pool(jobs: Sequence[Callable[[], int]], workers: int, progress: tqdm.tqdm):
    # spawn: a process with TensorFlow's threads must not fork
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _die_silently) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                progress.update(future.result())
        except concurrent.futures.process.BrokenProcessPool as error:
            raise InputError(
                "a process that decodes was killed, perhaps for its memory; run the same command "
                "again to go on, with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _die_silently():
    """Ctrl-C reaches the workers too: they stop at once, without a traceback each."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
