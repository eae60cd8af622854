"""What is read of a run's folder, and the facts in words."""

import json

import numpy as np
import pytest

from configs import ava, moving_actors
from step_jax import evaluations, run_folder
from step_jax.training_summary import config_file, facts, read_summary

COMMAND = "train.py --config=configs/moving_actors.py --workdir='a b'"


def start(command=COMMAND, seconds=12.0):
    return {"seconds": seconds, "devices": 4, "device": "cpu", "command": command}


def log():
    return [
        {"step": 1, "loss": 8.0, "startup": start(), "clips_per_second": 1.0},
        {"step": 2, "loss": 4.0, "clips_per_second": 3.0, "elapsed_seconds": 20.0, "skipped": 1},
        {"step": 3, "loss": 2.0, "clips_per_second": 2.0, "elapsed_seconds": 65.0, "skipped": 2,
         "startup": start(seconds=6.0)},
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my_run"
    folder.mkdir()
    (folder / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log()))
    config = moving_actors.get_config().to_dict()
    (folder / run_folder.CONFIG).write_text(json.dumps(config))
    (folder / run_folder.PARAMETERS).write_text("a/kernel  (3, 4)  12\ntotal              1,234\n")
    for step, split, score in ((2, "test", 30.0), (3, "test", 20.0), (3, "train", 90.0)):
        metrics = {"score": score, "metric": "frame-mAP@0.5", "steps": [{"step": 1, "mean": score}]}
        evaluations.write_metrics(evaluations.folder(folder, split=split, step=step), metrics)
    return folder


def test_facts(run):
    model, training, result = facts(read_summary(run))
    assert model == {
        "configuration": "configs/moving_actors.py",
        "model": "tiny, two_branch, float32",
        "input": "rgb, 96 px",
        "frames": "6 → 18 → 30, anticipate",
        "proposals": "11",
        "parameters": "1,234",
    }
    assert training == {
        "training steps": "3 of 2,200",
        "clips": "12, 4 a step",
        "time": "0:01:05",
        "starts": "2 (dotted lines)",
        "start-up": "6 s",
        "devices": "4 x cpu",
        "speed": "2 clips/s",
    }
    assert result == {
        "loss": "8 → 2",
        "metric": "frame-mAP@0.5",
        "last evaluation": "step 3: 20.0 %",
        "best checkpoint": "step 2: 30.0 %",
        "skipped": "3 examples",
    }


def test_only_the_configured_part_counts(run):
    assert dict(read_summary(run).scores) == {2: [30.0], 3: [20.0]}


def test_frames_of_a_step_that_does_not_grow(run):
    config = ava.get_config().to_dict()
    (run / run_folder.CONFIG).write_text(json.dumps(config))
    assert facts(read_summary(run))[0]["frames"] == "12 → 12 → 36, anticipate"


def test_a_folder_with_a_log_alone(run):
    for name in (run_folder.CONFIG, run_folder.PARAMETERS):
        (run / name).unlink()
    summary = read_summary(run)
    model, training, _ = facts(summary)
    assert model == {"configuration": "configs/moving_actors.py"}
    assert training["training steps"] == "3"
    assert summary.name == "my_run"


def test_starts(run):
    assert read_summary(run).starts() == [2]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (COMMAND, "configs/moving_actors.py"),
        ("train.py --config 'my configs/a.py:rgb' --config.seed=3", "my configs/a.py:rgb"),
        ("train.py -config=a.py", "a.py"),
        ("train.py --workdir=config", ""),
        ("", ""),
    ],
)
def test_the_configurations_file(command, expected):
    assert config_file([{"startup": start(command)}]) == expected


def test_no_command_is_known():
    assert config_file([{"step": 1}, {"startup": {"seconds": 3.0}}]) == ""


def test_histograms_of_the_first_and_last_tenth(run):
    lines = [
        {"step": step, "loss": 1.0, "overlap_histogram_1": np.eye(10)[step % 10].tolist()}
        for step in range(20)
    ]
    (run / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = read_summary(run)
    np.testing.assert_allclose(
        summary.histograms(at_end=False)["step 1"], [0.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]
    )
    np.testing.assert_allclose(
        summary.histograms(at_end=True)["step 1"], [0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0.5]
    )
