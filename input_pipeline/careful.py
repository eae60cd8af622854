"""Reading on where records are damaged: blanks in the place of the windows that cannot be made.

`iterate` goes the fast way until something cannot be read, and from there on this one, in which
every window is made under guard. Both give the same batches: whether there is a blank in the place
of a window depends on the records' bytes, and not on when the damage was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from input_pipeline.damage import Damage
from input_pipeline.examination import message_of
from input_pipeline.windows import WindowMaker
from step_jax.errors import InputError

Batch = dict[str, np.ndarray]
Spec = dict[str, tf.TensorSpec]

# Of TensorFlow's errors, those that say that what was read is wrong, not that reading failed.
DAMAGE = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError)


def iterate(
    fast: tf.data.Dataset, careful: Callable[[int], tf.data.Dataset], damage: Damage, *, where: str
) -> Iterator[Batch]:
    """The batches as numpy, with example_mask [B], which is False for blanks.

    Args:
      fast: all batches.
      careful: those from some number on, as `train_windows` and `eval_windows` make the windows.
      damage: the account.
      where: the folder of the records, for errors.

    Raises InputError for damage beyond what is allowed, and where the files cannot be read.
    """
    num_done = 0
    try:
        for batch in fast.as_numpy_iterator():
            yield batch | {"example_mask": np.ones(len(batch["boxes"]), bool)}
            num_done += 1
        return
    except tf.errors.OpError as error:
        if not isinstance(error, DAMAGE):
            raise _cannot_read(where, error) from error
        message = message_of(error)
    try:
        for batch in careful(num_done).as_numpy_iterator():
            intact, serialized = batch.pop("intact"), batch.pop("serialized")
            for place in np.flatnonzero(~intact):
                found = (int(batch[name][place]) for name in ("record", "start"))
                damage.skip(*found, serialized[place], error=message)
            damage.note_surplus()
            yield batch | {"example_mask": intact}
    except tf.errors.OpError as error:
        raise _cannot_read(where, damage.salvage.failure or error) from error
    damage.note_surplus()


def _cannot_read(where: str, error: tf.errors.OpError) -> InputError:
    return InputError(
        f"{where}: reading failed ({type(error).__name__}: {message_of(error)}); this is no damage "
        "of the records: run the same command again when they can be read"
    )


def train_windows(
    elements: tf.data.Dataset, maker: WindowMaker, spec: Spec, *, threads: int
) -> tf.data.Dataset:
    """The windows of (record, bytes, start, seed), in order, each with `marks`.

    spec: of a window.
    """

    def made(record, data, start, seed):
        window = tf.data.Dataset.from_tensors((record, data, start, seed)).map(maker.train_window)
        return _or_blank(window, spec, record, data, start)

    return elements.interleave(
        made, cycle_length=threads, num_parallel_calls=threads, deterministic=True
    )


def eval_windows(
    pieces: tf.data.Dataset, maker: WindowMaker, spec: Spec, decoded_spec, *, threads: int
) -> tf.data.Dataset:
    """The windows of (record, bytes, starts [n]), in order, each with `marks`.

    The images of a piece are decoded once, unless one of them cannot be: then for each window
    alone, so that only those are blank that need it.

    spec: of a window. decoded_spec: of what `maker.decode_record` gives.
    """

    def decoded(*piece):
        nothing = tf.data.Dataset.from_tensors(_zeros(decoded_spec))  # has no windows
        whole = tf.data.Dataset.from_tensors(piece).map(maker.decode_record).ignore_errors()
        return whole.concatenate(nothing).take(1).map(lambda *found: (found, piece))

    def windows(found, piece):
        record, data, starts = piece

        def alone(start):
            this = tf.data.Dataset.from_tensors((record, data, start[None]))
            window = this.map(maker.decode_record).flat_map(maker.split_windows)
            return _or_blank(window, spec, record, data, start)

        together = maker.split_windows(*found).map(lambda window: _marked(window))
        each = tf.data.Dataset.from_tensor_slices(starts).flat_map(alone)
        return together.concatenate(each).take(tf.size(starts, tf.int64))

    return pieces.interleave(
        decoded, cycle_length=threads, num_parallel_calls=threads, deterministic=True
    ).flat_map(windows)


def without_first(pieces: tf.data.Dataset, num_windows: int) -> tf.data.Dataset:
    """Pieces of (record, bytes, starts [n]) without the first windows, which are not decoded."""

    def cut(before, piece):
        record, data, starts = piece
        left = starts[tf.maximum(num_windows - before, 0) :]
        return before + tf.size(starts), (record, data, left)

    return pieces.scan(tf.constant(0), cut).filter(lambda *piece: tf.size(piece[-1]) > 0)


def _or_blank(window: tf.data.Dataset, spec: Spec, record, data, start) -> tf.data.Dataset:
    """The one window, or a blank if it cannot be made."""
    marks = {"record": record, "start": start}
    blank = _zeros(spec) | marks | {"intact": False, "serialized": data}
    good = window.map(lambda made: _marked(made | marks)).ignore_errors()
    return good.concatenate(tf.data.Dataset.from_tensors(blank)).take(1)


def _marked(window: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return window | {"intact": True, "serialized": ""}


def _zeros(spec):
    """Zeros of a nested structure's shapes, where they are not known of length 0."""

    def zeros(tensor):
        return tf.zeros([size or 0 for size in tensor.shape], tensor.dtype)

    return tf.nest.map_structure(zeros, spec)
