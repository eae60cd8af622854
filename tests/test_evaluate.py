"""The evaluation program: every window once, whatever the batch size, and which checkpoint."""

import json
import os
import shutil
import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from square_predictors import FollowingPredictor, KeyframePredictor, tubes_config

import evaluate
import evaluation_config
from step_jax import evaluations, run_folder
from step_jax.checkpoint import Checkpoints
from step_jax.detections import read_detections
from step_jax.errors import InputError
from step_jax.linking import LinkOptions
from step_jax.metrics.ucf101_24.protocol import Protocol
from step_jax.train_state import create_train_state
from step_jax.trimming import TrimOptions
from step_jax.tube_table import read_tubes
from step_jax.tubelet_table import read_tubelets

LAST = tiny_run.STEPS
STRIDE = tiny_run.OVERRIDES["eval.stride"]


@pytest.fixture(scope="module")
def evaluated_run(finished_run, tmp_path_factory):
    """A copy of the finished run, its last checkpoint evaluated on four devices."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished_run, workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evaluate.py", f"--workdir={workdir}"])
        with pytest.raises(SystemExit) as exit_:
            tiny_run.run("evaluate")
    assert exit_.value.code == 0
    return workdir


def result(workdir, step=LAST):
    folder = workdir / "eval" / "test" / str(step)
    table = read_detections(folder / "detections.parquet")
    return table, json.loads((folder / "metrics.json").read_text())


def grid(frames):
    """The starts of a video's windows, one by one."""
    starts, start = [], 0
    while start + tiny_run.CLIP_FRAMES <= frames:
        starts.append(start)
        start += STRIDE
    last = frames - tiny_run.CLIP_FRAMES
    return starts if last in starts else [*starts, last]


def test_every_window_once(evaluated_run):
    table, metrics = result(evaluated_run)
    expected = {
        (step, video, number, frame)
        for video, (split, frames) in tiny_run.VIDEOS.items()
        if split == "test"
        for number, start in enumerate(grid(frames))
        for frame in range(start, start + tiny_run.CLIP_FRAMES)
        for step in (1, 2)
    }
    names = np.array(table.videos)[table.video]
    numbers = table.tubelet // tiny_run.PROPOSALS
    assert set(zip(table.step, names, numbers, table.frame, strict=True)) == expected
    assert metrics["windows"] == len(grid(9)) + len(grid(5))
    assert metrics["checkpoint"] == LAST
    assert metrics["provenance"] == {"checkpoint": str(LAST), "split": "test"}
    assert [step["step"] for step in metrics["steps"]] == [1, 2]
    assert metrics["score"] == metrics["steps"][1]["mean"]


