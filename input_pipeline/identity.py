"""Whether a record is the one that the index means: of another build it would be read wrongly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from input_pipeline.records import RecordsIndex, RecordsInfo

SCALARS = ("num_frames", "first_frame", "core_start", "core_end")
IMAGES = ("frames", "flow")
PER_TUBE, PER_BOX = ("tube_ids", "tube_labels"), ("tube_index", "tube_frame", "tube_box")


class Identity:
    """What the records of a split say of themselves, by the index."""

    def __init__(self, index: RecordsIndex, info: RecordsInfo):
        video = index.record_video
        flow_stop = index.stop_frame + max(info.flow_frames, 1) - 1
        columns = {
            "num_frames": index.num_frames[video],
            "first_frame": index.first_frame,
            "core_start": index.core_start,
            "core_end": index.core_end,
            "frames": index.stop_frame - index.first_frame,
            "flow": np.minimum(flow_stop, index.num_frames[video]) - index.first_frame,
        }
        self._columns = {name: column.astype(np.int64) for name, column in columns.items()}
        self._videos = np.array([str(name).encode() for name in index.video_ids], object)[video]

    def check(self, record: tf.Tensor, example: Mapping[str, tf.Tensor]):
        """Makes the graph fail where `example` has the features of another record than `record`."""
        found = numbers_of(example)
        expected = tf.gather(np.stack([self._columns[name] for name in found], axis=1), record)
        is_same = tf.reduce_all(tf.stack(list(found.values())) == expected)
        is_same &= example["video"] == tf.gather(self._videos, record)
        fits = is_same & _tubes_fit(example)
        tf.raw_ops.Assert(condition=fits, data=["not the record of the index", record])

    def differences(self, record: int, example: Mapping[str, tf.Tensor]) -> list[str]:
        """The same in words, outside of a graph; nothing where it is that record."""
        found = {"video": example["video"], **numbers_of(example)}
        columns = {"video": self._videos, **self._columns}
        texts = []
        for name, value in found.items():
            is_now, expected = value.numpy(), columns[name][record]
            if is_now != expected:
                texts.append(f"{name} is {_shown(is_now)}, expected {_shown(expected)}")
        if not _tubes_fit(example):
            texts.append("its tubes have features of different lengths")
        return texts


def numbers_of(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """int64 []: the numbers in a record that the index knows, and how many images it holds."""
    numbers = {name: example[name] for name in SCALARS}
    lengths = {name: tf.shape(example[name], tf.int64)[0] for name in IMAGES if name in example}
    return numbers | lengths


def _tubes_fit(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """bool []: a tube's features are of as many tubes, and a box's of as many boxes."""
    fits = tf.constant(True)
    for names in (PER_TUBE, PER_BOX):
        sizes = [tf.shape(example[name])[0] for name in names if name in example]
        for size in sizes[1:]:
            fits &= size == sizes[0]
    return fits


def _shown(value: bytes | int) -> str:
    return repr(value.decode(errors="replace")) if isinstance(value, bytes) else str(value)
