"""The commands on files alone: what they print and write, without JAX."""

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up import make_annotations, make_tubelets, truth_as_tubelets
from PIL import Image

from step_jax.annotations import write_native
from step_jax.clip_detections import clip_rows
from step_jax.detections import DetectionsWriter
from step_jax.metrics import tubelet_frames
from step_jax.metrics.ucf101_24 import __main__ as command
from step_jax.metrics.ucf101_24 import choose_trimming
from step_jax.metrics.ucf101_24 import link as link_command
from step_jax.metrics.ucf101_24.annotation_files import read_annotations
from step_jax.tube_table import read_tubes
from step_jax.tubelet_table import read_tubelets
from step_jax.tubelet_writer import write_tubelets

# Imports what it is told with the names given first made unimportable, then runs it as a program.
BLOCKED = """
import runpy, sys
for name in ("jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "ml_collections", "cv2"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def files(tmp_path):
    """The ground truth as a table of two steps, of which the first finds one actor of two."""
    box = np.array([4, 4, 30, 40])
    annotations = make_annotations(
        [
            (0, (0,), range(20), box + np.arange(20)[:, None]),
            (1, (1,), range(24), [box] * 24),
        ],
        classes=("walk", "run"),
        num_frames=(20, 24),
    )
    write_native(tmp_path / "a.json", annotations)
    rows = truth_as_tubelets(annotations)
    both = [
        (v, s, p, scores, tube * 64, step)
        for step in (1, 2)
        for v, s, p, scores, tube in zip(
            rows.video, rows.start, rows.proposal, rows.scores, rows.tubes, strict=True
        )
        if step == 2 or v == 0
    ]
    write_tubelets(tmp_path / "t.parquet", make_tubelets(both, classes=("walk", "run")))
    return tmp_path


def arguments(files, *more):
    fixed = {"annotations": "a.json", "detections": "t.parquet", "output": "out.json"}
    return [f"--{name}={files / value}" for name, value in fixed.items()] + list(more)


def run(monkeypatch, module, *told):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, told)])
    module.main()


def test_everything(files, monkeypatch, capsys):
    outputs = {name: files / name for name in ("r.parquet", "page.png", "tubes.parquet")}
    run(
        monkeypatch,
        command,
        *arguments(files, "--step", "1", "2", "--trim_penalty=2"),
        *(f"--parquet={outputs['r.parquet']}", f"--page={outputs['page.png']}"),
        f"--tubes={outputs['tubes.parquet']}",
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["frame-mAP", "video-mAP"]
    assert lines[1].split() == ["@0.5", ".05", ".1", ".2", ".3", ".5", ".75", ".5:.95"]
    assert lines[2].split() == ["step", "1"] + ["50.00"] * 8
    assert lines[3].split() == ["step", "1,", "trimmed"] + ["50.00"] * 8
    assert lines[4].split() == ["step", "2"] + ["100.00"] * 8
    text = "\n".join(lines)
    for part in ("frame-mAP@0.5, ACT protocol", "video-mAP, ACT protocol", "linked tubes: from raw",
                 "penalty 2.0", "missed 0.00"):  # fmt: skip
        assert part in text

    report = json.loads((files / "out.json").read_text())
    assert [step["mean"] for step in report["steps"]] == [50, 100]
    video = report["steps"][0]["video"]["linked"]
    assert video["per_class"][1]["ap"]["0.5"] == 0
    assert video["per_class"][0]["num_true_positives"]["0.95"] == 1
    table = pq.read_table(outputs["r.parquet"])
    assert len(table) == 2 * (2 + 2 * 14 * 2)
    assert b"ACT protocol" in table.schema.metadata[b"protocol"]
    chosen = [r for r in table.to_pylist() if r["metric"] == "frame" and r["class"] == "run"]
    assert [r["missed"] for r in chosen] == [100, 0]
    assert Image.open(outputs["page.png"]).size == (1240, 1753)
    assert len(read_tubes(outputs["tubes.parquet"])) == 2


def test_without_jax(files):
    """Nor anything else that training needs; the page needs matplotlib."""
    told = arguments(files, "--trim_penalty=2", f"--page={files / 'page.png'}")
    program = [sys.executable, "-c", BLOCKED, "step_jax.metrics.ucf101_24"]
    done = subprocess.run([*program, *told], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step 2, trimmed" in done.stdout
    program[-1] += ".link"
    done = subprocess.run([*program, *told[:-2]], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote 2 tubes of 2 videos" in done.stdout


def test_link(files, monkeypatch, capsys):
    run(monkeypatch, link_command, *arguments(files, "--step=1", "--min_frames=4"))
    tubes = read_tubes(files / "out.json")
    assert (len(tubes), tubes.videos[tubes.video[0]]) == (1, "v0")
    assert tubes.provenance["step"] == "1"
    assert tubes.provenance["link.min_frames"] == "4"
    assert "wrote 1 tubes of 1 videos" in capsys.readouterr().out
    run(
        monkeypatch,
        link_command,
        *arguments(files, "--trim_penalty=1", "--trim_multi_label", "--trim_min_run=3"),
    )
    tubes = read_tubes(files / "out.json")
    assert tubes.provenance["trim.multi_label"] == "True"
    assert tubes.class_scores is not None


def test_pyannot_and_a_list_of_its_test_videos(tmp_path, monkeypatch, capsys):
    """Ten frames of one video of UCF101-24's first class; the other video is for training."""
    box = np.array([[10, 20, 30, 40]] * 10)
    names = [f"Basketball/v_Basketball_g0{group}_c01" for group in (1, 2)]
    tube = {"label": 0, "sf": 0, "ef": 10, "boxes": box}
    video = {"label": 0, "numf": 10, "annotations": [tube]}
    (tmp_path / "pyannot.pkl").write_bytes(pickle.dumps(dict.fromkeys(names, video)))
    (tmp_path / "testlist.txt").write_text(names[0])
    files = f"--annotations={tmp_path / 'pyannot.pkl'}", f"--split_file={tmp_path / 'testlist.txt'}"
    annotations = read_annotations(tmp_path / "pyannot.pkl", tmp_path / "testlist.txt")
    rows = truth_as_tubelets(annotations)
    sides = np.float32([320, 240, 320, 240])
    tubes = rows.tubes * rows.tubes.dtype.type(320) / sides
    write_tubelets(tmp_path / "t.parquet", dataclasses.replace(rows, tubes=tubes))
    told = f"--detections={tmp_path / 't.parquet'}", f"--output={tmp_path / 'out.json'}"
    run(monkeypatch, command, *files, *told, "--min_frames=10")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["step", "1"] + ["100.00"] * 8


