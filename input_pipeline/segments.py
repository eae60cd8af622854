"""How a video is cut into records.

A record is a *core* of consecutive frames and a *halo* of the frames around it that a window which
starts in the core can reach. The cores of a video partition it, so that every window has exactly
one record to come from; the halos overlap, and are what the records cost over the frames alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Frames of one record, 0-based in the video: [start, stop) holds [core_start, core_end)."""

    start: int
    core_start: int
    core_end: int
    stop: int


def segments(
    num_frames: int, *, core_frames: int, halo_before: int, halo_after: int
) -> list[Segment]:
    """Cuts a video into segments whose cores partition it.

    The cores have at most `core_frames` frames and equal lengths to within one, so that no video
    ends in a core of a frame or two. The halos stop at the ends of the video.
    """
    count = -(-num_frames // core_frames)
    edges = [num_frames * i // count for i in range(count + 1)]
    return [
        Segment(max(0, a - halo_before), a, b, min(num_frames, b + halo_after))
        for a, b in itertools.pairwise(edges)
    ]
