"""Following a training: each checkpoint once, whatever ends, fails or vanishes meanwhile."""

import json
import os
import random
import shutil
import signal
import time

import jax.numpy as jnp
import optax
import pytest
import tiny_run

from step_jax import evaluations, run_folder, watching
from step_jax.checkpoint import Checkpoints, DamagedCheckpointError
from step_jax.errors import InputError
from step_jax.train_state import create_train_state
from step_jax.watching import Watch, wait_for_training


class Training:
    """Another process's training, which goes on while the watch sleeps."""

    def __init__(self, workdir, *, keep=2):
        self.workdir, self.keep, self.checkpoints = workdir, keep, None
        self.acts = []

    def save(self, *steps):
        self.checkpoints = self.checkpoints or Checkpoints(self.workdir, keep=self.keep)
        state = create_train_state({"params": {"bias": jnp.zeros(2)}}, optax.sgd(0.1))
        for step in steps:
            self.checkpoints.save(state.replace(step=jnp.int32(step)), {})
            self.checkpoints.wait()

    def damage(self, step):
        """What is in the checkpoint then."""
        damaged = self.workdir / "checkpoints" / str(step) / "damaged"
        damaged.touch()

    def start_again(self, *, from_step):
        """From a checkpoint before the last; those after it are set aside."""
        for path in (self.workdir / "checkpoints").glob("[0-9]*"):
            if int(path.name) > from_step:
                shutil.rmtree(path)
        self.checkpoints.close()
        self.checkpoints = None

    def end(self, step):
        run_folder.mark_finished(self.workdir, step=step)

    def sleep(self, seconds):
        assert seconds == 0.5
        self.acts.pop(0)()  # IndexError: it watches on after the end


@pytest.fixture
def training(tmp_path, monkeypatch):
    training = Training(tmp_path)
    told = {"train": {"checkpoint_every_steps": 1}, "data": {"eval_split": "test"}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    monkeypatch.setattr(watching.time, "sleep", training.sleep)
    monkeypatch.setattr(watching, "restore_predictor", restore(training))
    yield training
    if training.checkpoints:
        training.checkpoints.close()


def restore(training):
    """In place of `restore_predictor`: the step alone."""

    def restore_predictor(checkpoints, step):
        folder = training.workdir / "checkpoints" / str(step)
        if not folder.exists() or (folder / "damaged").exists():
            raise DamagedCheckpointError(f"checkpoint {step} is damaged (no such file)")
        return step

    return restore_predictor


class Evaluations:
    """What a watch has evaluated; `act(step)` is done in the middle of it."""

    def __init__(self, workdir, act=lambda step: None):
        self.steps, self.workdir, self.act = [], workdir, act

    def evaluate(self, step):
        self.act(step)
        self.steps.append(step)
        folder = evaluations.folder(self.workdir, split="test", step=step)
        evaluations.write_metrics(folder, {"score": 1.0})

    def is_done(self, step):
        return (self.workdir / "eval" / "test" / str(step) / "metrics.json").exists()


def watch(training, act=lambda step: None, **options):
    """The steps that a watch evaluates until it ends."""
    found = Evaluations(training.workdir, act)
    Watch(
        training.workdir,
        evaluate=found.evaluate,
        is_done=found.is_done,
        poll_seconds=0.5,
        **options,
    ).run()
    assert not training.acts
    return found.steps


def test_each_checkpoint_once_in_order(training, capsys):
    training.save(1)
    training.acts = [
        lambda: None,
        lambda: training.save(2, 3),
        lambda: None,
        lambda: (training.save(4), training.end(4)),
    ]
    assert watch(training) == [1, 2, 3, 4]
    assert capsys.readouterr().out.splitlines() == [
        "waiting for a checkpoint after 1",
        "waiting for a checkpoint after 3",
        "training ended at step 4",
    ]


def test_continues_where_it_was_interrupted(training):
    training.save(1, 2)

    def interrupted(step):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(training, interrupted)
    training.end(2)
    assert watch(training) == [2]
    assert watch(training) == []  # all is done, training has ended: nothing happens


def test_does_not_miss_the_last_one(training, monkeypatch):
    """Training ends between the look for checkpoints and the look whether it has ended."""
    training.save(1)
    steps = Checkpoints.steps

    def and_then_it_ends(self):
        found = steps(self)
        if found == [1]:
            training.save(2)
            training.end(2)
        return found

    monkeypatch.setattr(Checkpoints, "steps", and_then_it_ends)
    training.acts = [lambda: None]
    assert watch(training) == [1, 2]


def test_says_once_what_was_deleted_before_its_turn(training, capsys):
    """1 is seen and deleted while it is read, 3 to 5 were never seen; 6 and 7 are there."""
    training.save(1, 2)

    def slow(step):
        if step == 2:
            training.save(3, 4, 5, 6, 7)

    def deleted(checkpoints, step):
        if step == 1:
            shutil.rmtree(training.workdir / "checkpoints" / "1")
        return restore(training)(checkpoints, step)

    watching.restore_predictor = deleted  # the fixture puts it back
    training.acts = [lambda: None, lambda: training.end(7)]
    assert watch(training, slow) == [2, 6, 7]
    told = [line for line in capsys.readouterr().out.splitlines() if "not evaluated" in line]
    rest = "not there any more, and not evaluated; training keeps the best and the last few"
    assert told == [
        f"checkpoint 1: {rest} (train.keep_checkpoints)",
        f"checkpoint 3, 4, 5: {rest} (train.keep_checkpoints)",
    ]


def test_reports_a_damaged_checkpoint_once_and_goes_on(training, capsys):
    training.save(1, 2)
    training.damage(1)
    training.acts = [lambda: None, lambda: training.save(3), lambda: training.end(3)]
    training.keep = 9
    with pytest.raises(InputError, match=r"checkpoint 1: damaged, not evaluated$"):
        watch(training)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "error: checkpoint 1 is damaged (no such file): it is not evaluated"
    ]
    assert "training ended at step 3" in printed.out