@pytest.fixture(params=["tubelets", "detections"])
def one_kind(request, files):
    """The tables of `files`, or the detections that they give in `t.parquet`'s place."""
    if request.param == "detections":
        write_as_detections(files / "t.parquet")
    return files


def write_as_detections(path, frames="all"):
    rows = read_tubelets(path)
    header = tubelet_frames.as_table_header(rows.header)
    with DetectionsWriter(path, **dataclasses.asdict(header) | {"frames": frames}) as writer:
        for row in range(len(rows)):
            one = rows.take(slice(row, row + 1))
            video, step = rows.videos[rows.video[row]], int(rows.step[row])
            how = {"videos": [video], "starts": one.start, "num_frames": [99]}
            shaped = one.scores[None], one.tubes[None]
            columns = clip_rows(*shaped, **how, stride=1, step=step, frames=frames)
            columns["tubelet"] = columns["tubelet"] + int(one.proposal[0])
            writer.append(columns)


@pytest.mark.parametrize(("video", "expected"), [("v0", "100.00"), ("v1", "0.00")])
def test_chosen_videos_of_a_table_of_all(one_kind, monkeypatch, capsys, video, expected):
    """As if the table had their rows alone: step 1 found the actor of v0."""
    told = arguments(one_kind, f"--videos={video}", "--step=1", "--thresholds=.5")
    run(monkeypatch, command, *told)
    assert capsys.readouterr().out.splitlines()[2].split()[2:4] == [expected, expected]
    report = json.loads((one_kind / "out.json").read_text())
    assert (report["num_videos"], report["num_videos_with_detections"]) == (1, int(video == "v0"))


def test_middle_frames_make_no_tubes(files, monkeypatch, capsys):
    write_as_detections(files / "t.parquet", frames="middle")
    with pytest.raises(ValueError, match="has the middle frames of windows alone"):
        run(monkeypatch, command, *arguments(files, f"--tubes={files / 'tubes.parquet'}"))
    run(monkeypatch, command, *arguments(files, f"--page={files / 'page.png'}"))
    assert capsys.readouterr().out.splitlines()[2].split() == ["step", "2", "100.00"]


def test_linking_chosen_videos(files, monkeypatch, capsys):
    run(monkeypatch, link_command, *arguments(files, "--videos=v1"))
    assert "wrote 1 tubes of 1 videos" in capsys.readouterr().out
    assert read_tubes(files / "out.json").videos == ("v1",)


def test_chosen_thresholds(files, monkeypatch, capsys):
    run(monkeypatch, command, *arguments(files, "--thresholds", "0.4", "--ap=voc"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["@0.5", ".4", ".5:.95"]
    assert lines[2].split() == ["step", "2", "100.00", "100.00", "-"]


@pytest.mark.parametrize("module", [command, link_command, choose_trimming])
@pytest.mark.parametrize("lost", ["a.json", "t.parquet"])
def test_an_input_is_never_overwritten(files, monkeypatch, module, lost):
    before = (files / lost).read_bytes()
    with pytest.raises(ValueError, match="is one of the inputs"):
        run(monkeypatch, module, *arguments(files, f"--output={files / lost}"))
    assert (files / lost).read_bytes() == before


@pytest.mark.parametrize("flag", ["parquet", "page", "tubes"])
def test_no_other_output_overwrites_the_table(files, monkeypatch, flag):
    before = (files / "t.parquet").read_bytes()
    with pytest.raises(ValueError, match="is one of the inputs"):
        run(monkeypatch, command, *arguments(files, f"--{flag}={files / 't.parquet'}"))
    assert (files / "t.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--step=3"], r"step 3: the table has steps \[1, 2\]"),
        (["--split=dev"], "no split 'dev'; the splits are: 'test'"),
        (["--annotations=finalAnnots.mat"], "finalAnnots.mat: expected native annotations"),
        (["--match_iou=2"], "match_iou is 2.0; expected 0 to 1"),
        (["--trim_penalty=-1"], "penalty is -1.0"),
        (["--iou_threshold=nan"], "iou_threshold is nan; expected 0 to 1"),
        (["--frame_nms=7"], "frame_nms is 7.0"),
        (["--tube_nms=-1"], "tube_nms is -1.0"),
        (["--clip_nms_threshold=2"], "nms_threshold is 2.0"),
        (["--clip_score_threshold=nan"], "score_threshold is nan; expected a number"),
        (["--clip_top=0"], "top is 0; expected 1 or more"),
        (["--thresholds=20"], r"thresholds are \[20.0\]"),
        (["--detections=gone.parquet"], "gone.parquet"),
    ],
)
def test_bad_input(files, monkeypatch, more, message):
    with pytest.raises((ValueError, OSError), match=message):
        run(monkeypatch, command, *arguments(files, *more))
    assert not (files / "out.json").exists()
