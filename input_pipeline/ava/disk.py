"""How much disk space records will need, from a look at a few of the videos."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence
from fractions import Fraction

from input_pipeline.ava import seconds, sources
from input_pipeline.ava.shards import ShardJob, ShardOptions
from step_jax.errors import InputError

_LOOK_AT_VIDEOS = 5
_LOOK_AT_SECONDS = 2


def estimate_bytes(jobs: Sequence[ShardJob]) -> int | None:
    """Bytes of the jobs' shards, from the first seconds of some; None if none can be opened."""
    step = max(1, -(-len(jobs) // _LOOK_AT_VIDEOS))
    sizes = [size for job in jobs[::step] if (size := _bytes_a_frame(job)) is not None]
    if not sizes:
        return None
    frames = seconds.NUM_FRAMES * jobs[0].options.overlap * len(jobs)
    return round(sum(sizes) / len(sizes) * frames)


def free_bytes(output: pathlib.Path) -> int:
    """What the disk has left where the folder is, or will be."""
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _bytes_a_frame(job: ShardJob) -> float | None:
    stop = seconds.FIRST_SECOND + _LOOK_AT_SECONDS
    try:
        with sources.open_source(pathlib.Path(job.source), job.timing) as source:
            sizes = []
            for time, picture in source.frames:
                if time >= stop:
                    break
                if time >= seconds.FIRST_SECOND and _is_wanted(time):
                    sizes.append(len(_jpeg(picture, job.options)))
            return sum(sizes) / len(sizes) if sizes else None
    except InputError:
        return None  # told when its turn comes


def _is_wanted(time: Fraction) -> bool:
    """A few a second are enough."""
    return time % Fraction(1, 2) < Fraction(1, 10)


def _jpeg(picture: sources.Picture, options: ShardOptions) -> bytes:
    pixels = picture()
    size = sources.shrunk_size(pixels, options.short_side)
    return sources.encode(sources.shrink(pixels, size), options.jpeg_quality)