def test_training_that_starts_again_before_the_last_checkpoint(training):
    """It writes again what was damaged, and what is evaluated already, which stays."""
    training.save(1, 2)
    training.keep = 9
    training.damage(2)
    training.acts = [
        lambda: training.start_again(from_step=0),
        lambda: training.save(1, 2, 3),
        lambda: training.end(3),
    ]
    assert watch(training) == [1, 2, 3]


def test_what_is_no_damage_ends_it(training, monkeypatch):
    training.save(1)

    def version(checkpoints, step):
        raise InputError("checkpoint 1: format version 7, this code reads 1")

    monkeypatch.setattr(watching, "restore_predictor", version)
    with pytest.raises(InputError, match="format version 7"):
        watch(training)


def test_a_stop_is_looked_at_between_checkpoints(training):
    training.save(1, 2)
    stopping = []
    steps = watch(training, stopping.append, is_stopped=lambda: bool(stopping))
    assert steps == [1]


def test_idle_work_comes_after_the_checkpoints_and_before_the_end(training):
    training.save(1)
    training.acts = [lambda: (training.save(2), training.end(2))]
    order = []
    watch(training, order.append, when_idle=lambda: order.append("idle"))
    assert order == [1, "idle", 2, "idle"]


def test_changes_nothing_of_what_training_writes(training):
    training.save(1, 2)
    training.end(2)
    before = snapshot(training.workdir)
    watch(training)
    assert snapshot(training.workdir) == before


def snapshot(workdir):
    """Every file and folder of a run but for evaluations."""
    return {
        (path, path.stat().st_mtime_ns)
        for path in workdir.rglob("*")
        if (workdir / "eval") not in (path, *path.parents)
    }


def test_may_be_started_before_the_training(training, capsys):
    training.acts = [lambda: None, lambda: training.save(1)]
    wait_for_training(training.workdir, poll_seconds=0.5)
    assert capsys.readouterr().out == f"waiting for {training.workdir / 'checkpoints'}\n"


