"""How proposals become an action tube: one window of a video, step by step, as one picture.

    python -m step_jax.visualize.montage --workdir DIR --video FILE --output PICTURE.png

Columns are the input proposals and the detector's steps, rows are frames of the target clip. The
tubelet that scores best in the end is drawn in colour, from the proposal that it came from on.
Detectors that read optical flow are refused: a window's flow is not computed here.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from step_jax.annotations import Annotations, Video, read_native
from step_jax.boxes import scale_boxes
from step_jax.cli import run_command
from step_jax.clip_detections import clip_detections, tubes_of
from step_jax.errors import InputError
from step_jax.inference import Predictor, Tubelets, load_predictor
from step_jax.storage import open_folder
from step_jax.streaming.video_sources import check_video
from step_jax.video import resize
from step_jax.visualize.colors import BLACK, WHITE, class_colors
from step_jax.visualize.draw import draw_boxes, font_size
from step_jax.visualize.panels import bar, display_size, tile
from step_jax.visualize.png import write_png
from step_jax.visualize.shot import Shot, read_shot
from step_jax.visualize.text import chip_size, draw_chip

WIDEST_PX = 1400
SHORTEST_PX = 240
_FAINT = np.array([200, 200, 200], np.uint8)
_FAINT_OPACITY = 0.5


def main():
    arguments = _parse()
    check_video(arguments.video)
    annotated = None
    if arguments.annotations:
        annotated = find_annotated(read_native(arguments.annotations), arguments.video)
    workdir = open_folder(arguments.workdir, flag="--workdir")
    predictor = load_predictor(workdir, arguments.checkpoint)
    if predictor.modality.has_flow:
        raise InputError(
            f"--workdir {arguments.workdir}: this detector reads optical flow; montages are of "
            "detectors of RGB alone (detect.py --all_steps shows the steps of all kinds)"
        )
    shot = read_shot(arguments.video, predictor, start=arguments.start)
    tubelets = predict(predictor, shot.clip)
    picture = draw_montage(
        shot,
        tubelets,
        classes=predictor.classes,
        truth=[] if annotated is None else [true_boxes(annotated, n) for n in shot.numbers],
        top=arguments.top,
    )
    write_png(arguments.output, picture)
    print(arguments.output)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.visualize.montage",
        description="Draws how the detector's steps refine the proposals in one window of a video.",
    )
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the training run")
    add("--video", type=pathlib.Path, required=True, help="a video file or a folder of frames")
    add("--output", type=pathlib.Path, required=True, help="the PNG")
    add("--start", type=int, help="first frame of the target clip (in the middle of the video)")
    add("--annotations", type=pathlib.Path, help="native JSON that has the video: outlines it")
    add("--checkpoint", default="latest", help="latest (default), best, or a training step")
    add("--top", type=int, default=1, help="how many tubelets to follow (1)")
    return parser.parse_args()


def predict(predictor: Predictor, clip: np.ndarray) -> list[Tubelets]:
    """Each step's tubelets of one clip, as numpy, without the batch's axis."""
    batch = np.repeat(clip[None], jax.local_device_count(), axis=0)
    steps = jax.tree.map(lambda leaf: np.asarray(leaf)[:1], predictor(batch))
    return [Tubelets(*(leaf[0] for leaf in step)) for step in steps]


def find_annotated(annotations: Annotations, path: pathlib.Path) -> Video:
    """The annotated video of a file: the same path, or else the same name.

    Raises InputError if there is none.
    """
    for video in annotations.videos:
        if annotations.video_path(video).resolve() == path.resolve():
            return video
    for video in annotations.videos:
        if path.stem in (video.id, pathlib.PurePath(video.path).stem):
            return video
    raise InputError(
        f"{path}: not among the {len(annotations.videos)} videos of the annotations "
        f"{annotations.name!r}, by path or by name"
    )


def true_boxes(video: Video, number: int) -> np.ndarray:
    """The annotated boxes of a frame, `[N, 4]`, normalised."""
    found = [tube.boxes[tube.frames == number] for tube in video.tubes]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *found])
    return boxes / np.array([video.width, video.height] * 2, np.float32)


def draw_montage(
    shot: Shot,
    steps: Sequence[Tubelets],
    *,
    classes: Sequence[str],
    truth: Sequence[np.ndarray] = (),
    top: int = 1,
) -> np.ndarray:
    """The picture, RGB uint8: rows are the first, middle and last frame of the target clip.

    Args:
      shot: the window.
      steps: the detector's result for it, as `predict` gives it.
      classes: names.
      truth: for each target frame the true boxes `[N, 4]`, normalised; drawn dashed and white.
      top: tubelets to follow from proposal to tube, the best ones of the last step.
    """
    height, width = shot.frames[0].shape[:2]
    cell_width, cell_height = display_size(
        width, height, columns=len(steps) + 1, shortest=SHORTEST_PX, widest=WIDEST_PX
    )
    followed = best_tubelets(steps[-1], top)
    cells = []
    for offset in sorted({0, (len(shot.frames) - 1) // 2, len(shot.frames) - 1}):
        frame = resize(shot.frames[offset], width=cell_width, height=cell_height)
        if len(truth):
            white = np.repeat(WHITE[None], len(truth[offset]), axis=0)
            frame = draw_boxes(frame, _pixels(truth[offset], frame), white, dashed=True)
        first = _draw_input(frame, steps[0], offset, followed, classes)
        _write_corner(first, f"frame {shot.start + offset}")
        cells.append(first)
        cells += [_draw_step(frame, step, offset, followed, classes) for step in steps]
    names = ["input", *(f"step {number}" for number in range(1, len(steps) + 1))]
    size = font_size(cell_height, cell_width)
    header = [bar(name, width=cell_width, size=size) for name in names]
    return np.concatenate([tile(header, columns=len(names)), tile(cells, columns=len(names))])


class Followed(NamedTuple):
    """Tubelets to highlight: int `[N]`, the rows of the scores and the classes."""

    tubelet: np.ndarray
    label: np.ndarray


def best_tubelets(step: Tubelets, count: int) -> Followed:
    """The `count` best of a step, after the NMS of its clip."""
    found = clip_detections(step.scores, step.tubes, score_threshold=0.0)
    best = np.argsort(-found.score, kind="stable")[:count]
    return Followed(found.tubelet[best], found.label[best])


def _draw_input(
    frame: np.ndarray, step: Tubelets, offset: int, followed: Followed, classes: Sequence[str]
) -> np.ndarray:
    boxes = _pixels(step.fed[:, offset], frame)
    colors = class_colors(len(classes))[followed.label]
    return draw_boxes(_draw_faint(frame, boxes), boxes[followed.tubelet], colors)


def _draw_step(
    frame: np.ndarray, step: Tubelets, offset: int, followed: Followed, classes: Sequence[str]
) -> np.ndarray:
    everyone = np.arange(len(step.scores))
    boxes = tubes_of(step.tubes, everyone, step.scores.argmax(axis=-1))[:, offset]
    picture = _draw_faint(frame, _pixels(boxes, frame))
    boxes = tubes_of(step.tubes, followed.tubelet, followed.label)[:, offset]
    scores = step.scores[followed.tubelet, followed.label]
    return draw_boxes(
        picture,
        _pixels(boxes, frame),
        class_colors(len(classes))[followed.label],
        labels=[
            f"{classes[label]} {score:.2f}"
            for label, score in zip(followed.label, scores, strict=True)
        ],
    )


def _draw_faint(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    colors = np.repeat(_FAINT[None], len(boxes), axis=0)
    return draw_boxes(frame, boxes, colors, thickness=1, opacity=_FAINT_OPACITY)


def _write_corner(picture: np.ndarray, text: str) -> None:
    size = font_size(*picture.shape[:2])
    y = picture.shape[0] - chip_size(text, size)[1]
    draw_chip(picture, text, x=0, y=y, size=size, color=WHITE, background=BLACK)


def _pixels(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return scale_boxes(boxes, width=frame.shape[1], height=frame.shape[0])


if __name__ == "__main__":
    run_command(main)
