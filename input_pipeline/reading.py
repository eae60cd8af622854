"""The records' bytes, from the files, in an order that is a function of seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

FILES_AT_ONCE = 8
THREADS = 8  # that read files


def read_records(
    shards: Sequence[tuple[str, int]],
    share: range,
    *,
    file_seed: tf.Tensor | None = None,
    files_at_once: int = FILES_AT_ONCE,
) -> tf.data.Dataset:
    """(record, bytes) of a range of records, several files at once.

    Args:
      shards: (path, number of records) of the record files.
      share: which records, counted through all files.
      file_seed: int64 [], shuffles the files; None keeps their order.
      files_at_once: between which the records change one by one.
    """
    parts, before = [], 0
    for path, num_records in shards:
        first = max(share.start, before)
        stop = min(share.stop, before + num_records)
        if first < stop:
            parts.append((path, first, stop, first - before))
        before += num_records
    columns = tuple(np.array(column) for column in zip(*parts, strict=True))
    files = tf.data.Dataset.from_tensor_slices(columns)
    if file_seed is not None:
        files = files.shuffle(len(parts), seed=file_seed, reshuffle_each_iteration=False)

    def read(path, first, stop, skip):
        records = tf.data.TFRecordDataset(path).skip(skip)
        return tf.data.Dataset.zip((tf.data.Dataset.range(first, stop), records))

    at_once = min(len(parts), files_at_once)
    threads = min(at_once, THREADS)
    return files.interleave(
        read, cycle_length=at_once, num_parallel_calls=threads, deterministic=True
    )


def find_damaged(shards: Sequence[tuple[str, int]]) -> str | None:
    """The first record file that cannot be read to its end."""
    for path, _ in shards:
        try:
            tf.data.TFRecordDataset(path).reduce(0, lambda count, _: count + 1)
        except tf.errors.OpError:
            return path
    return None
