"""Action tubes and the files they come from: one internal form, one reader a format.

The frames of the videos are somewhere else (`step_jax.video`); nothing here opens them.
"""

from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.annotations.native import read_native, write_native
from step_jax.annotations.selection import select_videos

__all__ = ["Annotations", "Tube", "Video", "read_native", "select_videos", "write_native"]
