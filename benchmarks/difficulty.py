"""How hard a data set is: what a fixed box, a few frames or one frame can tell about its actions.

    python -m benchmarks.difficulty --annotations DIR/annotations.json --output difficulty.json

No model is trained but support vector machines on ground-truth boxes. Three questions:

1. Geometry: how well a cuboid (one box for all frames) fits windows of 6, 18 and 30 frames of a
   tube: the window's own mean box, the best of the 11 initial proposals, and, for comparison with a
   cuboid, the true middle frames extended on a straight line (paper, Eq. 4).
2. Motion: how far the box's centre gets in such a window, in heights of the actor.
3. Appearance: how often the class is known from the crops and the boxes of 1, 6, 18, 30 frames.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import tqdm

from step_jax.annotations import Annotations, Tube, Video, read_native
from step_jax.boxes import box_iou, pairwise_iou
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.proposals import initial_boxes
from step_jax.replacing import replacing
from step_jax.tubes import extrapolate
from step_jax.video import read_frames

LENGTHS = (6, 18, 30)  # of the progressive steps' clips, in frames
CLIP = 6
STRIDE = 10  # frames between the windows of a tube
PROPOSALS = 11
CROP = 64  # pixels; crops are squares around the box, so that its proportions stay visible
CONTEXT = 1.1  # crop side, in box heights


def main():
    arguments = _parse()
    annotations = read_native(arguments.annotations)
    report = measure(annotations, train=arguments.train_split, test=arguments.test_split)
    with replacing(arguments.output) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


def measure(annotations: Annotations, *, train: str, test: str) -> dict:
    """All three measures as one JSON-ready dict; geometry and motion over both splits."""
    videos = [*annotations.split(train), *annotations.split(test)]
    return {
        "name": annotations.name,
        "classes": list(annotations.classes),
        "windows": {
            str(length): window_report(videos, annotations.classes, length) for length in LENGTHS
        },
        "classifiers": classifier_report(annotations, train=train, test=test),
    }


# --- geometry and motion --------------------------------------------------------------------------


def windows(tube: Tube, length: int, *, stride: int = STRIDE) -> Iterator[int]:
    """Offsets into the tube's boxes where `length` frames follow each other without a gap."""
    for offset in range(0, len(tube.frames) - length + 1, stride):
        if tube.frames[offset + length - 1] - tube.frames[offset] == length - 1:
            yield offset


def window_report(videos: list[Video], classes: tuple[str, ...], length: int) -> dict:
    """Class name (and "all") -> {measure: its mean or median over the windows}."""
    rows: dict[str, list[dict]] = {name: [] for name in (*classes, "all")}
    for video in videos:
        proposals = initial_boxes(PROPOSALS) * np.tile([video.width, video.height], 2)
        for tube in video.tubes:
            for offset in windows(tube, length):
                row = measure_window(tube.boxes[offset : offset + length], proposals)
                for name in (*(classes[label] for label in tube.labels), "all"):
                    rows[name].append(row)
    return {name: _summary(measured) for name, measured in rows.items() if measured}


def measure_window(boxes_Tx4: np.ndarray, proposals_Mx4: np.ndarray) -> dict[str, float]:
    """One window's overlaps (means over its frames) and its motion in heights of the actor."""
    centres = (boxes_Tx4[:, :2] + boxes_Tx4[:, 2:]) / 2
    height = np.median(boxes_Tx4[:, 3] - boxes_Tx4[:, 1])
    steps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    known = boxes_Tx4[CLIP:-CLIP] if len(boxes_Tx4) > CLIP else boxes_Tx4
    line = extrapolate(known, chunk=CLIP) if len(boxes_Tx4) > CLIP else known
    return {
        "mean_box_iou": float(box_iou(boxes_Tx4.mean(axis=0), boxes_Tx4).mean()),
        "proposal_iou": float(pairwise_iou(proposals_Mx4, boxes_Tx4).mean(axis=1).max()),
        "extrapolated_iou": float(box_iou(line, boxes_Tx4).mean()),
        "extent": float(steps.max() / height),
        "displacement": float(steps[0, -1] / height),
    }


def _summary(rows: list[dict]) -> dict:
    summary: dict[str, float] = {"windows": len(rows)}
    for key in rows[0]:
        middle = np.mean if key.endswith("iou") else np.median
        summary[key] = round(float(middle([row[key] for row in rows])), 4)
    return summary


# --- appearance -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A window of a tube: its label, boxes [T, 4] and crops {frame of the window: RGB uint8}."""

    label: int
    boxes: np.ndarray
    crops: dict[int, np.ndarray]


# What each classifier sees: the frames (of 30) of its crops, and those of its boxes.
VIEWS = {
    "1 frame": ((15,), None),
    "6 frames": ((12, 17), slice(12, 18)),
    "18 frames": ((6, 12, 17, 23), slice(6, 24)),
    "30 frames": ((0, 6, 12, 17, 23, 29), slice(0, 30)),
    "30 boxes, no pixels": ((), slice(0, 30)),
}


def classifier_report(annotations: Annotations, *, train: str, test: str) -> dict:
    """View -> test accuracy and confusion counts (row: truth, column: answer), and chance."""
    known, unknown = (_samples(annotations, split) for split in (train, test))
    truth = np.array([sample.label for sample in unknown])
    report: dict = {"chance": round(float(np.bincount(truth).max() / len(truth)), 4)}
    for view in VIEWS:
        answers = _classify(known, unknown, view)
        confusion = np.zeros((len(annotations.classes),) * 2, int)
        np.add.at(confusion, (truth, answers), 1)
        accuracy = round(float((truth == answers).mean()), 4)
        report[view] = {"accuracy": accuracy, "confusion": confusion.tolist()}
    return report


