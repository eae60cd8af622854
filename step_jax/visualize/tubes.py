"""Action tubes on their video: each in a colour of its own, over time, beside the truth.

    python -m step_jax.visualize.tubes --tubes TUBES.parquet --annotations FILE --video ID \
        --output VIDEO.webm --still STRIP.png

The best tubes after non-maximum suppression are drawn, the annotated ones thin and dashed; below
the picture is a bar for each. The still shows some frames side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from step_jax.annotations import Annotations, Video, read_native
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.replacing import check_outputs
from step_jax.tube_table import read_tubes
from step_jax.video import VideoWriter, read_frames, resize
from step_jax.visualize.draw import draw_boxes, font_size
from step_jax.visualize.panels import captioned, display_size, tile
from step_jax.visualize.png import check_png, write_png
from step_jax.visualize.timeline import Bar, Timeline
from step_jax.visualize.tracks import Track, annotated_tracks, check_same_data, found_tracks

SHORTEST_PX = 360  # a smaller video is enlarged, so that labels can be read
SHORTEST_STILL_PX = 240
WIDEST_PX = 1920


class TubeView:
    """Pictures of a video's tubes: frames side by side, and the bars of all tubes below them.

    Args:
      tracks: what is drawn; the first lie on top.
      num_frames: of the video.
      frame_width, frame_height: of its frames, pixels.
      columns: frames in a picture.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        *,
        num_frames: int,
        frame_width: int,
        frame_height: int,
        columns: int = 1,
    ):
        self._tracks = tracks
        self._cell = display_size(
            frame_width,
            frame_height,
            columns=columns,
            shortest=SHORTEST_PX if columns == 1 else SHORTEST_STILL_PX,
            widest=max(WIDEST_PX, frame_width) if columns == 1 else WIDEST_PX,
        )
        width, height = self._cell
        self._columns = columns
        blank = captioned(np.zeros((height, width, 3), np.uint8), "")
        cells = tile([blank] * columns, columns=columns)
        bars = [
            Bar(track.title, track.color, track.frames, outlined=track.is_truth) for track in tracks
        ]
        size = font_size(height, width)
        self._bars = Timeline(bars, num_frames=num_frames, width=cells.shape[1], size=size)
        self.height, self.width = cells.shape[0] + self._bars.height, cells.shape[1]

    def __call__(self, frames: Sequence[np.ndarray], numbers: Sequence[int]) -> np.ndarray:
        """RGB uint8 `[self.height, self.width, 3]` of as many frames as there are columns."""
        cells = [self._draw(f, number) for f, number in zip(frames, numbers, strict=True)]
        return np.concatenate([tile(cells, columns=self._columns), self._bars(numbers)])

    def _draw(self, frame: np.ndarray, number: int) -> np.ndarray:
        width, height = self._cell
        frame = resize(frame, width=width, height=height)
        for truth in (True, False):
            frame = _draw_tracks(frame, number, [t for t in self._tracks if t.is_truth == truth])
        return captioned(frame, f"frame {number}")


def _draw_tracks(frame: np.ndarray, number: int, tracks: Sequence[Track]) -> np.ndarray:
    """All annotated tubes, or all found ones, of a frame."""
    seen = [(track, row) for track in tracks if (row := track.row(number)) is not None]
    if not seen:
        return frame
    height, width = frame.shape[:2]
    is_truth = seen[0][0].is_truth
    return draw_boxes(
        frame,
        np.stack([track.boxes[row] for track, row in seen]) * [width, height, width, height],
        np.stack([track.color for track, _ in seen]),
        labels=None if is_truth else [track.label(row) for track, row in seen],
        dashed=is_truth,
        thickness=1 if is_truth else None,
    )


def numbered_frames(annotations: Annotations, video: Video) -> Iterator[tuple[int, np.ndarray]]:
    """(number, RGB frame) of a whole video. Raises InputError where it is not that long."""
    path, count = annotations.video_path(video), 0
    frames = read_frames(path, fps=video.fps)
    for number, (_, frame) in enumerate(tqdm.tqdm(frames, total=video.num_frames, unit="frame")):
        count = number + 1
        if count <= video.num_frames:
            yield number, frame
    if count != video.num_frames:
        raise InputError(
            f"{path}: has {count} frames, but the annotations of {video.id!r} say "
            f"{video.num_frames}; expected the annotated video"
        )