# --- programs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_beside_a_training(squares, compilation_cache, tmp_path):
    """Two processes; few checkpoints are kept, so some may be gone before their turn."""
    workdir = tmp_path / "run"
    flags = tiny_run.flags(squares, workdir=workdir, train__steps=40)
    watcher = tiny_run.start(
        "evaluate.py", *flags, "--watch", "--poll_seconds=0.2", cache=compilation_cache
    )
    trainer = tiny_run.start("train.py", *flags, cache=compilation_cache)
    assert trainer.wait() == 0, trainer.stderr.read()
    output, errors = watcher.communicate()
    assert watcher.returncode == 0, errors
    evaluated = {step for _, step in evaluations.read_metrics(workdir)}
    assert 40 in evaluated
    assert evaluated <= {*range(3, 40, 3), 40}
    for step in evaluated:
        assert output.count(f"checkpoint {step}: 8 windows") == 1
    assert len(os.listdir(workdir / "checkpoints")) in (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_and_nothing_is_lost(
    squares, compilation_cache, finished_run, tmp_path, number, status
):
    """While it waits for a training that was interrupted."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    (workdir / "finished.json").unlink()
    watch = ("evaluate.py", f"--workdir={workdir}", "--watch")
    watcher = tiny_run.start(*watch, cache=compilation_cache)
    for line in watcher.stdout:
        if line.startswith("waiting for a checkpoint after 12"):
            break
    watcher.send_signal(number)
    _, errors = watcher.communicate()
    assert watcher.returncode == status, errors
    assert errors.splitlines()[-1] == {0: "SIGTERM: ending", 130: "interrupted"}[status]
    assert sorted(evaluations.read_metrics(workdir)) == [("test", 9), ("test", 12)]
    run_folder.mark_finished(workdir, step=12)
    again = tiny_run.start(*watch, cache=compilation_cache)
    output, errors = again.communicate()
    assert (again.returncode, "windows" in output) == (0, False), errors


@pytest.mark.slow
def test_two_jobs_and_a_training_that_are_killed_again_and_again(
    squares, compilation_cache, tmp_path
):
    """By SIGKILL, at any moment: each checkpoint is evaluated, as one job evaluates it."""
    workdir, chance = tmp_path / "run", random.Random(5)
    flags = tiny_run.flags(squares, workdir=workdir, train__keep_checkpoints=9)
    commands = [
        ("train.py", *flags),
        *(
            ("evaluate.py", *flags, "--watch", "--poll_seconds=0.2", f"--shard={share}")
            for share in ("1/2", "2/2")
        ),
    ]
    running = [tiny_run.start(*command, cache=compilation_cache) for command in commands]
    statuses, kills, deadline = [None] * 3, 0, time.monotonic() + 1800
    while None in statuses:
        assert time.monotonic() < deadline
        time.sleep(chance.uniform(0.5, 6))
        statuses = [process.poll() for process in running]
        alive = [i for i, status in enumerate(statuses) if status is None]
        if alive and kills < 24:
            victim = chance.choice(alive)
            running[victim].kill()
            running[victim].communicate()
            kills += 1
            running[victim] = tiny_run.start(*commands[victim], cache=compilation_cache)
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    found = evaluations.read_metrics(workdir)
    assert sorted(found) == [("test", step) for step in (3, 6, 9, 12)]
    assert not list(workdir.glob("eval/test/*/shards"))
    whole = tmp_path / "whole"
    shutil.copytree(workdir, whole, ignore=shutil.ignore_patterns("eval"))
    one = tiny_run.start("evaluate.py", f"--workdir={whole}", "--watch", cache=compilation_cache)
    _, errors = one.communicate()
    assert one.returncode == 0, errors
    expected = evaluations.read_metrics(whole)
    for metrics in (*found.values(), *expected.values()):
        del metrics["seconds"]
    assert found == expected
    for step in (3, 6, 9, 12):
        tables = [folder / f"eval/test/{step}/detections.parquet" for folder in (workdir, whole)]
        assert tables[0].read_bytes() == tables[1].read_bytes()
