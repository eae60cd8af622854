"""Draws some of AVA's keyframes, with what is annotated and what a detector found.

    python -m input_pipeline.draw_keyframes --records DIR --annotations DIR --split val \
        --detections TABLE --output PICTURE.png
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from input_pipeline import keyframes, records
from input_pipeline.accelerators import hide_accelerators
from input_pipeline.keyframes import KeyframeLabels
from step_jax.annotations.ava_csv import NUM_ACTIONS, AvaDetections, AvaLabels
from step_jax.annotations.ava_folder import VERSIONS, open_ava_folder
from step_jax.annotations.ava_labels import LabelMap
from step_jax.annotations.ava_time import second_of_frame
from step_jax.ava_table import read_ava_detections
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.visualize.keyframes import KeyframePicture, draw_keyframes
from step_jax.visualize.png import check_png, write_png


def main() -> None:
    told = _parse()
    check_png(told.output)
    files = open_ava_folder(told.annotations, told.version)
    label_map, labels = files.label_map(), files.labels(told.split)
    found = read_ava_detections([told.detections], label_map) if told.detections else None
    pictures = [
        keyframe_picture(video, second, frame, labels, found, label_map, told)
        for video, second, frame in read_keyframes(
            told.records, told.split, labels, count=told.count, videos=told.videos
        )
    ]
    write_png(told.output, draw_keyframes(pictures, columns=told.columns))
    names = ", ".join(picture.title for picture in pictures)
    print(f"{told.output}: {names}")


def read_keyframes(
    records_dir: pathlib.Path, split: str, labels: AvaLabels, *, count: int, videos: str = ""
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(video, second, frame RGB uint8 [H, W, 3]) of labelled keyframes, evenly over all of them.

    Raises InputError as `keyframes.keyframe_windows`, and where a record cannot be read.
    """
    info, index = records.load_info(records_dir), records.load_index(records_dir, split)
    keyframes.check_kind(info, records_dir, joins_labels=True)
    options = {"clip_frames": 12, "videos": videos, "where": records_dir}
    plan = keyframes.keyframe_windows(KeyframeLabels((), keyframes=labels), index, info, **options)
    unique = np.unique(
        np.stack([np.repeat(np.arange(index.num_records), plan.plan.count), plan.plan.starts + 6]),
        axis=1,
    )
    chosen = np.unique(np.linspace(0, unique.shape[1] - 1, count).round().astype(int))
    for record, frame in unique[:, chosen].T.tolist():
        jpeg = _jpeg(records.shard_paths(records_dir, split), index, record, frame)
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError(f"{records_dir}: {index.record_name(record)}: a damaged picture")
        video = str(index.video_ids[index.record_video[record]])
        yield video, int(second_of_frame(frame)), picture[..., ::-1]


def _jpeg(shards: Sequence[tuple[str, int]], index, record: int, frame: int) -> bytes:
    """One picture of a record."""
    hide_accelerators()
    import tensorflow as tf

    first = np.cumsum([0, *(count for _, count in shards)])
    shard = int(np.searchsorted(first, record, side="right")) - 1
    try:
        rows = tf.data.TFRecordDataset(shards[shard][0]).skip(record - int(first[shard]))
        example = tf.train.Example.FromString(next(rows.as_numpy_iterator()))
    except (tf.errors.OpError, StopIteration) as error:
        raise InputError(f"{shards[shard][0]}: cannot be read; build the records again") from error
    images = example.features.feature["frames"].bytes_list.value
    return images[frame - int(index.first_frame[record])]


def keyframe_picture(
    video: str,
    second: int,
    frame: np.ndarray,
    labels: AvaLabels,
    found: AvaDetections | None,
    label_map: LabelMap,
    told: argparse.Namespace,
) -> KeyframePicture:
    """What is annotated on a keyframe and the best of what was found, `told.top` with a score of
    `told.min_score` or more."""
    known = dict(zip(label_map.ids, label_map.names, strict=True))
    names = {action: known.get(action, f"({action})") for action in range(1, NUM_ACTIONS + 1)}
    actions: dict[tuple[float, ...], list[str]] = {}
    for row in np.flatnonzero(_of(labels, video, second)):
        action = int(labels.action_id[row])
        actions.setdefault(tuple(labels.boxes[row]), []).append(names[action])
    best = np.zeros(0, int)
    if found is not None:
        best = np.flatnonzero(_of(found, video, second) & (found.score >= told.min_score))
        best = best[np.argsort(-found.score[best], kind="stable")][: told.top]
    return KeyframePicture(
        title=f"{video} {second}",
        frame=frame,
        true_boxes=np.array(list(actions)),
        true_texts=["\n".join(texts) for texts in actions.values()],
        found_boxes=found.boxes[best] if len(best) else np.zeros((0, 4)),
        found_texts=[f"{names[int(found.action_id[i])]} {found.score[i]:.2f}" for i in best],
    )


def _of(rows: AvaLabels | AvaDetections, video: str, second: int) -> np.ndarray:
    number = rows.videos.index(video) if video in rows.videos else -1
    return (rows.video == number) & (rows.timestamp == second)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.draw_keyframes",
        description="Draws AVA's keyframes with annotations (dashed) and detections.",
    )
    add = parser.add_argument
    add("--records", type=pathlib.Path, required=True, help="that hold the pictures")
    add("--annotations", type=pathlib.Path, required=True, help="folder of AVA's files")
    add("--version", choices=VERSIONS, default=VERSIONS[0], help="of the annotations (2.1)")
    add("--split", default="val", help="train or val (val)")
    add("--detections", type=pathlib.Path, help="official CSV, or a table; without: annotations")
    add("--output", type=pathlib.Path, required=True, help="the PNG")
    add("--videos", default="", help="glob over the videos' ids (all)")
    add("--count", type=int, default=9, help="keyframes, evenly over those with labels (9)")
    add("--columns", type=int, help="pictures side by side")
    add("--top", type=int, default=6, help="detections of a keyframe, the best ones (6)")
    add("--min_score", type=float, default=0.0, help="leave out detections under this score (0)")
    told = parser.parse_args()
    for name in ("count", "top"):
        if getattr(told, name) < 1:
            raise InputError(f"--{name} is {getattr(told, name)}; expected 1 or more")
    return told


if __name__ == "__main__":
    run_command(main)
