"""Figure 7: drawn tubes of steps 0 to 3, of windows that came out right and of some that did not.

    python -m benchmarks.claims.examples --output runs/claims --picture docs/claims_examples.png

The windows are found by a rule, in the run of the whole method with seed 0: those in which somebody
acts, and all who do all the time, in the order of the best tubelet's score, each of a video of its
own. The first whose tubelet has the class and a mean IoU of .5 with the actor are right, the first
that lack one of the two are wrong.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.claims import matrix
from benchmarks.claims.preparation import ANNOTATIONS
from benchmarks.claims.runs import SPLIT, Run
from step_jax import evaluations, run_folder
from step_jax.annotations import Annotations, Video, read_native
from step_jax.boxes import tube_iou
from step_jax.cli import run_command
from step_jax.clip_detections import tubes_of
from step_jax.inference import load_predictor
from step_jax.tubelet_table import TubeletRows, iter_tubelet_videos
from step_jax.visualize.montage import draw_montage, predict, true_boxes
from step_jax.visualize.panels import captioned
from step_jax.visualize.png import write_png
from step_jax.visualize.shot import read_shot

_IOU = 0.5


class Example(NamedTuple):
    """A window and its best tubelet. overlap: mean IoU with the actor it overlaps most."""

    video: str
    start: int
    score: float
    overlap: float
    has_class: bool

    @property
    def is_right(self) -> bool:
        return self.has_class and self.overlap >= _IOU

    @property
    def text(self) -> str:
        said = "right" if self.is_right else "wrong boxes" if self.has_class else "wrong class"
        numbers = f"score {self.score:.2f}, IoU {self.overlap:.2f}"
        return f"{said}: {self.video}, frame {self.start}, {numbers}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims.examples", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/claims"))
    parser.add_argument("--data", type=pathlib.Path, help="of the benchmark (OUTPUT/data)")
    parser.add_argument("--picture", type=pathlib.Path, default="docs/claims_examples.png")
    parser.add_argument("--count", type=int, default=2, help="windows of each kind (2)")
    arguments = parser.parse_args()
    data = arguments.data or arguments.output / "data"
    annotations = read_native(data / ANNOTATIONS)
    workdir = Run(matrix.FULL, 0).folder(arguments.output)
    step = run_folder.finished_step(workdir)
    table = evaluations.folder(workdir, split=SPLIT, step=step) / "tubelets.parquet"
    chosen = choose(find(table, annotations), arguments.count)
    predictor = load_predictor(workdir)
    pictures = []
    for example in chosen:
        video = by_id(annotations)[example.video]
        path = pathlib.Path(annotations.video_path(video))
        shot = read_shot(path, predictor, start=example.start)
        truth = [true_boxes(video, number) for number in shot.numbers]
        steps = predict(predictor, shot.clip)
        picture = draw_montage(shot, steps, classes=predictor.classes, truth=truth)
        pictures.append(captioned(picture, example.text))
    write_png(arguments.picture, np.concatenate(pictures))
    print(arguments.picture)


def by_id(annotations: Annotations) -> dict[str, Video]:
    return {video.id: video for video in annotations.videos}


def find(table: pathlib.Path, annotations: Annotations) -> Iterator[Example]:
    """The best tubelet of every window in which those who act do so all the time."""
    videos = by_id(annotations)
    for rows in iter_tubelet_videos(table):
        last = rows.at_step(rows.header.num_steps)
        for start in np.unique(last.start):
            found = best_of(last.take(last.start == start), videos[rows.videos[0]], int(start))
            if found is not None:
                yield found


def best_of(rows: TubeletRows, video: Video, start: int) -> Example | None:
    """The best of one window's tubelets, and the actor that it is nearest to.

    None if nobody acts in it, or not all the time.
    """
    length = rows.header.clip_frames
    inside = [(tube.frames >= start) & (tube.frames < start + length) for tube in video.tubes]
    acting = [
        (tube.labels, tube.boxes[frames])
        for tube, frames in zip(video.tubes, inside, strict=True)
        if frames.any()
    ]
    if not acting or any(len(boxes) < length for _, boxes in acting):
        return None
    row, label = np.unravel_index(rows.scores.argmax(), rows.scores.shape)
    boxes = tubes_of(rows.tubes, row[None], label[None])
    scale = np.array([video.width, video.height] * 2, np.float32)
    truth = np.stack([boxes for _, boxes in acting])
    overlaps = np.asarray(tube_iou(boxes * scale, truth))[0]
    nearest = int(overlaps.argmax())
    return Example(
        video.id,
        start,
        float(rows.scores[row, label]),
        float(overlaps[nearest]),
        int(label) in acting[nearest][0],
    )


def choose(examples: Iterator[Example], count: int) -> list[Example]:
    """`count` that are right and `count` that are wrong, by score, each of another video."""
    chosen: dict[bool, dict[str, Example]] = {True: {}, False: {}}
    for example in sorted(examples, key=lambda one: (-one.score, one.video, one.start)):
        own = chosen[example.is_right]
        if len(own) < count and not any(example.video in kind for kind in chosen.values()):
            own[example.video] = example
    return [example for kind in (True, False) for example in chosen[kind].values()]


if __name__ == "__main__":
    run_command(main)
