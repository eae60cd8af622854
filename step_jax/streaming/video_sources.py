"""Which videos a path means, and what is known of them before they are decoded."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

import cv2

from step_jax.errors import InputError
from step_jax.utf8_paths import check_utf8
from step_jax.video import DEFAULT_FOLDER_FPS, check_complete, count_frames, probe
from step_jax.video.reading import open_capture

VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


def find_videos(path: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Name -> video: a file or a folder of frames is one, a folder of video files is several.

    Videos are named by their files, without the suffix where that tells all of them apart.

    Raises InputError for a folder with both or with neither; whether a file is a video is not
    looked at.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return {path.stem: path}
    files = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    videos = [entry for entry in files if entry.suffix.lower() in VIDEO_SUFFIXES]
    images = [entry for entry in files if entry.suffix.lower() in IMAGE_SUFFIXES]
    if videos and images:
        raise InputError(
            f"{path}: has videos ({videos[0].name}) and images ({images[0].name}); expected the "
            "frames of one video, or video files only"
        )
    if images:
        return {path.resolve().name: path}
    if not videos:
        raise InputError(
            f"{path}: has neither images nor video files ({' '.join(VIDEO_SUFFIXES)}); give a "
            "video, a folder of videos or a folder of frames"
        )
    by_stem = {video.stem: video for video in videos}
    return by_stem if len(by_stem) == len(videos) else {video.name: video for video in videos}


def left_out(folder: pathlib.Path, videos: Iterable[pathlib.Path]) -> list[str]:
    """Names of what else is in a folder of videos, hidden files aside."""
    videos = set(videos)
    if not folder.is_dir() or folder in videos:  # a folder of frames is the video
        return []
    others = (entry.name for entry in folder.iterdir() if entry not in videos)
    return sorted(name for name in others if not name.startswith("."))


def check_video(path: pathlib.Path) -> None:
    """Raises InputError for what is no video or not all there, without decoding much of it."""
    check_utf8(path)  # of a folder of frames, too, whose name comes into the table
    if path.exists():
        check_complete(path)  # first, because it can say that a file is truncated
    probe(path)


def expected_frames(
    path: pathlib.Path, *, fps: float, source_fps: float | None = None
) -> int | None:
    """How many frames there will be, by what the file says; None if it says nonsense.

    fps: that the video is brought to; 0: its frames are taken as they are. source_fps: frames a
    second of the input; None: the file's own, with which its count goes, while that of the first
    frames may be another.
    """
    if path.is_dir():
        count, rate = count_frames(path), DEFAULT_FOLDER_FPS
    else:
        capture = open_capture(path)
        count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        capture.release()
    rate = source_fps or rate
    if not (count > 0 and rate > 0):
        return None
    return round(count * fps / rate) if fps else round(count)
