"""Results of evaluations in a run's folder, and which checkpoint is the best."""

import pytest

from step_jax import evaluations
from step_jax.errors import InputError
from step_jax.files import write_json


def write(workdir, step, score, *, split="test", **more):
    folder = evaluations.folder(workdir, split=split, step=step)
    return evaluations.write_metrics(folder, {"score": score, "note": "x", **more})


def made_with(**changes):
    """The identity of an evaluation, of which `eval__ap` is one key."""
    options = {"eval.ap": "trapezoid", "eval.stride": 1, "eval.tubes": False, "records": "r"}
    return options | {key.replace("__", "."): value for key, value in changes.items()}


def test_what_is_written_is_found(tmp_path):
    path = write(tmp_path, 500, 12.5)
    assert path == tmp_path / "eval" / "test" / "500" / "metrics.json"
    write(tmp_path, 1000, 13.0, split="train")
    (tmp_path / "eval" / "test" / "700").mkdir()  # evaluated right now
    (tmp_path / "eval" / "test" / "plots").mkdir()
    (tmp_path / "eval" / "test" / "plots" / "metrics.json").write_text("someone else's")
    assert evaluations.read_metrics(tmp_path) == {
        ("test", 500): {"score": 12.5, "note": "x"},
        ("train", 1000): {"score": 13.0, "note": "x"},
    }


def test_nothing_was_evaluated(tmp_path):
    assert evaluations.read_metrics(tmp_path / "missing") == {}
    assert evaluations.best_step(tmp_path, among=[1, 2]) is None


def test_damaged_metrics(tmp_path):
    path = write(tmp_path, 5, 1.0)
    path.write_text('{"score": ')
    with pytest.raises(
        InputError, match=r"5/metrics.json: not JSON .*delete it and evaluate again"
    ):
        evaluations.read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("scores", "among", "best"),
    [
        ({1: 5.0, 2: 9.0, 3: 7.0}, [1, 2, 3], 2),
        ({1: 5.0, 2: 9.0, 3: 7.0}, [1, 3], 3),
        ({1: 5.0, 2: 5.0}, [1, 2], 2),
        ({1: None, 2: 0.0}, [1, 2], 2),
        ({1: None}, [1], None),
        ({1: 5.0}, [], None),
    ],
)
def test_best(tmp_path, scores, among, best):
    for step, score in scores.items():
        write(tmp_path, step, score)
    assert evaluations.best_step(tmp_path, among=among) == best


def test_a_look_at_the_training_split_does_not_decide(tmp_path):
    write_json(tmp_path / "config.json", {"data": {"eval_split": "test"}})
    for step, test, train in [(1, 40.0, 80.0), (2, 30.0, 95.0)]:
        write(tmp_path, step, test)
        write(tmp_path, step, train, split="train")
    assert evaluations.best_step(tmp_path, among=[1, 2]) == 1


def test_a_look_at_a_few_videos_lies_elsewhere_and_does_not_decide(tmp_path):
    write_json(tmp_path / "config.json", {"data": {"eval_split": "test", "eval_videos": ""}})
    few = evaluations.folder(tmp_path, split="test", step=2, videos="Diving/*")
    assert few.parent.name.startswith("test_Diving_")
    assert few.parent.parent == evaluations.folder(tmp_path, split="test", step=2).parent.parent
    assert evaluations.part("test", "Diving/*") != evaluations.part("test", "Diving-")
    write(tmp_path, 1, 40.0)
    write(tmp_path, 2, 30.0)
    write(tmp_path, 2, 95.0, split=few.parent.name)
    assert evaluations.best_step(tmp_path, among=[1, 2]) == 1


def test_a_run_configured_for_a_few_videos_is_decided_by_them(tmp_path):
    data = {"eval_split": "test", "eval_videos": "a*"}
    write_json(tmp_path / "config.json", {"data": data})
    write(tmp_path, 1, 40.0)
    write(tmp_path, 1, 10.0, split=evaluations.part("test", "a*"))
    write(tmp_path, 2, 20.0, split=evaluations.part("test", "a*"))
    assert evaluations.best_step(tmp_path, among=[1, 2]) == 2


CONFIGURED = {"data": {"eval_split": "test"}, "eval": {"ap": "trapezoid", "stride": 1}}


@pytest.mark.parametrize("config", [CONFIGURED, None])
def test_scores_of_another_protocol_are_not_compared(tmp_path, config):
    """The latest checkpoint stands for the configuration where there is none."""
    if config:
        write_json(tmp_path / "config.json", config)
    write(tmp_path, 1, 75.0, identity=made_with(eval__ap="voc"))
    write(tmp_path, 2, 70.0, identity=made_with())
    write(tmp_path, 3, 60.0, identity=made_with(eval__tubes=True))
    assert evaluations.best_step(tmp_path, among=[1, 2, 3]) == 2
    assert evaluations.best_step(tmp_path, among=[1]) is None
    assert evaluations.describe_best(tmp_path, "test") == (
        "the best of 2 evaluated checkpoints is 2, score 70.00"
    )


def test_a_watcher_may_evaluate_otherwise_than_the_run(tmp_path):
    write_json(tmp_path / "config.json", CONFIGURED)
    for step, score in [(1, 30.0), (2, 50.0), (3, 40.0)]:
        write(tmp_path, step, score, identity=made_with(eval__stride=3))
    assert evaluations.best_step(tmp_path, among=[1, 2, 3]) == 2
    write(tmp_path, 1, 20.0, identity=made_with())
    assert evaluations.best_step(tmp_path, among=[1, 2, 3]) == 1
