"""Training and evaluating a tiny detector on AVA's kind of records, through the entry points."""

import json
import shutil
import types

import ava_records
import jax
import numpy as np
import pytest
import tiny_run

import evaluate
import train
from input_pipeline import keyframes
from input_pipeline.pipeline import eval_batches
from step_jax import annotated_boxes, inference
from step_jax.annotations.ava_csv import read_detections_csv
from step_jax.annotations.ava_folder import open_ava_folder
from step_jax.annotations.ava_targets import people_of
from step_jax.ava_table import read_ava_detections
from step_jax.detections import read_detections
from step_jax.errors import InputError
from step_jax.evaluation_shards import Share
from step_jax.models.factory import build_detector
from step_jax.train_state import init_variables

STEPS = 2
SECONDS = [t for t in range(902, 915) if t != 903]  # of video d; see ava_records
CHANGES = {
    "data__ava_version": "2.1",
    "data__eval_split": "val",
    "data__max_tubes": 4,
    "augment__flip_swaps": (),
    "model__clip_frames": 12,
    "model__classification": "sigmoid",
    "loss__frames": "middle",
    "train__steps": STEPS,
    "train__eval_every_steps": STEPS,
    "train__checkpoint_every_steps": STEPS,
    "eval__frames": "middle",
    "eval__stride": 12,
    "eval__inclusive_nms": True,
    "eval__tubelet_nms": 0.4,
    "eval__clip_top": 9,
    "eval__tubes": True,
}


@pytest.fixture(scope="module")
def ava(tmp_path_factory):
    """Records and annotations of AVA's kind, as `tiny_run.flags` takes them."""
    from input_pipeline.accelerators import hide_accelerators

    hide_accelerators()
    folder = tmp_path_factory.mktemp("ava")
    ava_records.write_annotations(folder / "csv")
    records = ava_records.write_records(folder / "records")
    return types.SimpleNamespace(records=records, annotations=folder / "csv")


@pytest.fixture(scope="module")
def run(ava, compilation_cache, tmp_path_factory):
    """(folder of the evaluation, what was printed) of a run of two steps."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    process = tiny_run.start(
        "train.py", *tiny_run.flags(ava, workdir=workdir, **CHANGES), cache=compilation_cache
    )
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return workdir / "eval" / "val" / str(STEPS), output


def test_trains_and_evaluates(run, ava):
    folder, output = run
    labels = keyframes.training_labels(open_ava_folder(ava.annotations, "2.1"), "train")
    assert f"train: {len(labels.keyframes)} keyframes\n" in output
    assert f"val: {len(SECONDS)} keyframes; 1 could not be decoded" in output
    assert "AVA frame-mAP@0.5, protocol 2018" in output
    assert (folder / "report.png").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [step["step"] for step in metrics["steps"]] == [1, 2]
    assert metrics["score"] == metrics["steps"][-1]["mean"] == pytest.approx(100 * metrics["mAP"])
    assert metrics["windows"] == len(SECONDS)
    assert metrics["version"] == "2.1"
    # The official form is the last step of the table, with the ids of the classes.
    csv = read_detections_csv(folder / "detections.csv")
    table = read_detections(folder / "detections.parquet", step=2)
    assert sorted(set(csv.timestamp.tolist())) == SECONDS
    assert csv.videos == ("d",)
    np.testing.assert_array_equal(csv.timestamp, 900 + table.frame // 12)
    np.testing.assert_array_equal(csv.action_id, np.array([3, 12, 79])[table.label])
    np.testing.assert_allclose(csv.boxes, table.boxes, atol=1e-6)


def test_again_from_either_table(run, run_program, tmp_path):
    """The tubelets give the numbers of the detections, in evaluate.py and in the metric's command,
    without telling the image's side: the table does."""
    folder, _ = run
    expected = json.loads((folder / "metrics.json").read_text())
    for name in ("detections.parquet", "tubelets.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
        workdir = folder.parents[2]
        status, _, errors = run_program(
            "evaluate", f"--workdir={workdir}", f"--detections={tmp_path / name}"
        )
        assert (status, errors) == (0, [])
        found = json.loads((tmp_path / "metrics.json").read_text())
        for key in ("score", "mAP", "per_class", "breakdown", "remarks", "protocol"):
            assert found[key] == expected[key], key


def same_but_for_seconds(one, other):
    """Two evaluations' folders."""
    found, expected = ({path.name: path.read_bytes() for path in f.iterdir()} for f in (one, other))
    metrics, whole = (json.loads(files.pop("metrics.json")) for files in (found, expected))
    assert found == expected
    assert metrics | {"seconds": 0} == whole | {"seconds": 0}


@pytest.mark.slow
def test_shares_are_the_whole(run, compilation_cache, tmp_path):
    folder, _ = run
    workdir = tmp_path / "run"
    shutil.copytree(folder.parents[2], workdir, ignore=shutil.ignore_patterns("eval"))
    for number in (3, 1, 2):
        arguments = (f"--workdir={workdir}", f"--shard={number}/3")
        process = tiny_run.start("evaluate.py", *arguments, cache=compilation_cache)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    same_but_for_seconds(workdir / "eval" / "val" / str(STEPS), folder)


def test_bad_configurations(ava, run_program, tmp_path):
    def errors_of(**changes):
        flags = tiny_run.flags(ava, workdir=tmp_path / "run", **{**CHANGES, **changes})
        status, _, errors = run_program("train", *flags)
        assert status == 1
        assert not (tmp_path / "run").exists()
        return errors[-1]

    assert "AVA version '3': expected one of 2.1, 2.2" in errors_of(data__ava_version="3")
    assert "set data.ava_version" in errors_of(data__ava_version="")
    assert "eval.ava_protocol '1999': expected" in errors_of(eval__ava_protocol="1999")
    assert "'middle' and 12" in errors_of(eval__stride=6)
    assert "expected one of detected, annotated" in errors_of(eval__boxes="all")
    assert "no tubelets where eval.boxes" in errors_of(eval__boxes="annotated")
    assert "is no folder" in errors_of(data__annotations=str(tmp_path / "none"))
    assert "no video matches 'nothing*'" in errors_of(data__eval_videos="nothing*")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ava_val_v2.1.csv", "d,0902,.1,.1,.5,x,12,0\n", "v2.1.csv:1: y2 is 'x'"),
        (
            "ava_val_excluded_timestamps_v2.1.csv",
            "".join(f"d,{second}\n" for second in range(902, 914)),
            "ava_val_v2.1.csv: no ground truth is left",
        ),
    ],
)
def test_files_of_evaluation_are_read_before_training(
    ava, run_program, tmp_path, name, text, message
):
    folder = shutil.copytree(ava.annotations, tmp_path / "csv")
    (folder / name).write_text(text)
    workdir = tmp_path / "run"
    flags = tiny_run.flags(ava, workdir=workdir, **CHANGES, data__annotations=str(folder))
    status, _, errors = run_program("train", *flags)
    assert status == 1
    assert message in errors[-1]
    assert not workdir.exists()


