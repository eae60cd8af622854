"""The embedded benchmark: rendered videos whose actions cannot be told from one frame.

`python -m input_pipeline.moving_actors --output DIR` renders real video files and their annotations
in the native format. The eight classes are told apart by how a body moves over 18 to 30 frames; the
bodies travel about their own height in that time, so a fixed box loses them.

The benchmark is frozen: results are comparable only for the same VERSION, seed and size. Any change
of what is rendered, however small, needs a new VERSION.
"""

VERSION = 1
"""Frozen: raise it with any change of the rendered pixels, boxes or classes."""

SPLITS = ("train", "test")
FPS = 25.0
