"""Runs whose folder is in an object store: what they leave is what runs on a disk leave."""

import argparse
import json
import signal

import jax.numpy as jnp
import numpy as np
import pytest
import test_failures
import tiny_run
from object_store import KilledError, ObjectStore, contents, dies_at, fails, names
from square_predictors import FollowingPredictor, tubes_config
from test_train import acts_at_steps, cheap, cheap_run, make_cheap, send  # noqa: F401
from test_training_log import metrics

import detect
import evaluate
import train
from programs import evaluation_config
from step_jax import evaluations, failures, profiling, run_folder, storage
from step_jax.errors import InputError
from step_jax.evaluation_shards import Shards, Share
from step_jax.training_log import TrainingLog, read_log


@pytest.fixture
def run(bucket):
    return storage.as_path(f"{bucket}/run")


def downloaded(url, folder):
    """All of a run's folder, on the disk."""
    for name in names(url):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents(f"{url}/{name}"))
    return folder


# --- training -------------------------------------------------------------------------------------


def test_a_stopped_and_continued_run_is_that_of_a_disk(
    squares, cheap, cheap_run, run, tmp_path, monkeypatch, capfd  # noqa: F811
):  # fmt: skip
    config = tiny_run.config(squares, train__summary=True)
    with monkeypatch.context() as patch:
        acts_at_steps(patch)[5] = send(signal.SIGTERM)
        assert train.train(config, run) == 0
    assert "saved checkpoint 5; the same command continues" in capfd.readouterr().out
    assert run_folder.finished_step(run) is None
    assert train.train(config, run) == 0
    told = capfd.readouterr().out
    assert "continuing from checkpoint 5" in told
    assert f"summary: {run}/summary.png" in told
    assert contents(f"{run}/summary.png").startswith(b"\x89PNG")
    assert run_folder.finished_step(run) == tiny_run.STEPS
    assert [line["step"] for line in read_log(run)] == list(range(1, tiny_run.STEPS + 1))
    assert [line["loss"] for line in read_log(run)] == [
        line["loss"] for line in read_log(cheap_run)
    ]
    tiny_run.assert_same_checkpoint(cheap_run, downloaded(run, tmp_path / "run"), tiny_run.STEPS)
    expected = {path.relative_to(cheap_run).parts[0] for path in cheap_run.rglob("*")}
    assert {name.partition("/")[0] for name in names(run)} == expected | {"summary.png"}
    events = [name for name in names(run) if name.startswith("tensorboard/events.out.tfevents.")]
    assert events


@pytest.mark.parametrize("count", [2, 6, 9, 30, 45, 60])
def test_a_killed_run_continues_bit_identically(
    squares, cheap, cheap_run, run, tmp_path, count  # noqa: F811
):  # fmt: skip
    config = tiny_run.config(squares)
    ObjectStore.act = dies_at(count)
    with pytest.raises(KilledError):
        train.train(config, run)
    ObjectStore.act = staticmethod(lambda kind, path: None)
    assert train.train(config, run) == 0
    tiny_run.assert_same_checkpoint(cheap_run, downloaded(run, tmp_path / "run"), tiny_run.STEPS)
    assert [line["step"] for line in read_log(run)] == list(range(1, tiny_run.STEPS + 1))


def test_another_configuration_is_refused(squares, cheap, run):  # noqa: F811
    assert train.train(tiny_run.config(squares, train__steps=3), run) == 0
    with pytest.raises(InputError, match=r"gs://bucket/run: holds a run with another"):
        train.train(tiny_run.config(squares, train__steps=3, seed=7), run)


def test_parameters_of_a_run_in_a_store(squares, cheap, run, tmp_path, monkeypatch):  # noqa: F811
    assert train.train(tiny_run.config(squares, train__steps=3), run) == 0
    opened = []

    def restore(checkpoints, step):
        opened.append((str(checkpoints.workdir), step))
        raise KilledError

    monkeypatch.setattr(train.inference, "restore_predictor", restore)
    config = tiny_run.config(squares, train__init_from=str(run))
    with pytest.raises(KilledError):
        train.train(config, tmp_path)
    assert opened == [(str(run), 3)]


# --- the log --------------------------------------------------------------------------------------


def open_log(run, *, start_step=0):
    return TrainingLog(
        run,
        start_step=start_step,
        total_steps=10,
        batch_size=4,
        every=1,
        learning_rate=lambda step: 0.1,
    )


def test_the_log_is_put_before_a_checkpoint_and_continued(run):
    log = open_log(run)
    for step in range(1, 6):
        log.add(metrics(step))
        log.flush()
        if step == 3:
            log.put()
    assert [line["step"] for line in read_log(run)] == [1, 2, 3]  # a kill loses the rest
    log = open_log(run, start_step=3)
    for step in range(4, 7):
        log.add(metrics(step))
    log.close()
    again = open_log(run, start_step=2)
    again.close()
    assert [line["step"] for line in read_log(run)] == [1, 2]


