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
    wanted: np.ndarray | None = None,
    file_seed: tf.Tensor | None = None,
    files_at_once: int = FILES_AT_ONCE,
    salvage: Salvage | None = None,
) -> tf.data.Dataset:
    """(record, bytes) of a range of records, several files at once.

    Args:
      shards: (path, number of records) of the record files.
      share: which records, counted through all files.
      wanted: bool [R], those of all records that are wanted; None: all of the share.
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

    wanted = np.ones(before, bool) if wanted is None else wanted

    def read(path, first, stop, skip, is_end):
        if salvage is None:
            records = _read_whole(path, first, stop, skip, is_end)
        else:
            signature = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)
            part = path, first, stop, skip, is_end
            records = tf.data.Dataset.from_generator(
                salvage.read, args=part, output_signature=signature
            )

        def is_wanted(record, data):
            if salvage is None:
                fits = (tf.strings.length(data) > 0) == (record < stop)
                tf.raw_ops.Assert(condition=fits, data=["another number of records", path])
            return (record < stop) & tf.gather(np.append(wanted, False), record)

        return records.filter(is_wanted)

    at_once = min(len(parts), files_at_once)
    threads = min(at_once, THREADS)
    return files.interleave(
        read, cycle_length=at_once, num_parallel_calls=threads, deterministic=True
    )


def _read_whole(path, first, stop, skip, is_end) -> tf.data.Dataset:
    """(record, bytes) of a part of a file, and where the file should end (stop, ""), if it does.

    The bytes are "" before where there are too few records, and not at the end if too many.
    """
    end = tf.data.Dataset.from_tensors("")
    records = tf.data.TFRecordDataset(path).skip(skip).concatenate(end)
    numbers = tf.data.Dataset.range(first, stop + tf.cast(is_end, tf.int64))
    return tf.data.Dataset.zip((numbers, records))
