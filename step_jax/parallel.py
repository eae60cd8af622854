"""Data parallelism: the only module that knows how many devices there are."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from step_jax.errors import InputError

DATA_AXIS = "data"

PyTree = Any


def data_parallel(function: Callable, *, donate: bool = False) -> Callable:
    """Wraps `function(replicated, batch, *more) -> outputs` to run on all local devices.

    The replicated arguments and the outputs are ordinary pytrees, without a leading device axis:
    the function must return the same on all devices (`jax.lax.psum`). `batch` is what `split_batch`
    or `on_devices` returns. `wrapped.lower` is as that of a jitted function.
    """
    mapped = _pmap(function, out_axes=None, donate_argnums=(0,) if donate else ())

    def wrapped(replicated: PyTree, batch: PyTree, *more: PyTree) -> PyTree:
        return _of_all_processes(mapped(replicated, batch, more))

    wrapped.lower = lambda replicated, batch, *more: mapped.lower(replicated, batch, more)
    return wrapped


def data_parallel_map(function: Callable) -> Callable:
    """Wraps `function(replicated, batch, *more) -> batch-like outputs`, gathered in order.

    Leaves of the outputs come back as `[B, ...]`, the batch put together again. Of several
    processes each works for itself, whatever the others do.
    """
    mapped = None

    def wrapped(replicated: PyTree, batch: PyTree, *more: PyTree) -> PyTree:
        nonlocal mapped
        if mapped is None:  # now, because nothing may ask for devices before all processes are here
            mapped = _pmap(function, out_axes=0, devices=_own_devices())
        out = mapped(_of_this_process(replicated), batch, more)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    return wrapped


def _pmap(function: Callable, **options: Any) -> Callable:
    """`(replicated, batch, more) -> function(replicated, batch, *more)` on each device's share."""

    def on_device(replicated: PyTree, batch: PyTree, more: tuple[PyTree, ...]) -> PyTree:
        return function(replicated, batch, *more)

    # With None as their axis, arguments go in and come out as they are on one device.
    return jax.pmap(on_device, axis_name=DATA_AXIS, in_axes=(None, 0, None), **options)


def replicated() -> jax.sharding.Sharding:
    """Where a wrapped function leaves its replicated outputs: all of it on every device.

    Put what is fed in there first. Otherwise the function is compiled a second time, for its own
    output, or its arguments are copied to the devices at every call.
    """
    return jax.sharding.NamedSharding(_mesh(), jax.sharding.PartitionSpec())


def split() -> jax.sharding.Sharding:
    """One part of the first axis on each device of all processes."""
    return jax.sharding.NamedSharding(_mesh(), jax.sharding.PartitionSpec(DATA_AXIS))


def replicated_here() -> jax.sharding.Sharding:
    """All of it on every device of this process."""
    return jax.sharding.NamedSharding(_mesh().local_mesh, jax.sharding.PartitionSpec())


def replicate(tree: PyTree) -> PyTree:
    """Puts arrays, which are the same at all processes, where `replicated` says."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated())
    # Not device_put, which sends everything between the processes to compare it.
    return _of_all_processes(jax.device_put(tree, replicated_here()))


def _mesh() -> jax.sharding.Mesh:
    """All devices, those of a process side by side, as pmap has them."""
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    return jax.sharding.Mesh(np.array(devices), (DATA_AXIS,))


def _own_devices() -> list[jax.Device] | None:
    return jax.local_devices() if jax.process_count() > 1 else None


def _of_all_processes(tree: PyTree) -> PyTree:
    """Replicated arrays as pmap gives them to each process -> the same of all, without a copy.

    As such they go in again, and are donated, and saved.
    """
    if jax.process_count() == 1:
        return tree
    everywhere = replicated()

    def join(leaf: jax.Array) -> jax.Array:
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, parts)

    return jax.tree.map(join, tree)


def _of_this_process(tree: PyTree) -> PyTree:
    """The reverse; arrays of this process alone stay as they are."""
    if jax.process_count() == 1:
        return tree
    own = replicated_here()

    def part(leaf: PyTree) -> PyTree:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, own, parts)

    return jax.tree.map(part, tree)


def prefetch(
    items: Iterable[Any], given: Callable[[Any], PyTree], *, ahead: int = 2
) -> Iterator[tuple[Any, PyTree]]:
    """(item, the batch that it gives, on the devices): in their order, put there ahead of use.

    While the devices work on a batch, the next ones travel. A wrapped function takes them as they
    are: not a byte is copied again.

    Args:
      items: what is iterated over. If that raises an error, or ends, this does so after all that
        came before, as if nothing were done ahead.
      given: item -> the `[B, ...]` leaves that go to the devices.
      ahead: batches that lie there, beside the one in use.
    """
    source, waiting = iter(items), collections.deque()
    while True:
        while len(waiting) <= ahead and not (waiting and waiting[-1].error):
            waiting.append(_fetched(source, given))
        item, batch, error = waiting.popleft()
        if isinstance(error, StopIteration):
            return
        if error is not None:
            raise error
        yield item, batch


class _Fetched(NamedTuple):
    item: Any
    batch: PyTree
    error: Exception | None


def _fetched(source: Iterator[Any], given: Callable[[Any], PyTree]) -> _Fetched:
    """The next of them, or the error in its place. Ctrl-C is none: that is for now."""
    try:
        item = next(source)
        return _Fetched(item, on_devices(given(item)), None)
    except Exception as error:
        return _Fetched(None, None, error)


def on_devices(batch: PyTree) -> PyTree:
    """`split_batch`, each device's share on that device: what a wrapped function would do."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (DATA_AXIS,))
    shares = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(DATA_AXIS))
    return jax.device_put(split_batch(batch), shares)


def split_batch(batch: PyTree) -> PyTree:
    """`[B, ...]` leaves -> `[devices, B / devices, ...]`."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), batch)


def check_batch_size(batch_size: int, *, accumulate: int = 1) -> None:
    """Raises InputError unless all devices of all processes get the same number of examples.

    With `accumulate`, each of the parts that a device's share is gone through in.
    """
    devices = jax.device_count()
    pieces = devices * accumulate
    if batch_size < 1 or batch_size % pieces:
        lower = batch_size - batch_size % pieces
        parts = f" in {accumulate} parts each" if accumulate > 1 else ""
        raise InputError(
            f"batch size {batch_size} does not divide over {devices} devices{parts}; "
            f"use a multiple, e.g. {max(lower, pieces)}"
        )


def example_index(local_batch_size: int) -> jax.Array:
    """Inside a wrapped function: each local example's index in the global batch, `[B]`."""
    first = jax.lax.axis_index(DATA_AXIS) * local_batch_size
    return first + jax.numpy.arange(local_batch_size)


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """A key per example: of its `index` `[B]` in the global batch, however that is split."""
    return jax.vmap(lambda one: jax.random.fold_in(key, one))(index)


def sum_over_devices(tree: PyTree) -> PyTree:
    return jax.lax.psum(tree, DATA_AXIS)


def axis_size() -> jax.Array:
    """Inside a wrapped function: the number of devices that share the batch."""
    return jax.lax.psum(1, DATA_AXIS)