def write_video(
    path: pathlib.Path, annotations: Annotations, video: Video, tracks: Sequence[Track]
) -> None:
    """The whole video with its tubes, as .webm or .avi. Raises InputError as the writer does."""
    with contextlib.ExitStack() as stack:
        view = writer = None
        for number, frame in numbered_frames(annotations, video):
            if writer is None:
                view = _view(tracks, video, frame, columns=1)
                size = {"width": view.width, "height": view.height}
                writer = stack.enter_context(VideoWriter(path, fps=video.fps, **size))
            writer.write(view([frame], [number]))


def draw_still(
    annotations: Annotations, video: Video, tracks: Sequence[Track], *, columns: int
) -> np.ndarray:
    """Some frames side by side, RGB uint8, spread over those in which a tube is."""
    numbers = still_frames(tracks, num_frames=video.num_frames, count=columns)
    frames = {n: f for n, f in numbered_frames(annotations, video) if n in numbers}
    view = _view(tracks, video, frames[numbers[0]], columns=len(numbers))
    return view([frames[number] for number in numbers], numbers)


def still_frames(tracks: Sequence[Track], *, num_frames: int, count: int) -> list[int]:
    """`count` frames evenly from the first to the last with a tube; fewer of a shorter span."""
    first = min((int(track.frames[0]) for track in tracks), default=0)
    last = max((int(track.frames[-1]) for track in tracks), default=num_frames - 1)
    last = min(last, num_frames - 1)
    return sorted({round(number) for number in np.linspace(first, last, count)})


def _view(tracks: Sequence[Track], video: Video, frame: np.ndarray, *, columns: int) -> TubeView:
    height, width = frame.shape[:2]
    size = {"frame_width": width, "frame_height": height}
    return TubeView(tracks, num_frames=video.num_frames, columns=columns, **size)


def main() -> None:
    told = _parse()
    if not (told.output or told.still):
        raise InputError("nothing to draw: give --output VIDEO.webm, --still PICTURE.png or both")
    if told.still:
        check_png(told.still)
    annotations = read_native(told.annotations, allow_absolute=told.allow_absolute_paths)
    video = annotations.video(told.video)
    path = annotations.video_path(video)
    frames = path.iterdir() if path.is_dir() else []
    inputs = [told.tubes, told.annotations, path, *frames]
    check_outputs([told.output, told.still], inputs=inputs)
    tubes = read_tubes(told.tubes)
    check_same_data(tubes, annotations)
    found = found_tracks(tubes, video, top=told.top, min_score=told.min_score)
    tracks = [*found, *annotated_tracks(video, annotations.classes)]
    if told.output:
        write_video(told.output, annotations, video, tracks)
    if told.still:
        write_png(told.still, draw_still(annotations, video, tracks, columns=told.columns))
    names = " and ".join(str(path) for path in (told.output, told.still) if path)
    print(f"{names}: {len(found)} tubes found, {len(video.tubes)} annotated")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.visualize.tubes",
        description="Draws action tubes on their video, beside the annotated ones.",
    )
    add = parser.add_argument
    add("--tubes", required=True, help="table of tubes, linked or trimmed")
    add("--annotations", required=True, help="native JSON that has the video")
    add("--video", required=True, help="the video's id there")
    add("--output", type=pathlib.Path, help="the drawn video, .webm or .avi")
    add("--still", type=pathlib.Path, help="frames side by side, .png")
    add("--top", type=int, default=5, help="tubes to draw, the best ones after NMS (5)")
    add("--min_score", type=float, default=0.0, help="leave out tubes under this score (0)")
    add("--columns", type=int, default=6, help="frames of the still (6)")
    add("--allow_absolute_paths", action="store_true", help="if the annotations are trusted")
    told = parser.parse_args()
    for name in ("top", "columns"):
        if getattr(told, name) < 1:
            raise InputError(f"--{name} is {getattr(told, name)}; expected 1 or more")
    return told


if __name__ == "__main__":
    run_command(main)
