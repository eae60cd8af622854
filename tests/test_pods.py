"""Training and evaluation by two processes with two devices each, against one with four.

The processes are real and talk over gloo. Where the detector does not matter the step is the cheap
one of test_train.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import numpy as np
import pods
import pyarrow.parquet as pq
import pytest
import test_train
import tiny_run

import train
from step_jax.training_log import read_log

CHEAP = "tests/cheap_training.py"
FOREVER = 10**6  # steps


def flags(squares, workdir, **changes):
    return tiny_run.flags(squares, workdir=workdir, data__streams=2, **changes)


def assert_all_ended_well(processes):
    found = pods.ended(processes)
    assert [one.status for one in found] == [0, 0], found
    return found


def assert_close(one, other, step):
    """Two checkpoints to float tolerance."""
    expected, found = tiny_run.saved_arrays(one, step), tiny_run.saved_arrays(other, step)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=2e-5, err_msg=name)


def logged(workdir, *names):
    return [[line[name] for name in names] for line in read_log(workdir)]


def last_checkpoint(workdir):
    return max(int(name) for name in os.listdir(workdir / "checkpoints") if name.isdigit())


# --- the same result ------------------------------------------------------------------------------


def test_two_processes_train_as_one_does(squares, tmp_path, monkeypatch, compilation_cache):
    """The same batches: the cheap step sums up all pixels and boxes."""
    two, one = tmp_path / "two", tmp_path / "one"
    processes = pods.start(CHEAP, flags(squares, two), cache=compilation_cache)
    test_train.make_cheap(monkeypatch)
    assert train.train(tiny_run.config(squares, data__streams=2), one) == 0
    writer, other = assert_all_ended_well(processes)
    assert_close(one, two, tiny_run.STEPS)
    np.testing.assert_allclose(logged(two, "loss"), logged(one, "loss"), rtol=1e-5)
    assert len(read_log(two)) == tiny_run.STEPS
    # One of them writes and prints.
    assert sorted(os.listdir(two)) == sorted(os.listdir(one))
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert f"trained {tiny_run.STEPS} steps" in writer.output
    assert other.output == ""


@pytest.mark.slow
def test_one_stream_is_not_for_two_processes(squares, tmp_path, compilation_cache):
    """Both end at once, with the one line of the first that noticed."""
    arguments = tiny_run.flags(squares, workdir=tmp_path)
    ended = pods.ended(pods.start(CHEAP, arguments, cache=compilation_cache))
    assert [one.status for one in ended] == [1, 1]
    for one in ended:
        assert "data.streams is 1 and there are 2 processes; expected a multiple" in one.errors
        assert "Traceback" not in one.errors


@pytest.mark.slow
def test_two_processes_train_and_evaluate_the_detector_as_one_does(
    squares, tmp_path, compilation_cache
):
    """Real steps, in which keys of sampling depend on an example's place in the global batch."""
    two, one = tmp_path / "two", tmp_path / "one"
    changes = {"train__eval_every_steps": 6, "eval__tubes": True, "eval__stride": 1}
    options = {"cache": compilation_cache}
    assert_all_ended_well(pods.start("train.py", flags(squares, two, **changes), **options))
    alone = pods.start("train.py", flags(squares, one, **changes), count=1, devices=4, **options)
    assert pods.ended(alone)[0].status == 0
    assert_close(one, two, tiny_run.STEPS)
    np.testing.assert_allclose(logged(two, "loss"), logged(one, "loss"), rtol=1e-4)
    # Evaluated again, of the same checkpoint, by both numbers of processes.
    tables = []
    for name, count, devices in (("by_two", 2, 2), ("by_one", 1, 4)):
        workdir = tmp_path / name
        shutil.copytree(two, workdir, ignore=shutil.ignore_patterns("eval"))
        again = [f"--workdir={workdir}"]
        processes = pods.start("evaluate.py", again, count=count, devices=devices, **options)
        assert all(each.status == 0 for each in pods.ended(processes))
        folder = workdir / "eval" / "test" / str(tiny_run.STEPS)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert not (folder / "shards").exists()
        del metrics["seconds"]
        names = ("detections.parquet", "tubelets.parquet")
        tables.append([metrics, *(pq.read_table(folder / each) for each in names)])
    by_two, by_one = tables
    assert by_two[0] == by_one[0]
    for one_table, two_table in zip(by_one[1:], by_two[1:], strict=True):
        assert two_table.num_rows > 0
        assert two_table.equals(one_table)
    trained = json.loads((two / "eval/test/12/metrics.json").read_text())
    assert trained["score"] == by_one[0]["score"]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_continues(
    squares, tmp_path, monkeypatch, compilation_cache, before, after
):
    """The batches go on where they were."""
    straight, changed, steps = tmp_path / "straight", tmp_path / "changed", 200
    seldom = {"train__steps": steps, "train__checkpoint_every_steps": steps}
    test_train.make_cheap(monkeypatch)
    assert train.train(tiny_run.config(squares, data__streams=2, **seldom), straight) == 0

    options = {"count": before, "devices": 4 // before, "cache": compilation_cache}
    processes = pods.start(CHEAP, flags(squares, changed, train__steps=steps), **options)
    pods.wait_for(changed / "checkpoints", processes, pattern="[0-9]")
    processes[0].send_signal(signal.SIGTERM)
    assert all(one.status == 0 for one in pods.ended(processes))
    assert read_log(changed)[-1]["step"] < steps

    options = {"count": after, "devices": 4 // after, "cache": compilation_cache}
    ended = pods.ended(pods.start(CHEAP, flags(squares, changed, **seldom), **options))
    assert all(one.status == 0 for one in ended)
    assert "continuing from checkpoint" in ended[0].output
    assert_close(straight, changed, steps)


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_at_one_stops_all_at_the_same_step(squares, tmp_path, compilation_cache, asked):
    arguments = flags(squares, tmp_path, train__steps=FOREVER)
    processes = pods.start(CHEAP, arguments, cache=compilation_cache)
    pods.wait_for(tmp_path / "checkpoints", processes, pattern="[0-9]")
    processes[asked].send_signal(signal.SIGTERM)
    writer, other = assert_all_ended_well(processes)
    last = last_checkpoint(tmp_path)
    assert f"saved checkpoint {last}; the same command continues" in writer.output
    assert ("SIGTERM" if asked == 0 else "a signal at another process") in writer.output
    assert "error" not in writer.errors + other.errors
    assert last == read_log(tmp_path)[-1]["step"]


@pytest.mark.slow
def test_a_signal_interrupts_the_evaluation_of_all(squares, tmp_path, compilation_cache):
    """One process is asked to stop while both evaluate, or wait for one another there."""
    changes = {"train__eval_every_steps": 1, "train__steps": FOREVER}
    arguments = flags(squares, tmp_path, **changes)
    processes = pods.start("train.py", arguments, cache=compilation_cache)
    pods.wait_for(tmp_path / "eval" / "test", processes, pattern="2")  # its folder, no result yet
    processes[1].send_signal(signal.SIGTERM)
    writer, _ = assert_all_ended_well(processes)
    assert f"saved checkpoint {last_checkpoint(tmp_path)}; the same command" in writer.output


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_continues(
    squares, tmp_path, compilation_cache, killed
):
    """Within the time of a heartbeat, with one line; then the same command goes on."""
    arguments = flags(squares, tmp_path, train__steps=FOREVER)
    processes = pods.start(CHEAP, arguments, cache=compilation_cache)
    pods.wait_for(tmp_path / "checkpoints", processes, pattern="[0-9]")
    time.sleep(1)
    processes[killed].kill()
    start = time.monotonic()
    ended = pods.ended(processes, seconds=120)
    assert time.monotonic() - start < 90
    assert ended[killed].status == -signal.SIGKILL
    survivor = ended[1 - killed]
    assert survivor.status not in (0, -signal.SIGKILL)
    last = survivor.errors.splitlines()[-1]
    assert last.startswith("error: process ")
    assert "the same command, at all processes, goes on from the last checkpoint" in last
    before = last_checkpoint(tmp_path)
    again = pods.start(CHEAP, arguments, cache=compilation_cache)
    while last_checkpoint(tmp_path) == before:
        assert all(process.poll() is None for process in again), pods.ended(again)
        time.sleep(0.1)
    again[0].send_signal(signal.SIGTERM)
    writer, _ = assert_all_ended_well(again)
    assert f"continuing from checkpoint {before}" in writer.output


@pytest.mark.slow
def test_an_error_of_one_ends_all_with_its_line(squares, tmp_path, compilation_cache):
    """A record that only the second process reads is damaged, on its own disk."""
    damaged = tmp_path / "records"
    shutil.copytree(squares.records, damaged)
    for shard in damaged.rglob("*train*tfrecord*"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
        shard.write_bytes(content)
    processes = pods.start(
        CHEAP,
        flags(squares, tmp_path / "run", train__steps=FOREVER),
        cache=compilation_cache,
        each=lambda index: [f"--config.data.records={damaged}"] if index == 1 else [],
    )
    writer, other = pods.ended(processes)
    assert [writer.status, other.status] == [1, 1]
    told = [line for line in other.errors.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert str(damaged) in told[0]
    assert f"error: process 1 ended: {told[0].removeprefix('error: ')}" in writer.errors
    assert "Traceback" not in writer.errors + other.errors


@pytest.mark.slow
def test_other_configurations_are_an_error(squares, tmp_path, compilation_cache):
    processes = pods.start(
        CHEAP,
        flags(squares, tmp_path / "run"),
        cache=compilation_cache,
        each=lambda index: [f"--config.train.batch_size={4 * (index + 1)}"],
    )
    ended = pods.ended(processes)
    assert [one.status for one in ended] == [1, 1]
    for one in ended:
        assert "process 1 has another configuration (train.batch_size is 8 there" in one.errors
    assert not (tmp_path / "run").exists()


# --- starting -------------------------------------------------------------------------------------

LONELY = """
import sys
from step_jax import hosts
from step_jax.cli import run_command

run_command(lambda: hosts.initialise(
    coordinator=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]), start_seconds=2))
"""


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_in_vain_says_so(index):
    address = f"localhost:{pods.free_port()}"
    status, _, errors = pods.run_python(LONELY, address, index)
    assert status == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("error")]
    assert line.startswith(
        f"error: --multihost: process {index} waited 2 s at {address} for the others"
    )


def test_no_cluster_is_an_error(tmp_path):
    script = "from step_jax import hosts, cli; cli.run_command(hosts.initialise)"
    status, _, errors = pods.run_python(script)
    assert status == 1
    assert errors.startswith("error: --multihost: no cluster is known here")
    assert "give --coordinator HOST:PORT --num_processes N --process_id I" in errors
    assert len(errors.splitlines()) == 1
