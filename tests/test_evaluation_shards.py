"""An evaluation in shares: the result of the whole, whoever works when, and never a mixture."""

import concurrent.futures
import json
import os
import shutil
import threading

import numpy as np
import pytest
import tiny_run
from square_predictors import FollowingPredictor, tubes_config

import evaluate
from step_jax import evaluation_shards
from step_jax.errors import InputError
from step_jax.evaluation_shards import Shards, Share

TUBE_FILES = {
    "detections.parquet", "tubelets.parquet", "tubes.parquet", "tubes_trimmed.parquet",
    "report.parquet", "report.png",
}  # fmt: skip


def contents(workdir):
    """What is compared of an evaluation's folder: the bytes of all files, metrics without times."""
    folder = workdir / "eval" / "test" / "1"
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    metrics = json.loads(found.pop("metrics.json"))
    metrics.pop("seconds")
    return found, metrics


@pytest.fixture(scope="module")
def config(squares):
    return tiny_run.config(squares, eval__stride=1)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The evaluation by one job."""
    return evaluated(config, tmp_path_factory.mktemp("whole"))


def evaluated(config, workdir):
    evaluate.evaluate_checkpoint(config, workdir, FollowingPredictor())
    return contents(workdir)


def work(config, workdir, number, count, predictor=None):
    share = Share(number, count)
    evaluate.evaluate_as_job(config, workdir, predictor or FollowingPredictor(), share)


def shares_of(workdir):
    folder = workdir / "eval" / "test" / "1" / "shards"
    return sorted(path.name for path in folder.glob("[!.]*")) if folder.exists() else None


@pytest.mark.parametrize("order", [(1,), (2, 1), (3, 1, 2)])
def test_shares_are_the_whole(config, whole, tmp_path, order):
    """Bit for bit, in any order."""
    for number in order:
        assert not (tmp_path / "eval" / "test" / "1" / "metrics.json").exists()
        work(config, tmp_path, number, len(order))
    assert contents(tmp_path) == whole
    assert shares_of(tmp_path) is None


def test_shares_of_tubes_are_the_whole(squares, tmp_path):
    """Six shares of five records: one has no window, and no table of tubelets."""
    config = tubes_config(squares)
    expected = evaluated(config, tmp_path / "whole")
    assert expected[0].keys() == TUBE_FILES
    for number in (4, 6, 1, 3, 2, 5):
        work(config, tmp_path / "shares", number, 6)
    assert contents(tmp_path / "shares") == expected


# --- any time, any number of times ----------------------------------------------------------------


class KilledError(BaseException):
    """In place of SIGKILL: nothing handles it."""


class Counting(FollowingPredictor):
    """Counts its batches, and is killed at one of them."""

    def __init__(self, dies_at=None):
        self.batches, self.dies_at = 0, dies_at

    def __call__(self, clips):
        self.batches += 1
        if self.batches == self.dies_at:
            raise KilledError
        return super().__call__(clips)


def test_what_is_complete_is_not_done_twice(config, whole, tmp_path):
    work(config, tmp_path, 1, 2)
    again = Counting()
    work(config, tmp_path, 1, 2, again)
    with pytest.raises(KilledError):
        work(config, tmp_path, 2, 2, Counting(dies_at=1))
    assert shares_of(tmp_path) == ["1-of-2", "evaluation.json"]
    work(config, tmp_path, 2, 2)
    assert contents(tmp_path) == whole
    for number in (1, 2):
        work(config, tmp_path, number, 2, again)
    assert again.batches == 0
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(
    ("module", "function", "at"),
    [
        (evaluation_shards, "merge_detections", 1),
        (evaluate, "evaluate_table", 1),
        (os, "replace", 4),  # the merged table's and the metrics', and then under their last names
        (evaluation_shards.Shards, "_remove", 1),
    ],
)
def test_a_merge_that_is_killed_is_made_again(
    config, whole, tmp_path, monkeypatch, module, function, at
):
    work(config, tmp_path, 2, 2)
    original, calls = getattr(module, function), []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == at:
            raise KilledError
        return original(*arguments, **options)

    monkeypatch.setattr(evaluate, "merge_shares", with_patch(module, function, dies))
    with pytest.raises(KilledError):
        work(config, tmp_path, 1, 2)
    monkeypatch.undo()
    again = Counting()
    work(config, tmp_path, 2, 2, again)
    assert again.batches == 0
    assert contents(tmp_path) == whole
    assert shares_of(tmp_path) is None


def with_patch(module, function, replacement):
    """`evaluate.merge_shares` under which a function is another."""
    merge = evaluate.merge_shares

    def merge_shares(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, function, replacement)
            return merge(*arguments)

    return merge_shares


@pytest.mark.parametrize("locks", [True, False])
def test_two_that_finish_at_the_same_moment(config, whole, tmp_path, monkeypatch, locks):
    """Both find all shares complete; also where the file system knows no locks."""
    if not locks:
        monkeypatch.setattr(evaluation_shards.fcntl, "flock", no_locks)
    both, missing = threading.Barrier(2), Shards.missing

    def missing_at_once(self):
        found = missing(self)
        both.wait(timeout=60)
        return found

    work(config, tmp_path, 1, 2)
    monkeypatch.setattr(Shards, "missing", lambda self: [0])
    work(config, tmp_path, 2, 2)
    assert shares_of(tmp_path) == ["1-of-2", "2-of-2", "evaluation.json"]
    monkeypatch.setattr(Shards, "missing", missing_at_once)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(work, config, tmp_path, number, 2) for number in (1, 2)]
    for job in jobs:
        job.result()
    assert contents(tmp_path) == whole
    assert shares_of(tmp_path) is None


def no_locks(*_):
    raise OSError("no locks here")


def test_shares_that_are_taken_away_by_the_result_are_no_error(config, whole, tmp_path):
    """A job works at a share that another has completed and merged meanwhile."""

    class Slow(FollowingPredictor):
        def __call__(self, clips):
            for number in (1, 2):
                work(config, tmp_path, number, 2)
            return super().__call__(clips)

    work(config, tmp_path, 2, 2, Slow())
    assert contents(tmp_path) == whole


def test_an_error_of_its_own_is_one_even_where_there_is_a_result(config, whole, tmp_path):
    evaluate.evaluate_checkpoint(config, tmp_path, FollowingPredictor())

    class Failing(FollowingPredictor):
        def __call__(self, clips):
            raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        evaluate.evaluate_checkpoint(config, tmp_path, Failing())
    assert contents(tmp_path) == whole


# --- never a mixture ------------------------------------------------------------------------------


def test_jobs_that_disagree(squares, config, tmp_path):
    work(config, tmp_path, 1, 2)
    with pytest.raises(InputError, match=r"shards: holds shares of 2, this is one of 3; give all"):
        work(config, tmp_path, 2, 3)
    for changes, told in [
        ({"eval__stride": 2}, "eval.stride was 1, is 2"),
        ({"eval__score_threshold": 0.5}, "eval.score_threshold was 0.01, is 0.5"),
        ({"eval__link__min_frames": 6}, "eval.link.min_frames was 15, is 6"),
    ]:
        other = tiny_run.config(squares, **{"eval__stride": 1, **changes})
        with pytest.raises(
            InputError, match=rf"shards: of another evaluation \({told}\); give all"
        ):
            work(other, tmp_path, 2, 2)
    trained_again = FollowingPredictor()
    trained_again.variables = {"kernel": np.ones(3)}
    with pytest.raises(InputError, match=r"parameters was [0-9a-f]{16}, is [0-9a-f]{16}"):
        work(config, tmp_path, 2, 2, trained_again)
    assert shares_of(tmp_path) == ["1-of-2", "evaluation.json"]


def test_other_records_or_annotations(squares, config, tmp_path, monkeypatch):
    work(config, tmp_path, 1, 2)
    other = tmp_path / "annotations.json"
    other.write_bytes(squares.annotations.read_bytes() + b"\n")
    with pytest.raises(InputError, match=r"of another evaluation \(annotations was"):
        work(tiny_run.config(squares, eval__stride=1, data__annotations=str(other)), tmp_path, 2, 2)


def test_jobs_that_start_together_and_disagree_are_found_out_before_the_merge(
    squares, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(Shards, "join", lambda self: None)
    work(tiny_run.config(squares, eval__stride=2), tmp_path, 1, 2)
    with pytest.raises(InputError, match=r"1-of-2: of another .*eval.stride was 2, is 1"):
        work(config, tmp_path, 2, 2)
    assert not (tmp_path / "eval" / "test" / "1" / "metrics.json").exists()


def test_a_result_of_another_configuration_is_not_taken_for_this_one(squares, config, tmp_path):
    evaluate.evaluate_checkpoint(config, tmp_path, FollowingPredictor())
    with pytest.raises(InputError, match=r"test/1: of another .*eval.stride was 1, is 2"):
        work(tiny_run.config(squares, eval__stride=2), tmp_path, 1, 2)
    path = tmp_path / "eval" / "test" / "1" / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({"score": metrics["score"]}))  # as written before there were shares
    with pytest.raises(InputError, match="test/1: does not say of which evaluation it is; delete"):
        work(config, tmp_path, 1, 2)


def test_a_watcher_does_not_take_it_for_its_own_either(tmp_path):
    folder = tmp_path / "eval" / "test" / "1"
    assert not evaluation_shards.is_evaluated(folder, identity={"eval.stride": 1})
    folder.mkdir(parents=True)
    told = {"identity": {"eval.stride": 1, "checkpoint": 1, "parameters": "p"}}
    (folder / "metrics.json").write_text(json.dumps(told))
    assert evaluation_shards.is_evaluated(folder, identity={"eval.stride": 1})
    with pytest.raises(InputError, match=r"test/1: of another .*eval.stride was 1, is 3"):
        evaluation_shards.is_evaluated(folder, identity={"eval.stride": 3})
    (folder / "metrics.json").write_text(json.dumps({"score": 1.0}))  # older
    assert evaluation_shards.is_evaluated(folder, identity={"eval.stride": 3})


def test_the_whole_does_not_mind_the_shares_of_jobs(squares, config, whole, tmp_path):
    """Training evaluates its checkpoint, whatever somebody else has left there."""
    work(tiny_run.config(squares, eval__stride=2), tmp_path, 1, 2)
    evaluate.evaluate_checkpoint(config, tmp_path, FollowingPredictor())
    assert shares_of(tmp_path) == ["1-of-2", "evaluation.json"]
    shutil.rmtree(tmp_path / "eval" / "test" / "1" / "shards")
    assert contents(tmp_path) == whole


# --- what is given and what is compared -----------------------------------------------------------


def test_forms_of_a_share():
    assert Share.parse("1/1") == Share(1, 1)
    assert str(Share.parse("3/8")) == "3/8"
    for text in ("0/8", "9/8", "1/0", "1", "1/", "/8", "-1/8", "1/8/2", "a/b", "1.0/8", " 1/8", ""):
        with pytest.raises(InputError, match=r"--shard .*: expected I/N with 1 <= I <= N"):
            Share.parse(text)
