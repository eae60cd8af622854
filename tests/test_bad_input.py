"""Bad input ends a command with one clear line, a status that is not 0, and nothing half-written.

A case is a command line and what its line must say: the culprit, and what to do. Where a case needs
a damaged data set, `spoil_*` makes it from the tiny one.
"""

import dataclasses
import json
import os
import pathlib
import resource
import shutil
from collections.abc import Callable

import cv2
import pytest
import tiny_run

from step_jax import evaluations
from step_jax.annotations import Annotations
from step_jax.annotations.native import write_native


@dataclasses.dataclass
class Scene:
    """A copy of the data set that may be spoilt, and places for outputs, of which none exists."""

    folder: pathlib.Path
    annotations: pathlib.Path
    records: pathlib.Path
    finished_run: pathlib.Path

    @property
    def output(self) -> pathlib.Path:
        return self.folder / "output"

    def edit(self, change: Callable[[dict], None]):
        """Changes the annotation file as JSON."""
        document = json.loads(self.annotations.read_text())
        change(document)
        self.annotations.write_text(json.dumps(document))

    def flags(self, **changes):
        return tiny_run.flags(self, workdir=self.output, **changes)

    def copy_run(self) -> pathlib.Path:
        shutil.copytree(self.finished_run, self.output)
        return self.output

    def below_a_file(self) -> pathlib.Path:
        (self.folder / "file").write_text("")
        return self.folder / "file" / "output"


@pytest.fixture
def scene(squares, finished_run, tmp_path):
    shutil.copytree(squares.annotations.parent, tmp_path / "data")
    return Scene(
        tmp_path,
        tmp_path / "data" / squares.annotations.name,
        tmp_path / "data" / squares.records.name,
        finished_run,
    )


