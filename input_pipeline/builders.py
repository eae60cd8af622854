"""The clip records of a data set, written by TFDS as sharded TFRecord files.

A record is a segment of a video (see `segments`): its frames as JPEG, its flow images where there
are some, and the tubes that cross it.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline.frame_store import FrameStore
from input_pipeline.records import RecordsIndex
from input_pipeline.segments import Segment, segments
from step_jax.annotations import Annotations, Tube, Video


def pixel_features(*, flow: bool = False) -> tfds.features.FeaturesDict:
    """What a record holds without tubes: a segment's frames and where they come from.

    flow: with the flow images of the segment, and of some frames after it (`record`).
    """
    jpegs = tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg"))
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Text(),
            "num_frames": np.int64,  # of the whole video
            "width": np.int64,  # of the annotation's coordinate frame, pixels
            "height": np.int64,
            "first_frame": np.int64,  # the video's frame number of frames[0]
            "core_start": np.int64,
            "core_end": np.int64,
            "frames": jpegs,
            **({"flow": jpegs} if flow else {}),  # flow[i] leads from frames[i] to the next
        }
    )


def features(num_classes: int, *, flow: bool = False) -> tfds.features.FeaturesDict:
    """What a record holds: `pixel_features`, and R rows of boxes of the G tubes that cross it."""
    return tfds.features.FeaturesDict(
        {
            **pixel_features(flow=flow),
            "tube_ids": tfds.features.Tensor(shape=(None,), dtype=np.int32),  # [G] in the video
            "tube_labels": tfds.features.Tensor(shape=(None, num_classes), dtype=np.uint8),
            "tube_index": tfds.features.Tensor(shape=(None,), dtype=np.int32),  # [R] into tube_ids
            "tube_frame": tfds.features.Tensor(shape=(None,), dtype=np.int32),  # [R] in the video
            "tube_box": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),  # normalised
        }
    )


@dataclass(frozen=True)
class FlowStores:
    """Where the flow images of a data set are.

    open: a video's store. frames: F, how many images a frame reads: its own and F - 1 after it.
    """

    open: Callable[[Video], FrameStore]
    frames: int


def record(
    video: Video,
    segment: Segment,
    store: FrameStore,
    *,
    num_classes: int,
    flow: tuple[FrameStore, int] | None = None,
) -> dict[str, object]:
    """One example of `features`.

    flow: the store of the video's flow images, and F: the record gets those of its frames and F - 1
        more, as far as the video goes.
    """
    example = {
        "video": video.id,
        "num_frames": video.num_frames,
        "width": video.width,
        "height": video.height,
        "first_frame": segment.start,
        "core_start": segment.core_start,
        "core_end": segment.core_end,
        "frames": store.frames(segment.start, segment.stop),
        **_tube_rows(video, segment, num_classes),
    }
    if flow is not None:
        flow_store, flow_frames = flow
        stop = min(segment.stop + flow_frames - 1, video.num_frames)
        example["flow"] = flow_store.frames(segment.start, stop)
    return example


def visible_boxes(video: Video, tube: Tube) -> tuple[np.ndarray, np.ndarray]:
    """A tube's frames [n] and normalised boxes [n, 4], cut off at the edges of the picture.

    Boxes that lie outside of it altogether are left out.
    """
    boxes = tube.boxes / np.array([video.width, video.height] * 2, np.float32)
    boxes = np.clip(boxes, 0.0, 1.0)
    inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return tube.frames[inside], boxes[inside]


def _tube_rows(video: Video, segment: Segment, num_classes: int) -> dict[str, np.ndarray]:
    ids, labels, rows, frames = [], [], [], []
    boxes = [np.zeros((0, 4), np.float32)]
    for tube_id, tube in enumerate(video.tubes):
        tube_frames, tube_boxes = visible_boxes(video, tube)
        inside = (tube_frames >= segment.start) & (tube_frames < segment.stop)
        if not inside.any():
            continue
        rows.extend([len(ids)] * int(inside.sum()))
        frames.extend(tube_frames[inside])
        boxes.append(tube_boxes[inside])
        ids.append(tube_id)
        labels.append(np.isin(np.arange(num_classes), tube.labels))
    return {
        "tube_ids": np.array(ids, np.int32),
        "tube_labels": np.array(labels, np.uint8).reshape(len(ids), num_classes),
        "tube_index": np.array(rows, np.int32),
        "tube_frame": np.array(frames, np.int32),
        "tube_box": np.concatenate(boxes),
    }


class ClipRecords(tfds.core.GeneratorBasedBuilder):
    """Writes the records of a data set whose frames are in frame stores.

    TFDS orders the records by a hash of their key, so neighbours in a file are strangers, and cuts
    them into shards of equal numbers; it writes to a temporary folder, which it renames at the end.
    """

    VERSION = tfds.core.Version("1.0.0")
    name = "clip_records"
    # Nothing is downloaded. TFDS would look for a list of URLs beside this file, with a package
    # (importlib_resources) that it does not itself require.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        annotations: Annotations,
        open_store: Callable[[Video], FrameStore],
        flow: FlowStores | None,
        segmentation: Mapping[str, int],
        progress: Callable[[int], object],
        **kwargs,
    ):
        """segmentation: the keyword arguments of `segments`. progress: called with the number of
        frames that are done. kwargs: those of a TFDS builder."""
        self._annotations = annotations
        self._open_store = open_store
        self._flow = flow
        self._segmentation = dict(segmentation)
        self._progress = progress
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Clip records of {self._annotations.name}.",
            features=features(len(self._annotations.classes), flow=self._flow is not None),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {name: self._generate_examples(name) for name in self._annotations.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        num_classes = len(self._annotations.classes)
        for video in self._annotations.split(split):
            store = self._open_store(video)
            flow = self._flow and (self._flow.open(video), self._flow.frames)
            for segment in segments(video.num_frames, **self._segmentation):
                example = record(video, segment, store, num_classes=num_classes, flow=flow)
                yield f"{video.id}:{segment.core_start}", example
            self._progress(video.num_frames)


def write_records(
    annotations: Annotations,
    output: pathlib.Path,
    *,
    num_shards: int,
    segmentation: Mapping[str, int],
    open_store: Callable[[Video], FrameStore],
    progress: Callable[[int], object],
    scratch: pathlib.Path,
    flow: FlowStores | None = None,
) -> dict[str, list[tuple[str, int]]]:
    """Writes the TFDS data set into `output`; see `ClipRecords` for the arguments.

    scratch: a folder for what TFDS leaves behind.

    Returns each split's record files and the number of records in them, the paths from `output`.
    Raises OSError where the files cannot be written.
    """
    builder = ClipRecords(
        annotations=annotations,
        open_store=open_store,
        flow=flow,
        segmentation=segmentation,
        progress=progress,
        data_dir=output,
    )
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=num_shards, try_download_gcs=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces a download
            builder.download_and_prepare(download_dir=scratch / "downloads", download_config=config)
    except Exception as error:  # TFDS wraps what happens in errors of its own
        if isinstance(error.__cause__, tf.errors.OpError):  # a full disk, mostly
            reason = error.__cause__.message
            raise OSError(f"{output}: the records cannot be written: {reason}") from error
        raise
    return {
        name: [
            (os.path.relpath(path, output), length)
            for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
        ]
        for name, split in builder.info.splits.items()
    }


def read_index(shards: Sequence[str], videos: Sequence[Video], *, num_classes: int) -> RecordsIndex:
    """The index of one split, from its record files, which it reads once: they are readable."""
    spec = features(num_classes).tf_example_spec

    def ranges(serialized):
        example = tf.io.parse_single_example(serialized, spec)
        first = example["first_frame"]
        stop = first + tf.shape(example["frames"], tf.int64)[0]
        return example["video"], first, stop, example["core_start"], example["core_end"]

    number = {video.id: i for i, video in enumerate(videos)}
    rows = [
        (number[video.decode()], *frames)
        for video, *frames in tf.data.TFRecordDataset(list(shards)).map(ranges).as_numpy_iterator()
    ]
    record_video, first, stop, core_start, core_end = np.array(rows, np.int32).T
    return RecordsIndex(
        video_ids=np.array([video.id for video in videos]),
        num_frames=np.array([video.num_frames for video in videos], np.int32),
        width=np.array([video.width for video in videos], np.int32),
        height=np.array([video.height for video in videos], np.int32),
        record_video=record_video,
        first_frame=first,
        stop_frame=stop,
        core_start=core_start,
        core_end=core_end,
        runs=_runs(videos),
    )


def _runs(videos: Sequence[Video]) -> np.ndarray:
    runs = []
    for number, video in enumerate(videos):
        for tube_id, tube in enumerate(video.tubes):
            frames, _ = visible_boxes(video, tube)
            for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
                if len(run):
                    runs.append((number, tube_id, run[0], run[-1] + 1))
    return np.array(runs, np.int32).reshape(-1, 4)
