"""Fills the frame stores of a data set, several videos at a time, and goes on where it stopped."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import multiprocessing
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import tqdm

from input_pipeline import frame_store
from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError
from step_jax.interruption import end_silently, starting_workers


def store_frames(
    annotations: Annotations,
    folder: pathlib.Path,
    *,
    workers: int,
    short_side: int,
    jpeg_quality: int,
    flow: Mapping[str, pathlib.Path] | None = None,
):
    """Fills the stores of the videos that have no complete one in `folder` yet.

    workers: processes; 1 works in this one. short_side, jpeg_quality: see `frame_store`.
    flow: the folder of each video's flow images, which get stores too.

    Raises InputError for a video that cannot be decoded or has another number of frames than its
    annotation; the stores that are complete stay.
    """
    jobs, done = [], 0
    sizes = {"short_side": short_side, "jpeg_quality": jpeg_quality}
    for video in annotations.videos:
        common = {"name": video.id, "num_frames": video.num_frames, **sizes}
        source = annotations.video_path(video)
        stores = {_store_path(annotations, folder, video): _frames_job(source, video.fps, common)}
        if flow is not None:
            images = flow[video.id]
            stores[_flow_store_path(folder, video, images)] = _flow_job(images, common)
        for path, job in stores.items():
            if frame_store.is_complete(path):
                done += video.num_frames
            else:
                jobs.append(functools.partial(job, path))
    kinds = 1 if flow is None else 2
    with frame_progress(annotations, "decoding", done, images=kinds) as progress:
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


def open_flow_store(
    folder: pathlib.Path, video: Video, images: pathlib.Path
) -> frame_store.FrameStore:
    """The store that `store_frames` made of a video's flow images in the folder `images`."""
    return frame_store.FrameStore(_flow_store_path(folder, video, images))


def frame_progress(
    annotations: Annotations, what: str, done: int = 0, *, images: int = 1
) -> tqdm.tqdm:
    """A progress bar over the frames of the data set, with the time that is left.

    images: of each frame, which count one by one.
    """
    total = images * sum(video.num_frames for video in annotations.videos)
    return tqdm.tqdm(desc=what, unit="frame", initial=done, total=total, mininterval=1.0)


def _frames_job(source: pathlib.Path, fps: float, options: dict) -> Callable[..., int]:
    return functools.partial(frame_store.write_store, video_path=source, fps=fps, **options)


def _flow_job(images: pathlib.Path, options: dict) -> Callable[..., int]:
    return functools.partial(frame_store.write_flow_store, folder=images, **options)


def _store_path(annotations: Annotations, folder: pathlib.Path, video: Video) -> pathlib.Path:
    return _place(folder, video, video.path, annotations.video_path(video))


def _flow_store_path(folder: pathlib.Path, video: Video, images: pathlib.Path) -> pathlib.Path:
    return _place(folder, video, f"flow {images}", images)


def _place(folder: pathlib.Path, video: Video, what: str, source: pathlib.Path) -> pathlib.Path:
    """One store a version of the source: what was replaced is decoded again, if interrupted."""
    stat = source.stat()
    key = json.dumps([video.id, what, stat.st_size, stat.st_mtime_ns])
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", video.id)[:60]
    return folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _run_in_pool(jobs: Sequence[Callable[[], int]], workers: int, progress: tqdm.tqdm):
    # spawn: a process with TensorFlow's threads must not fork
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, end_silently) as pool:
        with starting_workers():
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