def classifier(ava):
    """(configuration, predictor) of an untrained one of annotated people."""
    changes = {**CHANGES, "model__extension_plan": (False,), "model__extension": "none"}
    changes |= {"eval__boxes": "annotated", "eval__tubes": False}
    config = tiny_run.config(ava, **{**changes, "model__clip_frames": 36})
    detector = build_detector(num_classes=3, **config.model.to_dict())
    variables = init_variables(detector, image_size=32, num_proposals=11, key=jax.random.key(0))
    classes = ("class3", "class12", "class79")
    return config, inference.Predictor(detector, variables, classes, 32, 12.0, 11, 0)


@pytest.mark.slow
def test_shares_of_annotated_boxes_are_the_whole(ava, tmp_path):
    config, predictor = classifier(ava)
    evaluate.evaluate_checkpoint(config, tmp_path / "whole", predictor)
    for number in (2, 1):
        evaluate.evaluate_as_job(config, tmp_path / "shares", predictor, Share(number, 2))
    folders = [tmp_path / name / "eval" / "val" / "0" for name in ("shares", "whole")]
    assert len(read_detections(folders[0] / "detections.parquet")) > 20
    same_but_for_seconds(*folders)


def test_a_classifier_on_annotated_boxes(ava, tmp_path):
    """Every annotated person of validation with the scores of all classes, on the person's box."""
    _, predictor = classifier(ava)
    folder = open_ava_folder(ava.annotations, "2.1")
    labels = keyframes.evaluation_labels(folder, "val", with_people=True)
    batches = list(eval_batches(
        ava.records, split="val", clip_frames=36, input_frames=36, stride=12, image_size=32,
        max_tubes=4, batch_size=4, keyframes=labels,
    ))  # fmt: skip
    table = tmp_path / "t.parquet"
    windows = annotated_boxes.write_annotated(
        table, predictor, batches, stride=12, provenance={"checkpoint": "0"}
    )
    assert windows == len(SECONDS)
    found = read_ava_detections([table], folder.label_map())
    people = people_of(folder.labels("val"), folder.label_map())
    kept = np.isin(people.timestamp, SECONDS)
    expected = {
        (int(t), action, *np.round(box, 4))
        for t, box in zip(people.timestamp[kept], people.boxes[kept].tolist(), strict=True)
        for action in (3, 12, 79)
    }
    assert len(expected) > 20
    rows = zip(found.timestamp, found.action_id, found.boxes.tolist(), strict=True)
    assert {(int(t), int(a), *np.round(box, 4)) for t, a, box in rows} == expected
    assert ((found.score > 0) & (found.score < 1)).all()
    assert len(np.unique(found.score)) > len(found) / 2


def test_a_detector_of_several_steps_is_no_classifier(tmp_path):
    predictor = types.SimpleNamespace(num_steps=2)
    with pytest.raises(InputError, match=r"eval.boxes 'annotated': the detector has 2 steps"):
        annotated_boxes.write_annotated(tmp_path / "t", predictor, [], stride=12, provenance={})


def test_other_data_sets_have_no_annotated_boxes(squares):
    config = tiny_run.config(squares, eval__boxes="annotated")
    with pytest.raises(InputError, match=r"eval.boxes 'annotated': expected 'detected'"):
        train.evaluation_config.check_config(config)
