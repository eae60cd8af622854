"""AVA's clock: which frame of a video's records which second of the movie is.

Of every second from 900 to 1799 there are 12 frames, whatever the movie's rate; frame 0 is the
first of second 900, so that keyframe t, annotated at second t, is frame 12 (t - 900).
"""

from __future__ import annotations

import numpy as np

FPS = 12
FIRST_SECOND, LAST_SECOND = 900, 1799  # whose frames there are
NUM_FRAMES = FPS * (LAST_SECOND - FIRST_SECOND + 1)


def frame_of_second(second: np.ndarray | int) -> np.ndarray | int:
    """The first frame of a second of the movie: a keyframe, if it is annotated."""
    return FPS * (second - FIRST_SECOND)


def second_of_frame(frame: np.ndarray | int) -> np.ndarray | int:
    """The second of the movie that a frame lies in."""
    return FIRST_SECOND + frame // FPS
