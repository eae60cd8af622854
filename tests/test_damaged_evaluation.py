"""An evaluation without the windows of damaged records tells which, whoever shares the work."""

import json
import shutil
import types

import pytest
import tiny_run
from square_predictors import FollowingPredictor

import evaluate
from step_jax.errors import InputError
from step_jax.evaluation_shards import Share
from step_jax.windows import window_starts
from tests import record_damage


@pytest.fixture
def damaged(squares, tmp_path):
    """The data set with the test split's first record damaged."""
    records = shutil.copytree(squares.records, tmp_path / "records")
    record_damage.flip_data(record_damage.shard(records, 0, "test"), 0)
    return types.SimpleNamespace(records=records, annotations=squares.annotations)


def metrics_of(workdir):
    return json.loads((workdir / "eval" / "test" / "1" / "metrics.json").read_text())


@pytest.fixture
def whole(damaged, tmp_path):
    """Its evaluation by one job, where one damaged record is allowed, and the configuration."""
    config = tiny_run.config(damaged, data__max_damaged=1)
    evaluate.evaluate_checkpoint(config, tmp_path / "whole", FollowingPredictor())
    return config, metrics_of(tmp_path / "whole")


def test_skipped_windows_are_told(capsys, whole):  # which prints when it is made
    _, metrics = whole
    skipped = metrics["skipped"]
    grid = {
        (video, int(start))
        for video, length in (("c", 9), ("d", 5))
        for start in window_starts(length, clip_frames=4, stride=2)
    }
    assert len(skipped) + metrics["windows"] == len(grid)
    assert set() < {(each["video"], each["start"]) for each in skipped} < grid
    assert {each["reason"] for each in skipped} == {"its bytes and their checksum differ"}
    printed = capsys.readouterr().out
    assert f"without {len(skipped)} windows of damaged records" in printed
    assert printed.count("damaged record 1 of at most 1") == 1


@pytest.mark.slow
def test_skipped_windows_of_shares(whole, tmp_path):
    config, metrics = whole
    for number in (2, 1):
        evaluate.evaluate_as_job(config, tmp_path / "two", FollowingPredictor(), Share(number, 2))
    shared = metrics_of(tmp_path / "two")
    del shared["seconds"], metrics["seconds"]
    assert shared == metrics


@pytest.mark.slow
def test_damage_ends_an_evaluation(damaged, tmp_path):
    with pytest.raises(InputError, match=r"record 0 of \d, counted from 0 \(video '[cd]', .*copy"):
        evaluate.evaluate_checkpoint(tiny_run.config(damaged), tmp_path, FollowingPredictor())
    assert not list(tmp_path.glob("eval/**/metrics.json"))
