"""Video frames in and out: files that OpenCV's FFmpeg decodes, and folders of images.

Frames are RGB uint8 [H, W, 3], read in order, one at a time: memory does not grow with the video.
"""

from step_jax.video.completeness import check_complete
from step_jax.video.frames import resample, resize
from step_jax.video.reading import (
    DEFAULT_FOLDER_FPS,
    VideoInfo,
    count_frames,
    probe,
    read_frames,
)
from step_jax.video.timed import TimedVideo
from step_jax.video.writing import VideoWriter

__all__ = [
    "DEFAULT_FOLDER_FPS",
    "TimedVideo",
    "VideoInfo",
    "VideoWriter",
    "check_complete",
    "count_frames",
    "probe",
    "read_frames",
    "resample",
    "resize",
]