def files_below(folder):
    """Everything in a folder with its content; what it takes to say that nothing has changed."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def check(run_program, name, arguments, *, parts):
    """Runs a command that must fail; its line must have all the parts."""
    status, _, errors = run_program(name, *arguments)
    assert status == 1
    said = [line for line in errors if line and "frame/s]" not in line]  # not the progress bars
    assert len(said) == 1, said
    assert said[0].startswith("error: ")
    for part in parts:
        assert part in said[0]


# --- videos and annotations -----------------------------------------------------------------------


def video(document, name="a"):
    return next(video for video in document["videos"] if video["id"] == name)


def spoil_missing_video(scene):
    (scene.folder / "data" / "a.avi").unlink()


def spoil_unreadable_video(scene):
    (scene.folder / "data" / "a.avi").write_bytes(bytes(range(256)) * 9)


def spoil_zero_frames(scene):
    path = scene.folder / "data" / "a.avi"
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, codec, 25, (48, 48)).release()


def spoil_empty_file(scene):
    (scene.folder / "data" / "a.avi").write_bytes(b"")


def spoil_cut_off(scene):
    path = scene.folder / "data" / "a.avi"
    path.write_bytes(path.read_bytes()[:-2000])


def spoil_shorter_than_annotated(scene):
    scene.edit(lambda document: video(document).update(num_frames=15))


def spoil_boxes_after_the_end(scene):
    scene.edit(lambda document: video(document)["tubes"][0].update(start=5))


def spoil_nan(scene):
    def change(document):
        video(document)["tubes"][0]["boxes"][3][2] = float("nan")

    scene.edit(change)


def spoil_inverted(scene):
    def change(document):
        box = video(document)["tubes"][0]["boxes"][3]
        box[0], box[2] = box[2], box[0]

    scene.edit(change)


def spoil_unknown_class(scene):
    scene.edit(lambda document: video(document)["tubes"][0].update(classes=["rihgt"]))


def spoil_no_videos(scene):
    scene.edit(lambda document: document.update(videos=[]))


def spoil_outside_path(scene):
    scene.edit(lambda document: video(document).update(path="../../a.avi"))


def spoil_json(scene):
    scene.annotations.write_text(scene.annotations.read_text()[:-20])


def spoil_missing_annotations(scene):
    scene.annotations.unlink()


DATA_SETS = {
    "missing video": (spoil_missing_video, ["video 'a'", "a.avi does not exist; paths start from"]),
    "unreadable video": (spoil_unreadable_video, ["video 'a'", "a.avi: cannot be opened", "expec"]),
    "zero frames": (spoil_zero_frames, ["video 'a'", "a.avi: "]),
    "empty file": (spoil_empty_file, ["video 'a'", "a.avi: is empty; expected a video"]),
    "cut off": (spoil_cut_off, ["video 'a'", "a.avi: is truncated", "copy or record it again"]),
    "shorter": (
        spoil_shorter_than_annotated,
        ["video 'a'", "14 frames can be decoded", "says 15", "or correct num_frames"],
    ),
    "after the end": (
        spoil_boxes_after_the_end,
        ["annotations.json: video 'a': tube 0", "reach beyond the video's 14 frames"],
    ),
    "NaN": (spoil_nan, ["video 'a': tube 0", "frame 3 has a box that is not finite", "expected"]),
    "inverted": (
        spoil_inverted,
        ["video 'a': tube 0", "frame 3 has an empty or inverted box", "expected [x1, y1, x2, y2]"],
    ),
    "class": (spoil_unknown_class, ["tube 0", "unknown class 'rihgt'; did you mean 'right'?"]),
    "no videos": (spoil_no_videos, ["squares: no videos; there is nothing to build records from"]),
    "path": (spoil_outside_path, ["video 'a'", "'../../a.avi' leaves the", "move the file"]),
    "JSON": (spoil_json, ["annotations.json: is not valid JSON"]),
    "no annotations": (spoil_missing_annotations, ["annotations.json: cannot be read: No such"]),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_records_are_not_built(run_program, scene, name):
    spoil, parts = DATA_SETS[name]
    spoil(scene)
    arguments = ["--annotations", scene.annotations, "--output", scene.output, "--workers", 1]
    check(run_program, "prepare", arguments, parts=parts)
    # Decoded videos stay, for the next try. What makes a folder of records does not exist.
    left = [path for path in files_below(scene.output) if not path.parts[0].startswith("partial-")]
    assert left == []
    assert not list(scene.output.rglob("*.tmp*"))


def test_records_below_a_file(run_program, scene):
    arguments = ["--annotations", scene.annotations, "--output", scene.below_a_file()]
    parts = [str(scene.folder / "file" / "output"), "cannot be written", "choose another"]
    check(run_program, "prepare", arguments, parts=parts)


def test_records_of_something_else(run_program, scene):
    before = files_below(scene.records)
    arguments = ["--annotations", scene.annotations, "--output", scene.records]
    parts = [str(scene.records), "other annotations or options; choose another output folder"]
    check(run_program, "prepare", arguments, parts=parts)
    assert files_below(scene.records) == before


# --- configurations -------------------------------------------------------------------------------

CONFIGURATIONS = {
    "misspelt key": ({"train__stepz": 5}, ["--config.train.stepz: no such key", '"steps"']),
    "misspelt section": ({"trian__steps": 5}, ["--config.trian.steps: no such key", '"train"']),
    "not a number": ({"train__steps": "many"}, ["--config.train.steps=many", "invalid literal"]),
    "not a list": ({"model__extension_plan": "yes"}, ["model.extension_plan ('yes',)", "expec"]),
    "a list": ({"train__steps": (1, 2)}, ["--config.train.steps=(1, 2)"]),
    "batch size": (
        {"train__batch_size": 6},
        ["batch size 6 does not divide over 4 devices; use a multiple, e.g. 4"],
    ),
    "no steps": ({"train__steps": 0}, ["train.steps is 0; expected 1 or more"]),
    "no interval": ({"train__log_every_steps": 0}, ["train.log_every_steps is 0; expected 1 or"]),
    "image size": ({"data__image_size": 50}, ["data.image_size is 50", "a multiple of", "8"]),
    "backbone": ({"model__backbone": "tinny"}, ["model.backbone 'tinny'", "expected one of tiny"]),
    "option": (
        {"model__backbone_options__featurs": 8},
        ["--config.model.backbone_options.featurs: no such key", '"features"'],
    ),
    "clip": ({"model__clip_frames": 0}, ["model.clip_frames 0", "expected a positive multiple"]),
    "extension": ({"model__extension": "guess"}, ["extension 'guess'", "expected one of anticip"]),
    "plan": (
        {"model__extension_plan": (True, True)},
        ["model.extension_plan (True, True)", "expected"],
    ),
    "classification": (
        {"model__classification": "hinge"},
        ["classification 'hinge'", "expected one of softmax"],
    ),
    "pooling": ({"model__roi_mode": "max"}, ["roi_mode 'max'", "expected one of align"]),
    "proposals": ({"proposals": 12}, ["12 proposals", "11, 34", "give (scale, overlap) pairs"]),
    "thresholds": ({"loss__thresholds": (0.5,)}, ["loss.thresholds (0.5,)", "2 steps"]),
    "schedule": ({"optimizer__schedule": "cosin"}, ["schedule 'cosin'", "expected one of"]),
    "no records": ({"data__records": ""}, ["data.records is empty: give --config.data.records="]),
    "wrong records": (
        {"data__records": "/nowhere"},
        ["/nowhere: no complete clip records", "build them with `python -m input_pipeline.prep"],
    ),
    "empty split": (
        {"data__train_split": "val"},
        ["records: no split 'val'; the splits are: 'train', 'test'"],
    ),
    "short halo": (
        {"model__clip_frames": 4},
        ["records: the records keep 2 frames before", "build the records with --halo_before 4"],
    ),
    "many tubes": ({"data__max_tubes": 0}, ["video 'a' has 1 tubes", "set it to 1 or more"]),
    "background": ({"data__background": "drop"}, ["background is 'drop'; expected 'keep' or 's"]),
    "flip": ({"augment__flip_swaps": (("left", "rihgt"),)}, ["'rihgt'"]),
    "unevaluable": (
        {"train__eval_every_steps": 5, "eval__batch_size": 5},
        ["batch size 5 does not divide over 4 devices"],
    ),
    "no tubes": (
        {"train__eval_every_steps": 5, "eval__tubes": True, "eval__stride": 2},
        ["windows of 2 frames every 2 frames share none"],
    ),
}


@pytest.fixture
def cheap(monkeypatch):
    """For what is wrong with the data: parameters that take no time."""
    monkeypatch.setattr("train.init_variables", tiny_run.cheap_variables)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_training_does_not_begin(run_program, cheap, scene, name):
    changes, parts = CONFIGURATIONS[name]
    check(run_program, "train", scene.flags(**changes), parts=parts)
    left = os.listdir(scene.output) if scene.output.exists() else []
    assert set(left) <= {"config.json", "parameters.txt", "checkpoints"}
    assert not list(scene.output.glob("checkpoints/*"))


def test_a_corrected_configuration_needs_no_other_folder(run_program, cheap, scene, monkeypatch):
    flags = scene.flags(data__max_tubes=0)
    check(run_program, "train", flags, parts=["set it to 1 or more"])
    monkeypatch.setattr("train.TrainingLog", stop_here)
    with pytest.raises(RuntimeError, match="the log is opened: all else went well"):
        run_program("train", *scene.flags(data__max_tubes=1))


def stop_here(*arguments, **options):
    raise RuntimeError("the log is opened: all else went well")


@pytest.mark.parametrize(
    ("left_out", "parts"),
    [
        ("--config", ["--config is missing", "e.g. configs/moving_actors.py"]),
        ("--workdir", ["--workdir is missing: give the folder of the run"]),
    ],
)
def test_missing_flags(run_program, scene, left_out, parts):
    flags = [flag for flag in scene.flags() if not flag.startswith(left_out)]
    check(run_program, "train", flags, parts=parts)


def test_no_such_configuration_file(run_program, scene):
    flags = ["--config=configs/moving_actor.py", f"--workdir={scene.output}"]
    check(run_program, "train", flags, parts=["configs/moving_actor.py", "No such file"])


# --- records and run folders ----------------------------------------------------------------------


def test_records_of_another_version(run_program, scene):
    path = scene.records / "records.json"
    document = json.loads(path.read_text()) | {"version": 99}
    path.write_text(json.dumps(document))
    parts = [str(path), "version 99; expected", "build the records again in a new folder"]
    check(run_program, "train", scene.flags(), parts=parts)


def test_records_that_lack_a_file(run_program, cheap, scene):
    shard = next(scene.records.rglob("*.tfrecord*"))
    shard.unlink()
    parts = [shard.name, "is missing; copy it again, or build the records again"]
    check(run_program, "train", scene.flags(), parts=parts)


def test_records_that_are_cut_off(run_program, cheap, scene):
    for shard in scene.records.rglob("*train*.tfrecord*"):
        shard.write_bytes(shard.read_bytes()[:-100])
    parts = ["train", "build the records again"]
    check(run_program, "train", scene.flags(), parts=parts)
    assert not list(scene.output.glob("checkpoints/*"))


def test_a_folder_below_a_file(run_program, scene):
    flags = [flag for flag in scene.flags() if not flag.startswith("--workdir")]
    parts = ["--workdir", "file/output: cannot be made: Not a directory; choose another folder"]
    check(run_program, "train", [*flags, f"--workdir={scene.below_a_file()}"], parts=parts)


def test_another_configuration_in_the_same_folder(run_program, scene):
    before = files_below(scene.copy_run())
    parts = ["optimizer.learning_rate was 0.002, is 0.5", "or choose another --workdir"]
    check(run_program, "train", scene.flags(optimizer__learning_rate=0.5), parts=parts)
    assert files_below(scene.output) == before


def test_a_checkpoint_of_another_architecture(run_program, scene):
    (scene.copy_run() / "config.json").unlink()
    before = files_below(scene.output / "checkpoints")
    flags = scene.flags(model__extension="anticipate", model__backbone_options__num_blocks=0)
    parts = [
        str(scene.output / "checkpoints" / str(tiny_run.STEPS)),
        "missing params/heads_0/box_after/bias",
        "surplus params/backbone/conv_0/bias",
        "use the configuration that it was trained with",
    ]
    check(run_program, "train", flags, parts=parts)
    assert files_below(scene.output / "checkpoints") == before


def test_damaged_checkpoints(run_program, scene):
    """One is an error where it is asked for; to training all of them are one, which goes back."""
    checkpoints = scene.copy_run() / "checkpoints"
    latest = checkpoints / str(tiny_run.STEPS)
    shutil.rmtree(latest / "model" / "ocdbt.process_0")
    (latest / "model" / "manifest.ocdbt").write_bytes(b"")
    parts = [f"{latest} is damaged", "ask for another one"]
    check(run_program, "evaluate", [f"--workdir={scene.output}"], parts=parts)
    assert not (scene.output / "eval").exists()
    (checkpoints / "9" / "training" / "_METADATA").unlink()
    before = files_below(checkpoints)
    parts = ["no checkpoint can be used", f"{latest} is damaged", f"{checkpoints / '9'} is damaged"]
    check(run_program, "train", scene.flags(), parts=[*parts, "choose another --workdir"])
    assert files_below(checkpoints) == before


def test_nothing_to_replay(run_program, scene):
    path = scene.copy_run() / "finished.json"
    flags = [f"--workdir={scene.output}", f"--replay={path}"]
    check(run_program, "train", flags, parts=[f"{path}: not a failed step", "WORKDIR/failures"])


# --- evaluation -----------------------------------------------------------------------------------


def spoil_table(scene):
    (scene.folder / "table.parquet").write_text("not Parquet")
    return [f"--detections={scene.folder / 'table.parquet'}"]


def other_classes(scene):
    path = scene.folder / "data" / "other.json"
    document = json.loads(scene.annotations.read_text())
    document["classes"] = ["up", "down", "right", "left"]
    path.write_text(json.dumps(document))
    return [f"--config={tiny_run.CONFIG}", f"--config.data.annotations={path}"]


EVALUATIONS = {
    "no such step": (
        lambda scene: ["--checkpoint=10"],
        ["checkpoint '10': expected 'latest', 'best' or one of the steps [9, 12]"],
    ),
    "no best": (lambda scene: ["--checkpoint=best"], ["was evaluated", "run evaluate.py first"]),
    "batch size": (
        lambda scene: scene.flags(eval__batch_size=3),
        ["batch size 3 does not divide over 4 devices"],
    ),
    "split": (
        lambda scene: scene.flags(data__eval_split="val"),
        ["no split 'val'; the splits are: 'train', 'test'"],
    ),
    "no annotations": (
        lambda scene: scene.flags(data__annotations=""),
        ["data.annotations is empty: give --config.data.annotations=FILE"],
    ),
    "missing annotations": (
        lambda scene: scene.flags(data__annotations="/nowhere.json"),
        ["/nowhere.json: cannot be read: No such file"],
    ),
    "no table": (spoil_table, ["table.parquet: cannot be read as a detections table"]),
    "missing table": (
        lambda scene: ["--detections=/nowhere/table.parquet"],
        ["/nowhere/table.parquet: cannot be read as a detections table"],
    ),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_nothing_is_evaluated(run_program, scene, name):
    arguments, parts = EVALUATIONS[name]
    scene.copy_run()
    flags = [f"--workdir={scene.output}", *arguments(scene)]
    check(run_program, "evaluate", flags, parts=parts)
    assert evaluations.read_metrics(scene.output) == {}
    assert not list(scene.output.rglob("*.tmp*"))


def test_evaluation_without_a_run(run_program, scene):
    check(run_program, "evaluate", [], parts=["--workdir is missing: give the folder"])
    check(
        run_program,
        "evaluate",
        [f"--workdir={scene.output}"],
        parts=[str(scene.output / "config.json"), "missing; give the --workdir of a training run"],
    )
    check(
        run_program,
        "evaluate",
        scene.flags(),
        parts=[str(scene.output / "checkpoints"), "no checkpoints there; give the --workdir"],
    )
    assert not scene.output.exists()


# --- detection ------------------------------------------------------------------------------------


def test_detection_without_checkpoints(run_program, scene):
    arguments = ["--workdir", scene.output, "--video", scene.folder / "data" / "a.avi"]
    parts = [str(scene.output / "checkpoints"), "give the --workdir of a training run"]
    check(run_program, "detect", arguments, parts=parts)
    assert not scene.output.exists()


def test_detection_in_a_missing_video(run_program, scene):
    before = files_below(scene.copy_run())
    arguments = ["--workdir", scene.output, "--video", scene.folder / "none.mp4"]
    check(run_program, "detect", arguments, parts=["none.mp4: no such file", "check the path"])
    assert files_below(scene.output) == before


# --- processes of their own -----------------------------------------------------------------------


def check_process(process, *, parts):
    """As `check`; nothing but the line is printed, not even by the libraries that start up."""
    _, errors = process.communicate()
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("error: ")
    for part in parts:
        assert part in errors


@pytest.mark.slow
def test_libraries_keep_quiet(scene, compilation_cache):
    """TensorFlow is loaded when the records are opened, orbax when checkpoints are."""
    flags = scene.flags(data__max_tubes=0)
    process = tiny_run.start("train.py", *flags, cache=compilation_cache)
    check_process(process, parts=["set it to 1 or more"])
    shutil.rmtree(scene.output)
    flags = [f"--workdir={scene.copy_run()}", "--checkpoint=7"]
    process = tiny_run.start("evaluate.py", *flags, cache=compilation_cache)
    check_process(process, parts=["checkpoint '7': expected"])


@pytest.mark.slow
def test_a_full_disk(scene, compilation_cache):
    """No file can grow beyond 12 kB: enough for the configuration, not for the checkpoint."""
    # Nor for a compiled program, about which JAX would complain.
    process = tiny_run.start("train.py", *scene.flags(), cache=compilation_cache, fills_cache=False)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (12_000, 12_000))
    parts = [
        str(scene.output / "checkpoints"),
        "a checkpoint could not be written (File too large)",
        "make room there and run the same command again",
    ]
    check_process(process, parts=parts)
    assert os.listdir(scene.output / "checkpoints") == []


def test_annotations_without_a_video_cannot_be_built(run_program, scene):
    """All videos of one split taken away: the other is not enough to train on."""
    write_native(scene.annotations, Annotations("empty", ("walk",), (), scene.folder))
    arguments = ["--annotations", scene.annotations, "--output", scene.output]
    check(run_program, "prepare", arguments, parts=["empty: no videos; there is nothing to build"])
    assert not scene.output.exists()
