"""Training killed twenty times, at random and in the middle of what it writes, loses nothing."""

import collections
import json
import os
import random
import signal
import time

import pytest
import tiny_run

from step_jax import evaluations
from step_jax.detections import read_detections
from step_jax.training_log import read_log

STEPS = 96
CHANGES = {
    "train__steps": STEPS,
    "train__checkpoint_every_steps": 2,
    "train__eval_every_steps": 8,
}
EVALUATED = list(range(8, STEPS + 1, 8))
KILLS = 8 * ["any moment"] + 6 * ["checkpoint"] + 6 * ["evaluation"]
MOST_CHANGES = 30  # on disk, by the part that is to be hit, before the kill


def is_half_written(workdir):
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def is_half_evaluated(workdir):
    folders = [path for path in (workdir / "eval").glob("*/*") if path.name.isdigit()]
    return any(
        not (folder / "metrics.json").exists() or (folder / "shards").exists() for folder in folders
    )


@pytest.mark.slow
def test_twenty_kills(squares, compilation_cache, tmp_path):
    straight, workdir = tmp_path / "straight", tmp_path / "killed"
    run(squares, straight, compilation_cache)
    start_s = read_log(straight)[0]["elapsed_seconds"]

    draws, hit = random.Random(0), collections.Counter()
    for kind in draws.sample(KILLS, len(KILLS)):
        flags = tiny_run.flags(squares, workdir=workdir, **CHANGES)
        if kind == "any moment":
            process = tiny_run.start("train.py", *flags, cache=compilation_cache)
            time.sleep(draws.uniform(0, 2 * start_s))
            process.kill()
        else:
            count = draws.randint(1, MOST_CHANGES)
            process = tiny_run.start(
                "tests/killed_training.py", kind, count, *flags, cache=compilation_cache
            )
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"{kind}: ended before: {hit} {errors}"
        hit[kind] += 1
        hit["half a checkpoint"] += is_half_written(workdir)
        hit["half an evaluation"] += is_half_evaluated(workdir)
        hit[f"with {len(read_log(workdir))} steps"] += 1
    print(dict(hit))
    assert hit["half a checkpoint"] >= 6, hit
    assert hit["half an evaluation"] >= 6, hit

    run(squares, workdir, compilation_cache)
    tiny_run.assert_same_checkpoint(straight, workdir, STEPS)
    assert [line["step"] for line in read_log(workdir)] == list(range(1, STEPS + 1))
    assert same_log(workdir) == same_log(straight)
    assert_same_evaluations(workdir, straight)
    names = os.listdir(workdir / "checkpoints")
    assert all(name.isdigit() for name in names), names


def run(squares, workdir, cache):
    flags = tiny_run.flags(squares, workdir=workdir, **CHANGES)
    process = tiny_run.start("train.py", *flags, cache=cache)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def same_log(workdir):
    """What of the log does not tell of time and memory."""
    names = ("loss", "gradient_norm", "classification_1", "localization_2", "learning_rate")
    return [[line[name] for name in names] for line in read_log(workdir)]


def assert_same_evaluations(workdir, straight):
    found, expected = map(evaluations.read_metrics, (workdir, straight))
    assert sorted(step for _, step in found) == EVALUATED
    for which, metrics in expected.items():
        assert json.dumps(without_times(found[which])) == json.dumps(without_times(metrics))
        tables = [
            read_detections(
                evaluations.folder(run, split=which[0], step=which[1]) / "detections.parquet"
            )
            for run in (workdir, straight)
        ]
        assert tables[0].score.tobytes() == tables[1].score.tobytes()
        assert tables[0].boxes.tobytes() == tables[1].boxes.tobytes()


def without_times(metrics):
    return {name: value for name, value in metrics.items() if name not in ("seconds", "shares")}
