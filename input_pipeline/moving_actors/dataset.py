"""The benchmark's folder: video files, their annotations, and what is already done.

DIR/manifest.json         version, seed and size: which benchmark this folder holds
DIR/videos/<id>.avi|webm
DIR/parts/<id>.json       one video's annotation, written after the video: it marks it as done
DIR/annotations.json      all of them, written last
"""

from __future__ import annotations

import json
import multiprocessing
import pathlib
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed

import cv2
import tqdm

from input_pipeline.moving_actors import FPS, VERSION
from input_pipeline.moving_actors.motions import CLASSES
from input_pipeline.moving_actors.render import render, tubes
from input_pipeline.moving_actors.scripts import write_script
from step_jax.annotations import Annotations, Video, read_native, write_native
from step_jax.errors import InputError
from step_jax.replacing import replacing
from step_jax.video import VideoWriter

NAME = "moving_actors"
WEBM_EVERY = 16  # videos, from the fifth on: WebM takes longer to encode than MJPG
MIN_SIZE = 48  # pixels; the smallest actors would be thinner than the smallest boxes


def open_folder(folder: pathlib.Path, *, seed: int, size: int):
    """Claims a new or empty folder for this benchmark, or checks that it holds the same one.

    Raises InputError for a folder with other contents, another version, seed or size.
    """
    wanted = {"format": f"step_jax.{NAME}", "version": VERSION, "seed": seed, "size": size}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    if path.exists():
        found = _load(path)
        if found != wanted:
            raise InputError(f"{path}: the folder holds {found}, asked was {wanted}; {_ADVICE}")
    elif any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty and has no manifest.json; {_ADVICE}")
    else:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(wanted) + "\n")
    for name in ("videos", "parts"):
        (folder / name).mkdir(exist_ok=True)


_ADVICE = "choose another --output or remove the folder"


def build(
    folder: pathlib.Path, *, seed: int, size: int, counts: Mapping[str, int], workers: int
) -> int:
    """Renders what is missing of `counts` videos per split and writes annotations.json.

    Returns the number of videos rendered; 0 with an up-to-date annotations.json changes nothing.
    """
    open_folder(folder, seed=seed, size=size)
    ids = [(split, index) for split, count in counts.items() for index in range(count)]
    missing = [key for key in ids if not _is_done(folder, *key)]
    jobs = [(folder, seed, split, index, size) for split, index in missing]
    progress = tqdm.tqdm(
        _run(jobs, workers), total=len(ids), initial=len(ids) - len(jobs), unit="video",
        desc="rendering", disable=None if jobs else True,
    )  # fmt: skip
    for _ in progress:
        pass
    _write_annotations(folder, [_id(*key) for key in ids])
    return len(jobs)


def render_video(folder: pathlib.Path, seed: int, split: str, index: int, size: int):
    """Renders one video file and then its annotation."""
    script = write_script(seed=seed, split=split, index=index, size=size)
    path = folder / _video_path(split, index)
    sightings = []
    with VideoWriter(path, fps=FPS, width=size, height=size) as writer:
        for frame, seen in render(script):
            writer.write(frame)
            sightings.append(seen)
    video = Video(
        id=script.id,
        path=_video_path(split, index),
        split=split,
        fps=FPS,
        num_frames=script.num_frames,
        width=size,
        height=size,
        tubes=tubes(script, sightings),
    )
    write_native(_part(folder, script.id), Annotations(NAME, CLASSES, (video,), folder))


def _id(split: str, index: int) -> str:
    return f"{split}_{index:04d}"


def _video_path(split: str, index: int) -> str:
    suffix = "webm" if index % WEBM_EVERY == 4 else "avi"
    return f"videos/{_id(split, index)}.{suffix}"


def _part(folder: pathlib.Path, id: str) -> pathlib.Path:
    return folder / "parts" / f"{id}.json"


def _is_done(folder: pathlib.Path, split: str, index: int) -> bool:
    part = _part(folder, _id(split, index))
    return part.exists() and (folder / _video_path(split, index)).exists()


def _run(jobs: list[tuple], workers: int) -> Iterator[None]:
    """Renders in this process or in a pool, yielding once for each finished video."""
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield render_video(*job)
        return
    # Not fork: the caller may have threads (TensorFlow's, OpenCV's), whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(render_video, *job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    cv2.setNumThreads(1)  # the pool has the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool


def _write_annotations(folder: pathlib.Path, ids: list[str]):
    """Collects the parts; leaves a file that already says the same untouched."""
    videos = tuple(read_native(_part(folder, id)).videos[0] for id in ids)
    annotations = Annotations(NAME, CLASSES, videos, folder)
    path = folder / "annotations.json"
    if not (path.exists() and read_native(path) == annotations):
        write_native(path, annotations)


def _load(path: pathlib.Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON; {_ADVICE}") from error
