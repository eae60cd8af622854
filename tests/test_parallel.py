"""Wrapped functions on four virtual devices: what goes in, what comes out, what depends on them."""

import jax
import minute
import numpy as np
import pytest

from step_jax import parallel
from step_jax.errors import InputError

DEVICES = 4


@pytest.fixture(scope="module", autouse=True)
def _four_devices():
    assert jax.local_device_count() == DEVICES, "tests/conftest.py sets them"


def batch_of(size):
    return {"x": np.arange(2.0 * size, dtype=np.float32).reshape(size, 2)}


def test_split_batch_keeps_the_order():
    split = parallel.split_batch(batch_of(8))["x"]
    assert split.shape == (DEVICES, 2, 2)
    np.testing.assert_array_equal(split.reshape(8, 2), batch_of(8)["x"])


def test_replicated_values_go_in_and_come_out_as_they_are():
    def total(scale, batch, *more):
        value = scale * batch["x"].sum() + sum(more) / parallel.axis_size()
        return parallel.sum_over_devices(value)

    wrapped = parallel.data_parallel(total)
    batch = parallel.split_batch(batch_of(8))
    expected = 2 * batch_of(8)["x"].sum()
    assert wrapped(2.0, batch).shape == ()
    assert wrapped(2.0, batch) == expected
    assert wrapped(2.0, batch, 10.0, 20.0) == expected + 30


def test_each_device_does_its_share_and_outputs_are_in_order():
    wrapped = parallel.data_parallel_map(
        lambda shift, batch, factor: (batch["x"] * factor + shift, batch["x"].sum(axis=-1))
    )
    moved, sums = wrapped(1.0, parallel.split_batch(batch_of(8)), 3.0)
    np.testing.assert_array_equal(moved, batch_of(8)["x"] * 3 + 1)
    np.testing.assert_array_equal(sums, batch_of(8)["x"].sum(axis=-1))
    assert len(moved.sharding.device_set) == DEVICES


def test_replicated_state_is_compiled_for_once():
    """Its own output goes in again; a state that lies on one device would be another program."""
    wrapped = parallel.data_parallel(
        lambda state, batch: parallel.sum_over_devices(state * batch["x"].mean())
    )
    batch = parallel.split_batch(batch_of(8))
    state = jax.device_put(np.ones(3, np.float32), parallel.replicated())
    with minute.compilations() as compiled:
        for _ in range(3):
            state = wrapped(state, batch)
    assert len(compiled) == 1


def test_donated_state_is_given_away():
    wrapped = parallel.data_parallel(
        lambda state, batch: state + parallel.sum_over_devices(batch["x"].sum()), donate=True
    )
    state = jax.device_put(np.zeros(3, np.float32), parallel.replicated())
    after = wrapped(state, parallel.split_batch(batch_of(4)))
    assert state.is_deleted()
    assert not after.is_deleted()


def test_prefetched_batches_are_taken_as_they_are():
    """A transfer at the call, which the guard forbids, would be a copy."""
    wrapped = parallel.data_parallel_map(lambda factor, batch: batch["x"] * factor)
    factor = jax.device_put(np.float32(2), parallel.replicated())
    items = [("first", batch_of(8)), ("second", batch_of(4))]
    found = list(parallel.prefetch(items, lambda item: item[1]))
    assert [item[0] for item, _ in found] == ["first", "second"]
    for (_, batch), given in found:
        wrapped(factor, given)  # compiled
        with jax.transfer_guard("disallow_explicit"):
            out = wrapped(factor, given)
            with pytest.raises(Exception, match="Disallowed host-to-device"):
                wrapped(factor, parallel.split_batch(batch))
        np.testing.assert_array_equal(out, 2 * batch["x"])


def test_two_batches_are_put_on_the_devices_ahead():
    fetched = []
    items = parallel.prefetch(range(5), lambda item: fetched.append(item) or batch_of(4))
    seen = [(item, list(fetched)) for item, _ in items]
    assert seen == [(item, list(range(min(item + 3, 5)))) for item in range(5)]


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_of_the_pipeline_comes_at_its_own_step(ahead):
    def items():
        yield from (0, 1, 2)
        raise InputError("record 3 is damaged")

    found = parallel.prefetch(items(), lambda item: batch_of(4), ahead=ahead)
    assert [next(found)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="record 3"):
        next(found)


def test_an_examples_key_does_not_depend_on_the_split():
    def draw(key, batch):
        index = parallel.example_index(len(batch["x"]))
        keys = parallel.example_keys(key, index)
        return index, jax.vmap(jax.random.normal)(keys)

    wrapped = parallel.data_parallel_map(draw)
    key = jax.random.key(3)
    outputs = [
        wrapped(key, jax.tree.map(lambda leaf, n=n: leaf.reshape(n, 8 // n, 2), batch_of(8)))
        for n in (1, 2, DEVICES)
    ]
    for index, values in outputs:
        np.testing.assert_array_equal(index, np.arange(8))
        np.testing.assert_array_equal(values, outputs[0][1])
    assert len(set(outputs[0][1].tolist())) == 8


@pytest.mark.parametrize("size", [0, -4, 3, 6])
def test_a_batch_that_does_not_divide_is_refused(size):
    with pytest.raises(InputError, match=rf"batch size {size} does not divide over 4 .*e.g. 4"):
        parallel.check_batch_size(size)


def test_a_share_that_does_not_divide_into_parts_is_refused():
    with pytest.raises(InputError, match=r"batch size 12 .* 4 devices in 2 parts each; .*e.g. 8"):
        parallel.check_batch_size(12, accumulate=2)


def test_a_batch_that_divides_is_accepted():
    parallel.check_batch_size(8)
    parallel.check_batch_size(16, accumulate=2)
