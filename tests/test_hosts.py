"""What several processes agree on, in one process; tests/test_pods.py has several."""

from __future__ import annotations

import numpy as np
import pytest

from step_jax import hosts
from step_jax.errors import InputError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 2, 0), "--coordinator missing: --coordinator, --num_processes, --process_id go"),
        (("here:1", None, None), "--num_processes and --process_id missing"),
        (("here", 2, 0), "--coordinator 'here': expected HOST:PORT"),
        (("here:port", 2, 0), "--coordinator 'here:port': expected HOST:PORT"),
        ((":1", 2, 0), "--coordinator ':1': expected HOST:PORT"),
        (("here:1", 2, 2), "--process_id 2 of --num_processes 2: expected 0 to 1"),
        (("here:1", 2, -1), "--process_id -1 of --num_processes 2"),
    ],
)
def test_processes_are_given_completely_or_not_at_all(given, message):
    with pytest.raises(InputError, match=message):
        hosts.check_arguments(*given)


def test_without_arguments_the_cluster_is_asked():
    assert hosts.check_arguments("here:1", 2, 1)
    assert not hosts.check_arguments(None, None, None)


def test_one_process_is_all_there_are():
    assert hosts.is_writer()
    assert hosts.gather("name", {"a": 1}) == [{"a": 1}]
    assert hosts.writers("name", 3) == 3
    assert hosts.any_process("name", True)
    assert not hosts.any_process("name", False)
    assert hosts.any_stops("SIGTERM")
    assert not hosts.any_stops(None)
    tree = {"a": np.float32([-0.0])}
    assert hosts.broadcast(tree) is tree


def test_one_process_stops_at_once():
    vote = hosts.StopVote()
    assert [vote(name) for name in (None, "SIGTERM", None)] == [None, "SIGTERM", None]


def test_a_difference_is_told_by_key(monkeypatch):
    monkeypatch.setattr(hosts, "writers", lambda name, value: {"a": 1, "b": [1], "d": 0})
    with pytest.raises(InputError) as error:
        hosts.check_same("configuration", {"a": 2, "b": (1,), "c": 5, "e": 1}, may_differ=("e",))
    assert (
        "process 0 has another configuration (a is 2 there and 1 at process 0; c is 5 there and "
        "absent at process 0; d is absent there and 0 at process 0)" in str(error.value)
    )
