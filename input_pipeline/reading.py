"""The records' bytes, from the files, in an order that is a function of seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.salvage import Salvage

FILES_AT_ONCE = 8
THREADS = 8  # that read files


def read_records(
    shards: Sequence[tuple[str, int]],
    share: range,
    *,
    file_seed: tf.Tensor | None = None,
    files_at_once: int = FILES_AT_ONCE,
    salvage: Salvage | None = None,
) -> tf.data.Dataset:
    """(record, bytes) of a range of records, several files at once.

    Args:
      shards: (path, number of records) of the record files.
      share: which records, counted through all files.
      file_seed: int64 [], shuffles the files; None keeps their order.
      files_at_once: between which the records change one by one.
      salvage: reads the files where they are damaged; in the place of a record that it cannot read
        comes one without bytes. None: damage, and a file of more or fewer records, is an error.
    """
    parts, before = [], 0
    for path, num_records in shards:
        first = max(share.start, before)
        stop = min(share.stop, before + num_records)
        if first < stop:
            parts.append((path, first, stop, first - before, stop == before + num_records))
        before += num_records
    columns = tuple(np.array(column) for column in zip(*parts, strict=True))
    files = tf.data.Dataset.from_tensor_slices(columns)
    if file_seed is not None:
        files = files.shuffle(len(parts), seed=file_seed, reshuffle_each_iteration=False)

    def read(*part):
        if salvage is None:
            return _read_whole(*part)
        signature = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)
        return tf.data.Dataset.from_generator(salvage.read, args=part, output_signature=signature)

    at_once = min(len(parts), files_at_once)
    threads = min(at_once, THREADS)
    return files.interleave(
        read, cycle_length=at_once, num_parallel_calls=threads, deterministic=True
    )


def _read_whole(path, first, stop, skip, is_end) -> tf.data.Dataset:
    """(record, bytes) of a part of a file, which has as many records as it should."""
    # Nothing after the last of them, where the file should end, shows that it does.
    records = tf.data.TFRecordDataset(path).skip(skip).concatenate(tf.data.Dataset.from_tensors(""))
    numbers = tf.data.Dataset.range(first, stop + tf.cast(is_end, tf.int64))

    def is_record(record, data):
        fits = (tf.strings.length(data) > 0) == (record < stop)
        tf.raw_ops.Assert(condition=fits, data=["another number of records", path])
        return record < stop

    return tf.data.Dataset.zip((numbers, records)).filter(is_record)