def _samples(annotations: Annotations, split: str) -> list[Sample]:
    videos = tqdm.tqdm(annotations.split(split), desc=split, unit="video", disable=None)
    samples = [sample for video in videos for sample in _video_samples(annotations, video)]
    if not samples:
        raise InputError(
            f"{annotations.name}: no tube of split {split!r} has {LENGTHS[-1]} frames in a row"
        )
    return samples


def _video_samples(annotations: Annotations, video: Video) -> list[Sample]:
    """The windows of a video's tubes, read in one pass over its frames."""
    length = LENGTHS[-1]
    samples, wanted = [], {}
    shown = sorted({frame for frames, _ in VIEWS.values() for frame in frames})
    for tube in video.tubes:
        for offset in windows(tube, length):
            sample = Sample(tube.labels[0], tube.boxes[offset : offset + length], {})
            samples.append(sample)
            for frame in shown:
                wanted.setdefault(int(tube.frames[offset]) + frame, []).append((sample, frame))
    for number, (_, image) in enumerate(read_frames(annotations.video_path(video))):
        scale = np.tile([image.shape[1] / video.width, image.shape[0] / video.height], 2)
        for sample, frame in wanted.get(number, ()):
            sample.crops[frame] = crop(image, sample.boxes[frame] * scale)
    return samples


def crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The square around a box, CONTEXT box heights wide, as [CROP, CROP, 3]; edges repeat."""
    scale = CROP / (CONTEXT * max(box[3] - box[1], 1.0))
    centre = (box[:2] + box[2:]) / 2
    shift = CROP / 2 - scale * centre
    view = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(image, view, (CROP, CROP), borderMode=cv2.BORDER_REPLICATE)


def _classify(known: list[Sample], unknown: list[Sample], view: str) -> np.ndarray:
    """The labels that a support vector machine trained on `known` gives `unknown`."""
    blocks = [zip(*(_features(sample, view) for sample in part), strict=True)
              for part in (known, unknown)]  # fmt: skip
    scaled = [_scale(np.array(a), np.array(b)) for a, b in zip(*blocks, strict=True)]
    train, test = (np.concatenate(part, axis=1) for part in zip(*scaled, strict=True))
    machine = cv2.ml.SVM_create()
    machine.setKernel(cv2.ml.SVM_RBF)
    machine.setC(10)
    machine.setGamma(0.5 / len(scaled))
    labels = np.array([sample.label for sample in known], np.int32)
    machine.train(train, cv2.ml.ROW_SAMPLE, labels)
    return machine.predict(test)[1].ravel().astype(int)


def _features(sample: Sample, view: str) -> list[np.ndarray]:
    """A list of blocks, each a vector: of every crop its HOG and colours, and the boxes' path."""
    frames, span = VIEWS[view]
    blocks = []
    for frame in frames:
        image = sample.crops[frame]
        blocks.append(_hog().compute(image).ravel())
        blocks.append(cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).ravel() / 255)
    return blocks if span is None else [*blocks, *path_features(sample.boxes[span])]


def _hog() -> cv2.HOGDescriptor:
    return cv2.HOGDescriptor((CROP, CROP), (16, 16), (8, 8), (8, 8), 9)


def path_features(boxes_Tx4: np.ndarray) -> list[np.ndarray]:
    """The path of the centre and the sides, in heights, and what is told by hand: its turning."""
    centres, sides = (boxes_Tx4[:, :2] + boxes_Tx4[:, 2:]) / 2, boxes_Tx4[:, 2:] - boxes_Tx4[:, :2]
    height = np.median(sides[:, 1])
    path, sides = (centres - centres.mean(axis=0)) / height, sides / height
    speed = np.diff(path, axis=0)
    area = (path[:-1, 0] * speed[:, 1] - path[:-1, 1] * speed[:, 0]).sum()
    told = [area, *np.abs(speed).mean(axis=0), *np.ptp(path, axis=0), *np.ptp(sides, axis=0)]
    return [np.concatenate([path.ravel(), sides.ravel()]), np.array(told)]


def _scale(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardises a block by its training part, to a mean squared length of 1."""
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    scale = spread * np.sqrt(train.shape[1])
    return tuple(((part - mean) / scale).astype(np.float32) for part in (train, test))


# --- the table ------------------------------------------------------------------------------------


def table(report: dict) -> str:
    """The report as text."""
    lines = []
    for length, by_class in report["windows"].items():
        keys = list(next(iter(by_class.values())))
        lines.append(f"\n{length + ' frames':12s}" + "".join(f"{key:>17s}" for key in keys))
        for name, row in by_class.items():
            lines.append(f"{name:12s}" + "".join(f"{row[key]:17.4g}" for key in keys))
    classifiers = dict(report["classifiers"])
    lines.append(f"\nchance {classifiers.pop('chance'):.3f}")
    for view, result in classifiers.items():
        lines.append(f"\n{view}: accuracy {result['accuracy']:.3f} (row: truth, column: answer)")
        for name, row in zip(report["classes"], result["confusion"], strict=True):
            lines.append(f"{name:12s}" + "".join(f"{count:6d}" for count in row))
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.difficulty", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--annotations", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="JSON file to write")
    parser.add_argument("--train_split", default="train")
    parser.add_argument("--test_split", default="test")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
