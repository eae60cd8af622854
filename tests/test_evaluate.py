"""The evaluation program: every window once, whatever the batch size, and which checkpoint."""

import json
import shutil
import types

import numpy as np
import pytest
import tiny_run
from square_predictors import FollowingPredictor, KeyframePredictor, tubes_config

import evaluate
from programs import evaluation_config
from step_jax import evaluations
from step_jax.detections import read_detections
from step_jax.errors import InputError
from step_jax.linking import LinkOptions
from step_jax.metrics.ucf101_24.protocol import Protocol
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


def test_shares_of_the_model_are_the_whole(run_program, evaluated_run, tmp_path):
    """To the last bit, though the windows of a batch are others."""
    shutil.copytree(evaluated_run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    for number in (2, 3, 1):
        status, output, _ = run_program(
            "evaluate", f"--workdir={tmp_path / 'run'}", f"--shard={number}/3"
        )
        assert status == 0
        assert f"checkpoint {LAST}, share {number}/3: " in output
    folders = [
        workdir / "eval" / "test" / str(LAST) for workdir in (tmp_path / "run", evaluated_run)
    ]
    found, expected = ({path.name: path.read_bytes() for path in f.iterdir()} for f in folders)
    metrics, whole = (json.loads(files.pop("metrics.json")) for files in (found, expected))
    assert found == expected
    assert metrics | {"seconds": 0} == whole | {"seconds": 0}


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", ""])
def test_forms_of_a_shard_on_the_command_line(run_program, finished_run, shard):
    status, _, errors = run_program("evaluate", f"--workdir={finished_run}", f"--shard={shard}")
    assert status == 1
    assert errors == [f"error: --shard {shard!r}: expected I/N with 1 <= I <= N, such as 1/8"]


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


def test_a_table_again_does_not_replace_its_evaluation(run_program, evaluated_run, tmp_path):
    folder = evaluated_run / "eval" / "test" / str(LAST)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    flags = [f"--workdir={evaluated_run}", f"--detections={folder / 'detections.parquet'}"]
    status, _, (error,) = run_program("evaluate", *flags, "--config.eval.ap=voc")
    assert status == 1
    assert error.startswith(f"error: {folder / 'metrics.json'}: is of a checkpoint")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    status, _, errors = run_program("evaluate", *flags, f"--output={tmp_path / 'made' / 'here'}")
    assert (status, errors) == (0, [])
    again = json.loads((tmp_path / "made" / "here" / "metrics.json").read_text())
    assert again["score"] == json.loads(before["metrics.json"])["score"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


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
