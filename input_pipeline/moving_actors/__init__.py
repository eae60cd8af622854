"""The embedded benchmark: rendered videos whose actions cannot be told from one frame.

`python -m input_pipeline.moving_actors --output DIR` renders real video files and their annotations
in the native format. The eight classes are told apart by how a body moves over 18 to 30 frames, and
four of them also by where it does so. Bodies of the other four travel most of their own height in
that time, so a fixed box loses them.

Videos have 96 to 120 frames. In each, one or two actors act once, for 50 to 90 frames, and idle
before and after; in half of them another one only stands there. Within a split, every 16 videos
hold every class equally often. Grounds are random; behind them, along the upper edge, stands a red
or a blue wall.

The benchmark is frozen: results are comparable only for the same VERSION, seed and size. Any
change of what is rendered, however small, needs a new VERSION. (Another release of OpenCV may round
a pixel or encode a frame differently.)
"""

VERSION = 2
"""Frozen: raise it with any change of the rendered pixels, boxes or classes."""

SPLITS = ("train", "test")
FPS = 25.0