def test_each_start_has_events_of_its_own(run, monkeypatch):
    for start, now in ((0, 1e9), (1, 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with open_log(run, start_step=start) as log:
            log.add(metrics(2.0))
    files = names(run / "tensorboard")
    assert len(files) == 2
    assert all(b"train/loss" in contents(run / "tensorboard" / name) for name in files)


def test_a_log_that_cannot_be_put_ends_the_run_with_one_line(run):
    log = open_log(run)
    log.add(metrics(1.0))
    log.flush()
    ObjectStore.act = fails("put")
    with pytest.raises(InputError, match=r"run/train_log.jsonl: cannot be written \(Forbidden by"):
        log.put()
    with pytest.raises(InputError):
        log.close()


# --- failures and profiles ------------------------------------------------------------------------


def test_a_failed_step_comes_back_as_it_was(run):
    recorder = failures.FailureRecorder(run, key=test_failures.KEY, classes=24)
    recorder.remember(5, test_failures.make_batch(), test_failures.make_state())
    with pytest.raises(failures.NonFiniteLossError) as error, recorder:
        raise test_failures.ERROR
    path = f"{run}/failures/step_00000005.npz"
    assert f"Its batch is in {path} (0.0 MB" in str(error.value)
    failure = failures.load(path)
    assert failure.step == 5
    np.testing.assert_array_equal(failure.state["params/heads_0/bias"], jnp.ones(2, jnp.bfloat16))
    with pytest.raises(InputError, match=r"step_00000006.npz: cannot be read"):
        failures.load(f"{run}/failures/step_00000006.npz")


def test_a_trace_is_uploaded(run, capsys):
    profile = profiling.Profile(range(1, 2), run / "profile", wait=lambda: None)
    with profile, profile.step(1):
        jnp.ones(3).sum().block_until_ready()
    told = capsys.readouterr().out
    assert told.startswith(f"profile: {run}/profile/plugins/profile/")
    assert any(name.endswith("perfetto_trace.json.gz") for name in names(run / "profile"))


# --- evaluation -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(squares):
    return tubes_config(squares)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The evaluation by one job, on a disk."""
    workdir = tmp_path_factory.mktemp("whole")
    evaluate.evaluate_checkpoint(config, workdir, FollowingPredictor())
    return results(workdir)


def results(workdir):
    """The bytes of all files, metrics without times."""
    folder = evaluations.folder(workdir, split="test", step=1)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    metrics = json.loads(found.pop("metrics.json"))
    metrics.pop("seconds")
    return found, metrics


def work(config, workdir, number, count):
    evaluate.evaluate_as_job(config, workdir, FollowingPredictor(), Share(number, count))


def test_an_evaluation_is_that_of_a_disk(config, whole, run):
    evaluate.evaluate_checkpoint(config, run, FollowingPredictor())
    assert results(run) == whole
    assert evaluations.best_step(run, among=[1]) == 1


def test_shares_are_the_whole(config, whole, run):
    for number in (2, 3, 1):
        assert not storage.stamp(run / "eval" / "test" / "1" / "metrics.json")
        work(config, run, number, 3)
    assert results(run) == whole


def test_killed_at_any_change_of_the_evaluation(config, whole, run):
    """Shares, the merging, what removes them: the job that comes next does the rest."""

    def work_both(first, second):
        work(config, run, first, 2)
        work(config, run, second, 2)

    made = []
    ObjectStore.act = staticmethod(lambda kind, path: made.append(path) if kind != "get" else None)
    work_both(1, 2)
    for count in (*range(1, len(made), 3), len(made)):
        ObjectStore.store.clear()
        ObjectStore.act = dies_at(count)
        with pytest.raises(KilledError):
            work_both(1, 2)
        ObjectStore.act = staticmethod(lambda kind, path: None)
        work_both(2, 1)
        assert results(run) == whole, count


def test_two_that_finish_at_the_same_moment(config, whole, run, monkeypatch):
    """There are no locks: both find all shares complete, and come to the same result."""
    missing, meanwhile = Shards.missing, []

    def missing_while_another_merges(self):
        found = missing(self)
        if not meanwhile:
            meanwhile.append(1)
            work(config, run, 1, 2)
            assert results(run) == whole
        return found

    monkeypatch.setattr(Shards, "missing", lambda self: [0])
    work(config, run, 1, 2)
    monkeypatch.setattr(Shards, "missing", missing_while_another_merges)
    work(config, run, 2, 2)
    assert meanwhile
    assert results(run) == whole


def test_another_evaluation_is_refused(config, run):
    work(config, run, 1, 2)
    with pytest.raises(InputError, match=r"gs://bucket/run/.*shards: holds shares of 2, this is"):
        work(config, run, 1, 3)


# --- where only a disk will do --------------------------------------------------------------------


def test_a_table_is_read_from_a_disk(squares, run, run_program):
    flags = tiny_run.flags(squares, workdir=run)
    status, _, errors = run_program("evaluate", *flags, f"--detections={run}/table.parquet")
    assert status == 1
    assert errors[-1].startswith(f"error: --detections {run}/table.parquet: is read from a disk")


def test_records_and_annotations_are_read_from_a_disk(squares, run, run_program):
    flags = tiny_run.flags(squares, workdir=run)
    status, _, errors = run_program("train", *flags, f"--config.data.records={run}/records")
    assert status == 1
    assert errors[-1].startswith(f"error: data.records {run}/records: is read from a disk")
    config = tiny_run.config(squares, data__annotations=f"{run}/annotations.json")
    with pytest.raises(InputError, match=r"data.annotations gs://.*: is read from a disk"):
        evaluation_config.read_annotations(config)


def test_what_is_detected_is_written_to_a_disk(run, tmp_path):
    arguments = argparse.Namespace(workdir=str(run), output=None, video=tmp_path / "a.avi")
    with pytest.raises(InputError, match="--output is missing: results are written to a disk"):
        detect._output_folder(arguments)
    arguments.output = tmp_path
    assert detect._output_folder(arguments) == tmp_path
