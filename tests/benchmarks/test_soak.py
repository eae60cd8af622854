"""`benchmarks.soak`: what it fits, checks and kills, on programs made up; and once on the real."""

import json
import os
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tiny_run

from benchmarks.soak import checks, drawing, growth
from benchmarks.soak.lives import Life, resident_mib
from benchmarks.soak.schedule import TRAIN, WATCH, end_number
from benchmarks.soak.soak import Soak
from step_jax.errors import InputError

# --- growth ---------------------------------------------------------------------------------------


def samples(start, level, slope, count=40, noise=0.0):
    random = np.random.default_rng(int(start))
    seconds = start + np.arange(count) * 3.0
    return [(second, level + slope * (second - start) / 60 + noise * random.normal())
            for second in seconds]  # fmt: skip


def test_lives_of_different_levels_have_one_slope():
    lives = [samples(0, 900, 4), samples(500, 1400, 4, count=20), samples(800, 700, 4)]
    found = growth.common_growth(lives)
    assert found.slope == pytest.approx(4)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.levels == pytest.approx([900 + 4 * 0.975, 1400 + 4 * 0.475, 700 + 4 * 0.975])


@pytest.mark.parametrize("lives", [1, 30])
def test_the_error_is_how_far_slopes_scatter(lives):
    found = [
        growth.common_growth(
            [samples(100 * start + life, 900, 2, noise=5) for life in range(lives)]
        )
        for start in range(200)
    ]
    scatter = np.std([one.slope for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(scatter, rel=0.2)
    assert np.mean([one.slope for one in found]) == pytest.approx(2, abs=4 * scatter / 200**0.5)


def test_lives_that_go_apart_have_a_large_error():
    """However many samples there are of each."""
    lives = [samples(start, 900, 2 + apart, count=400)
             for start, apart in enumerate((-20, 20, -20, 20))]  # fmt: skip
    assert growth.common_growth(lives).error == pytest.approx(20 / 3**0.5)


def test_the_start_of_a_life_does_not_count():
    waiting = [(second, 250.0) for second in range(60)]
    ramp = [(60 + second, 250 + 40.0 * second) for second in range(20)]
    flat = [(80 + second, 1050.0) for second in range(40)]
    assert growth.common_growth([growth.settled(waiting + ramp + flat)]).slope < 40
    found = growth.common_growth([growth.settled(waiting + ramp[:15] + flat)])
    assert found.slope == pytest.approx(0, abs=1e-9)


def test_few_samples_say_nothing():
    assert growth.common_growth([samples(0, 1, 1, count=5), []]) is None
    assert growth.settled([]) == []
    check = checks.check_growth("train", None, limit=2)
    assert not check.passed


def test_the_limit_of_growth():
    found = growth.common_growth([samples(0, 900, 3)])
    assert checks.check_growth("train", found, limit=3.1).passed
    check = checks.check_growth("train", found, limit=2.9)
    assert str(check).startswith("FAIL  memory of train flat, at most 2.9 MiB a minute: +3.00 ± ")


# --- checks ---------------------------------------------------------------------------------------


def write_log(workdir, steps):
    workdir.mkdir(exist_ok=True)
    lines = [json.dumps({"step": step, "loss": step / 7}) for step in steps]
    (workdir / "train_log.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("steps", "told"),
    [([1, 2, 3, 4], ""), ([1, 2, 4], "missing or surplus 3"), ([1, 2, 3, 3, 4], "twice 3"),
     ([1, 2, 3, 4, 5], "surplus 5"), ([2, 1, 3, 4], "")],
)  # fmt: skip
def test_the_log(tmp_path, steps, told):
    write_log(tmp_path, steps)
    check = checks.check_log(tmp_path, 4)
    assert check.passed == (steps == [1, 2, 3, 4])
    assert told in check.found


def test_the_evaluations(tmp_path):
    paths = {}
    for step in (10, 20):
        paths[step] = tmp_path / f"eval/test/{step}/metrics.json"
        paths[step].parent.mkdir(parents=True)
        paths[step].write_text("{}")
    once = {path: {(1, 1)} for path in paths.values()}
    assert checks.check_evaluations(tmp_path, [10, 20], once).passed
    for kept, seen, told in (
        ([10, 30], once, "not evaluated 30"),
        ([20], once | {paths[10]: {(1, 1), (2, 5)}}, "written again 10"),
        ([20], once | {tmp_path / "eval/test/5/metrics.json": {(1, 1)}}, "gone 5"),
    ):
        check = checks.check_evaluations(tmp_path, kept, seen)
        assert not check.passed
        assert told in check.found


def test_how_programs_ended():
    killed, gentle = Life(0, 5, "SIGKILL", -9), Life(5, 9, "SIGTERM", 0)
    done = Life(9, 12, "", 0)
    assert checks.check_ends({TRAIN: [killed, gentle, done], WATCH: [killed, done]}).passed
    assert checks.check_ends({WATCH: [Life(5, 9, "SIGTERM", -15), done]}).passed
    for wrong in (
        {TRAIN: [Life(5, 9, "SIGTERM", -9), done]},  # did not save and end in time
        {TRAIN: [Life(0, 3, "", 1), done]},
        {TRAIN: [done, killed]},  # ended before its work was done
    ):
        assert not checks.check_ends(wrong).passed


def test_arrays_and_losses_are_compared_bit_for_bit(tmp_path, monkeypatch):
    ours = {"a": np.array([0.0, 1.0], np.float32), "b": np.arange(3)}
    for theirs, same in (
        ({"a": np.array([0.0, 1.0], np.float32), "b": np.arange(3)}, True),
        ({"a": np.array([-0.0, 1.0], np.float32), "b": np.arange(3)}, False),
        ({"a": ours["a"]}, False),
        ({"a": np.array([0.0, 1.0]), "b": np.arange(3)}, False),
    ):
        both = {"one": ours, "other": theirs}
        monkeypatch.setattr(checks, "read_arrays", lambda run, step, both=both: both[run.name])
        found = checks.check_same_arrays(tmp_path / "one", tmp_path / "other", 7)
        assert found.passed == same, found
    write_log(tmp_path / "one", [1, 2, 3])
    write_log(tmp_path / "other", [1, 2, 3])
    assert checks.check_same_losses(tmp_path / "one", tmp_path / "other").passed
    write_log(tmp_path / "other", [1, 2])
    assert not checks.check_same_losses(tmp_path / "one", tmp_path / "other").passed


# --- killing --------------------------------------------------------------------------------------


def test_who_is_ended_when():
    ends = [end_number(number) for number in range(1, 11)]
    assert [end.program for end in ends] == [TRAIN, WATCH] * 5
    assert [index for index, end in enumerate(ends, 1) if end.signal == "SIGTERM"] == [5, 10]


# Goes on where its log ends, a step in 20 ms; a checkpoint every tenth. SIGTERM ends it well.
TRAINING = """
import json, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
run, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
run.mkdir(exist_ok=True)
log = run / "train_log.jsonl"
lines = log.read_text().splitlines() if log.exists() else []
for step in range(len(lines) + 1, steps + 1):
    time.sleep(0.02)
    with log.open("a") as file:
        file.write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    if step % 10 == 0:
        (run / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
(run / "finished.json").write_text(json.dumps({"step": steps}))
"""
WATCHER = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[1])
while True:
    finished = (run / "finished.json").exists()
    for path in sorted(run.glob("checkpoints/*")):
        metrics = run / "eval" / "test" / path.name / "metrics.json"
        if not metrics.exists():
            metrics.parent.mkdir(parents=True, exist_ok=True)
            metrics.write_text("{}")
    if finished:
        break
    time.sleep(0.02)
"""


def make_soak(folder, *, steps=120, watcher=WATCHER, **options):
    workdir = folder / "run"
    commands = {
        TRAIN: [sys.executable, "-S", "-c", TRAINING, str(workdir), str(steps)],
        WATCH: [sys.executable, "-S", "-c", watcher, str(workdir)],
    }
    settings = {"end_every": 0.4, "sample_every": 0.02, "at_most": 60.0} | options
    return Soak(
        commands, workdir=workdir, logs=folder, environment={}, steps=steps, **settings
    ), workdir


def test_programs_are_ended_and_started_until_their_work_is_done(tmp_path):
    soak, workdir = make_soak(tmp_path)
    soak.run()
    lives = {name: program.lives for name, program in soak.programs.items()}
    assert sum(map(len, lives.values())) > 4
    assert {life.signal for own in lives.values() for life in own} >= {"SIGKILL", ""}
    kept = [int(path.name) for path in workdir.glob("checkpoints/*")]
    for check in (
        checks.check_finished(workdir, 120),
        checks.check_log(workdir, 120),
        checks.check_evaluations(workdir, kept, soak.versions),
        checks.check_ends(lives),
    ):
        assert check.passed, check
    assert any(life.samples for life in lives[TRAIN])
    drawing.draw(lives, tmp_path / "soak.png", title="tiny")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("watcher", "options", "told"),
    [("import sys; sys.exit(3)", {}, "watch failed 3 times"),
     ("import time; time.sleep(60)", {"at_most": 0.5}, "not done after")],
)  # fmt: skip
def test_no_program_outlives_a_soak_that_fails(tmp_path, watcher, options, told):
    soak, _ = make_soak(tmp_path, steps=3000, watcher=watcher, **options)
    with pytest.raises(InputError, match=told):
        soak.run()
    assert all(life.stop is not None for p in soak.programs.values() for life in p.lives)
    assert not any(program.is_alive for program in soak.programs.values())


def test_memory_of_a_process():
    assert 1 < resident_mib(os.getpid()) < 1e5
    assert resident_mib(2**22 + 1) is None


# --- the real programs ----------------------------------------------------------------------------


def command(folder, squares, *more):
    own = ("--config=", "--workdir=", "--config.train.")
    flags = [flag for flag in tiny_run.flags(squares, workdir="x") if not flag.startswith(own)]
    flags.append("--config.train.batch_size=4")
    return [sys.executable, "-m", "benchmarks.soak", "--output", folder, *flags, *more]


@pytest.mark.slow
def test_the_command_of_a_soak(tmp_path, squares, compilation_cache):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    done = subprocess.run(
        list(map(str, command(tmp_path / "soak", squares, "--steps", 1000, "--minutes", 5,
                              "--kill_every", 10, "--sample_every", 0.2, "--limit", 1e9,
                              "--straight"))),
        cwd=tiny_run.ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert all(check["passed"] for check in told["checks"])
    assert len(told["checks"]) == 9
    assert len(told["lives"]["undisturbed"]) == 1
    assert (tmp_path / "soak" / "soak.png").exists()


@pytest.mark.slow
def test_an_interrupted_command_leaves_nobody_behind(tmp_path, squares):
    arguments = list(map(str, command(tmp_path / "soak", squares, "--steps", 10000)))
    process = subprocess.Popen(
        arguments, cwd=tiny_run.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not children(process.pid):
        time.sleep(0.1)
    own = children(process.pid)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert not any(resident_mib(child) for child in own)


def children(pid):
    """Processes that a process has started."""
    found = filter(None, map(_status, filter(str.isdigit, os.listdir("/proc"))))
    return [status.pid for status in found if status.parent == pid]


def _status(name):
    try:
        with open(f"/proc/{name}/stat") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None
    return types.SimpleNamespace(pid=int(name), parent=parent)