def same_numbers(table, expected):
    order, expected_order = (
        np.lexsort((one.frame, one.label, one.tubelet, one.step, np.array(one.videos)[one.video]))
        for one in (table, expected)
    )
    for name in ("frame", "step", "tubelet", "label"):
        np.testing.assert_array_equal(
            getattr(table, name)[order], getattr(expected, name)[expected_order]
        )
    for name in ("score", "boxes"):
        np.testing.assert_allclose(
            getattr(table, name)[order], getattr(expected, name)[expected_order], atol=1e-5
        )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_batch_size_and_device_count(
    run_program, squares, evaluated_run, one_device, tmp_path, batch_size
):
    """One at a time, or in threes of which the last is filled up; on one device instead of four."""
    shutil.copytree(evaluated_run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    flags = tiny_run.flags(squares, workdir=tmp_path / "run", eval__batch_size=batch_size)
    assert run_program("evaluate", *flags)[0] == 0
    (table, metrics), (expected, expected_metrics) = result(tmp_path / "run"), result(evaluated_run)
    same_numbers(table, expected)
    for one in (metrics, expected_metrics):
        del one["seconds"]
    assert metrics == expected_metrics


def test_again_from_the_table(run_program, evaluated_run, tmp_path):
    folder = evaluated_run / "eval" / "test" / str(LAST)
    shutil.copy(folder / "detections.parquet", tmp_path / "table.parquet")
    status, output, errors = run_program(
        "evaluate", f"--workdir={evaluated_run}", f"--detections={tmp_path / 'table.parquet'}"
    )
    assert (status, errors) == (0, [])
    assert "frame-mAP@0.5" in output
    metrics, (_, expected) = (
        json.loads((tmp_path / "metrics.json").read_text()),
        result(evaluated_run),
    )
    assert metrics == {key: expected[key] for key in metrics}
    assert {"score", "steps", "protocol"} <= metrics.keys()


# --- a detector of keyframes ----------------------------------------------------------------------


def test_middle_frames_are_compared_with_the_ground_truth_of_their_own(squares, tmp_path):
    """The square moves by a ninth of its width a frame, so that one frame off is a miss."""
    config = tiny_run.config(
        squares, eval__frames="middle", eval__inclusive_nms=True, eval__iou_threshold=0.85
    )
    report = evaluate.evaluate_checkpoint(config, tmp_path, KeyframePredictor())
    assert report["score"] == 100
    assert report["steps"][0]["localization_recall"] == 100
    middles = {"c": [2, 4, 6, 7], "d": [2, 3]}  # windows at 0, 2, 4, 5 of 9 and at 0, 1 of 5
    assert [item["num_ground_truth"] for item in report["steps"][0]["per_class"]] == [4, 2]
    assert "6 of 14 frames (the middle ones of windows of 4 frames, stride 2)" in report["protocol"]
    table = read_detections(tmp_path / "eval" / "test" / "1" / "detections.parquet")
    found = set(zip(np.array(table.videos)[table.video], table.frame, strict=True))
    assert found == {(video, frame) for video, frames in middles.items() for frame in frames}

    config.eval.frames = "all"
    report = evaluate.evaluate_checkpoint(config, tmp_path, KeyframePredictor())
    assert report["score"] < 60


def test_frames_that_are_not_known_are_noticed_before_the_work(squares, tmp_path):
    config = tiny_run.config(squares, eval__frames="first")
    with pytest.raises(InputError, match=r"eval\.frames 'first': expected one of all, middle"):
        evaluate.evaluate_checkpoint(config, tmp_path, types.SimpleNamespace(step=3))
    assert not (tmp_path / "eval").exists()


# --- a detector whose tubes are asked for ---------------------------------------------------------


def test_tubes_and_the_papers_table(squares, tmp_path, capsys):
    config = tubes_config(squares, eval__trim__min_run=3)
    report = evaluate.evaluate_checkpoint(config, tmp_path, FollowingPredictor())
    folder = tmp_path / "eval" / "test" / "1"
    assert {path.name for path in folder.iterdir()} == {
        "detections.parquet", "tubelets.parquet", "tubes.parquet", "tubes_trimmed.parquet",
        "metrics.json", "report.parquet", "report.png",
    }  # fmt: skip
    rows = read_tubelets(folder / "tubelets.parquet")
    assert rows.header.steps == (2,)
    windows = [(v, start) for v, frames in (("c", 9), ("d", 5)) for start in range(frames - 3)]
    names = np.array(rows.videos)[rows.video]
    assert sorted(zip(names, rows.start, strict=True)) == windows

    assert report["score"] == report["steps"][1]["mean"] == 100
    assert "video" not in report["steps"][0]
    for kind in ("linked", "trimmed"):
        assert set(report["steps"][1]["video"][kind]["mean"].values()) == {100.0}
    assert report["steps"][1]["video"]["linked"]["mean_50_95"] == 100
    assert "of 5 frames or more" in report["steps"][1]["video"]["linked"]["made"]
    assert len(read_tubes(folder / "tubes.parquet")) == 4  # of each video one for each class
    output = capsys.readouterr().out
    assert "step 2, trimmed" in output
    assert ".5:.95" in output
    told = json.loads((folder / "metrics.json").read_text())
    assert told["steps"] == report["steps"]


def test_tubes_again_from_either_table(run_program, squares, finished_run, tmp_path):
    """Without the model, and equal; the detections hold all there is of so simple a detector."""
    config = tubes_config(squares)
    evaluate.evaluate_checkpoint(config, tmp_path, FollowingPredictor())
    folder = tmp_path / "eval" / "test" / "1"
    expected = json.loads((folder / "metrics.json").read_text())["steps"]
    for video in expected[1]["video"].values():
        assert video.pop("made").startswith("from raw tubelets:")
    flags = ["--config.eval.tubes", "--config.eval.stride=1", "--config.eval.link.min_frames=5"]
    for table, steps, source in (
        ("tubelets", expected[1:], "from raw tubelets:"),
        ("detections", expected, "from a detections table (candidates are only those above"),
    ):
        (tmp_path / table).mkdir()
        shutil.move(folder / f"{table}.parquet", tmp_path / table / "table.parquet")
        where = f"--detections={tmp_path / table / 'table.parquet'}"
        assert run_program("evaluate", f"--workdir={finished_run}", where, *flags)[0] == 0
        found = json.loads((tmp_path / table / "metrics.json").read_text())["steps"]
        made = [video.pop("made") for step in found for video in step.get("video", {}).values()]
        assert all(text.startswith(source) for text in made)
        assert found == steps


def test_the_defaults_are_those_of_the_library(squares):
    options = evaluation_config.tube_options(tubes_config(squares, eval__link__min_frames=15))
    assert options.link == LinkOptions()
    penalty = options.trim.penalty
    assert options.trim == TrimOptions(penalty=penalty)
    assert evaluation_config.protocol(tubes_config(squares)) == Protocol()
    assert evaluation_config.tube_options(tiny_run.config(squares)) is None
    config = tubes_config(squares, eval__link__global_nms=0.7, eval__link__max_gap=0)
    assert evaluation_config.tube_options(config).link.global_nms == 0.7
    assert evaluation_config.tube_options(config).link.max_gap == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval__stride": 4}, "windows of 4 frames every 4 frames share none"),
        ({"eval__frames": "middle"}, "eval.tubes: eval.frames is 'middle'; tubes need all frames"),
        ({"eval__tube_steps": (3,)}, r"tube_steps: step 3; the detector has steps \[1, 2\]"),
        ({"eval__link__match_iou": 2.0}, "match_iou is 2.0; expected 0 to 1"),
        ({"eval__trim__penalty": -2.0}, "penalty is -2.0; expected a number of 0 or more"),
        ({"eval__ap": "coco"}, "ap 'coco': expected one of trapezoid, voc"),
        ({"eval__counted_frames": "some"}, "counted frames 'some': expected one of all, annotated"),
        ({"eval__video_map_thresholds": (50.0,)}, r"thresholds are \[50.0\]; expected"),
    ],
)
def test_what_tubes_cannot_be_made_with_is_noticed_before_the_work(
    squares, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        evaluate.evaluate_checkpoint(
            tubes_config(squares, **changes), tmp_path, FollowingPredictor()
        )
    assert not (tmp_path / "eval").exists()


# --- which checkpoint -----------------------------------------------------------------------------


@pytest.fixture
def recorded(monkeypatch):
    """Replaces the detector's work; the list of (step, stride) that would have been evaluated."""
    calls = []

    def evaluate_checkpoint(config, workdir, step):
        calls.append((step, config.eval.stride))
        folder = evaluations.folder(workdir, split=config.data.eval_split, step=step)
        evaluations.write_metrics(folder, {"score": 1.0})

    monkeypatch.setattr(evaluate, "restore_predictor", lambda checkpoints, step: step)
    monkeypatch.setattr(evaluate, "evaluate_checkpoint", evaluate_checkpoint)
    return calls


@pytest.mark.parametrize(("which", "step"), [("latest", 12), ("best", 9), ("9", 9)])
def test_choice_of_the_checkpoint(run_program, recorded, finished_run, tmp_path, which, step):
    shutil.copytree(finished_run, tmp_path / "run")
    for one, score in [(6, 90.0), (9, 50.0), (12, 40.0)]:  # 6 is not there any more
        folder = evaluations.folder(tmp_path / "run", split="test", step=one)
        evaluations.write_metrics(folder, {"score": score})
    assert run_program("evaluate", f"--workdir={tmp_path / 'run'}", f"--checkpoint={which}")[0] == 0
    assert recorded == [(step, STRIDE)]


def test_a_configuration_of_its_own(run_program, recorded, squares, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    flags = tiny_run.flags(squares, workdir=tmp_path / "run", eval__stride=1)
    assert run_program("evaluate", *flags)[0] == 0
    assert recorded == [(LAST, 1)]


def test_single_keys_of_the_runs_own_configuration(run_program, recorded, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    flags = ("--config.eval.stride=1", "--config.data.records=elsewhere", "--workdir")
    assert run_program("evaluate", *flags, tmp_path / "run")[0] == 0
    assert recorded == [(LAST, 1)]
    status, _, errors = run_program("evaluate", "--config.eval.strid=1", *flags, tmp_path / "run")
    assert status == 1
    assert "--config.eval.strid: no such key. Did you mean" in errors[-1]


def test_a_run_that_is_older_than_a_key(run_program, recorded, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    told = json.loads(path.read_text())
    del told["eval"]["frames"], told["eval"]["inclusive_nms"]
    path.write_text(json.dumps(told))
    arguments = (f"--workdir={tmp_path / 'run'}", "--config.eval.stride=3")
    assert run_program("evaluate", *arguments)[0] == 0
    assert recorded == [(LAST, 3)]
    config = evaluation_config.read_configuration(tmp_path / "run")
    assert (config.eval.frames, config.eval.inclusive_nms) == ("all", False)
    assert config.eval.batch_size == tiny_run.OVERRIDES["eval.batch_size"]


def test_what_is_wrong_is_noticed_before_the_work(squares, tmp_path):
    predictor = types.SimpleNamespace(step=3)  # whose use would fail
    config = tiny_run.config(squares, data__annotations=str(tmp_path / "gone.json"))
    with pytest.raises(InputError, match=r"gone.json: cannot be read"):
        evaluate.evaluate_checkpoint(config, tmp_path, predictor)
    assert not (tmp_path / "eval").exists()


# --- watching -------------------------------------------------------------------------------------


class Training:
    """Another process's training, which goes on while this one sleeps."""

    def __init__(self, workdir, *, keep=2):
        self.workdir, self.keep, self.checkpoints = workdir, keep, None
        self.acts = []

    def save(self, *steps):
        self.checkpoints = self.checkpoints or Checkpoints(self.workdir, keep=self.keep)
        state = create_train_state({"params": {"bias": jnp.zeros(2)}}, optax.sgd(0.1))
        for step in steps:
            self.checkpoints.save(state.replace(step=jnp.int32(step)), {})
            self.checkpoints.wait()

    def end(self, step):
        run_folder.mark_finished(self.workdir, step=step)

    def sleep(self, seconds):
        assert seconds == 0.5
        self.acts.pop(0)()  # IndexError: it watches on after the end


@pytest.fixture
def training(tmp_path, monkeypatch):
    training = Training(tmp_path)
    monkeypatch.setattr(evaluate.time, "sleep", training.sleep)
    yield training
    if training.checkpoints:
        training.checkpoints.close()


def watch(training, squares):
    checkpoints = Checkpoints(training.workdir, read_only=True)
    evaluate.watch(tiny_run.config(squares), training.workdir, checkpoints, poll_seconds=0.5)
    assert not training.acts
    checkpoints.close()


def steps_of(recorded):
    return [step for step, _ in recorded]


def test_watch_evaluates_each_checkpoint_once(training, recorded, squares):
    training.save(1)
    training.acts = [
        lambda: None,
        lambda: training.save(2, 3),
        lambda: None,
        lambda: (training.save(4), training.end(4)),
    ]
    watch(training, squares)
    assert steps_of(recorded) == [1, 2, 3, 4]


def test_watch_continues_where_it_was_interrupted(training, recorded, squares):
    training.save(1, 2)
    folder = evaluations.folder(training.workdir, split="test", step=1)
    evaluations.write_metrics(folder, {"score": 1.0})
    training.end(2)
    watch(training, squares)
    assert steps_of(recorded) == [2]


def test_watch_does_not_miss_the_last_one(training, recorded, squares, monkeypatch):
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
    watch(training, squares)
    assert steps_of(recorded) == [1, 2]


def test_watch_skips_what_is_deleted_meanwhile(training, recorded, squares, monkeypatch):
    training.save(1, 2)

    def restore(checkpoints, step):
        if step == 1:
            training.save(3)  # which deletes 1
            raise InputError("checkpoint 1 is damaged")
        return step

    monkeypatch.setattr(evaluate, "restore_predictor", restore)
    training.acts = [lambda: training.end(3)]
    watch(training, squares)
    assert steps_of(recorded) == [2, 3]


def test_watch_reports_a_damaged_checkpoint(training, squares, monkeypatch):
    training.save(1)

    def restore(checkpoints, step):
        raise InputError("checkpoint 1 is damaged")

    monkeypatch.setattr(evaluate, "restore_predictor", restore)
    with pytest.raises(InputError, match="checkpoint 1 is damaged"):
        watch(training, squares)


def test_watch_may_be_started_before_the_training(training, capsys):
    training.acts = [lambda: None, lambda: training.save(1)]
    evaluate.wait_for_training(training.workdir, poll_seconds=0.5)
    assert capsys.readouterr().out == f"waiting for {training.workdir / 'checkpoints'}\n"


@pytest.mark.slow
def test_watch_beside_a_training(squares, compilation_cache, tmp_path):
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
