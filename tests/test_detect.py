"""The command: its arguments, several videos, and a real checkpoint from end to end."""

import json
import os
import pathlib
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import detect
from step_jax.checkpoint import Checkpoints
from step_jax.detections import read_detections
from step_jax.errors import InputError
from step_jax.inference import describe
from step_jax.modality import RGB, Modality
from step_jax.models.factory import build_detector
from step_jax.train_state import create_train_state, init_variables
from step_jax.visualize import overlay

CLASSES = ("walk", "hop")
NOT_UTF8 = os.fsdecode(b"vid\xe9o")
MODEL = {
    "backbone": "tiny",
    "backbone_options": {"stem_features": 4, "features": 8},
    "head": "two_branch",
    "head_options": {
        "global_features": (8,),
        "global_kernels": ((1, 3, 3),),
        "local_features": (8, 8),
    },
    "clip_frames": 2,
    "extension_plan": (False, True),
    "extension": "extrapolate",
    "classification": "softmax",
    "regression": "per_class",
    "roi_mode": "align",
    "pool_size": 3,
    "scene_context": False,
    "precision": "float32",
}


def save_checkpoint(workdir, *, image_size=48, step=30):
    """A detector with random parameters, as a training run would leave it."""
    detector = build_detector(num_classes=len(CLASSES), **MODEL)
    shapes = jax.eval_shape(  # compiling the real initialisation would take longer than the test
        lambda: init_variables(
            detector, image_size=image_size, num_proposals=11, key=jax.random.key(0)
        )
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype), shapes
    )
    state = create_train_state(variables, optax.sgd(0.1)).replace(step=jnp.int32(step))
    description = describe(
        model=MODEL, classes=CLASSES, image_size=image_size, fps=0.0, proposals=11
    )
    checkpoints = Checkpoints(workdir)
    checkpoints.save(state, description)
    checkpoints.wait()
    checkpoints.close()


def make_frames(folder, count, *, seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        frame = rng.integers(0, 256, (30, 40, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame)
    return folder


@pytest.fixture
def run(monkeypatch):
    """Runs the command in this process; returns its exit status."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["detect.py", *map(str, arguments)])
        return detect.main()

    monkeypatch.setattr(overlay, "SHORTEST_PANEL_PX", 48)
    monkeypatch.setattr(overlay, "SHORTEST_PX", 48)
    return run


def test_from_checkpoint_to_files(tmp_path, run, capsys):
    save_checkpoint(tmp_path / "run")
    folder = make_frames(tmp_path / "yard", 7)
    status = run("--workdir", tmp_path / "run", "--video", folder, "--all_steps",
                 "--score_threshold", "0.2", "--fps", "10", "--stride", "1")  # fmt: skip
    assert status == 0
    output = tmp_path / "run" / "detections"
    assert sorted(path.name for path in output.iterdir()) == [
        "yard.json", "yard.parquet", "yard.webm",
    ]  # fmt: skip
    told = json.loads((output / "yard.json").read_text())
    assert (told["frames"], told["fps"], told["checkpoint"]) == (7, 10.0, 30)
    table = read_detections(output / "yard.parquet")
    assert table.classes == CLASSES
    assert set(table.step) == {1, 2}
    assert set(table.frame) == set(range(7))
    # Windows 0 to 5 and 11 proposals: the last window's tubelets are numbered 55 to 65.
    assert table.tubelet.max() < 66
    printed = capsys.readouterr().out
    assert "yard: 7 frames, 0.7 s at 10 fps" in printed
    assert str(output / "yard.webm") in printed


@pytest.fixture
def fake_detection(monkeypatch):
    """Replaces the detector; records which videos were looked at, fails for those named bad."""
    seen = []

    def detect_video(name, path, predictor, settings):
        if name.startswith("bad"):
            raise InputError(f"{path}: broke off")
        seen.append(name)
        return types.SimpleNamespace(text=lambda: f"{name} done", expected=100, frames=50)

    monkeypatch.setattr(detect, "load_predictor", lambda *_: predictor())
    monkeypatch.setattr(detect, "compile_predictor", lambda *_, **__: None)
    monkeypatch.setattr(detect, "detect_video", detect_video)
    return seen


def predictor(modality=RGB, flow=""):
    return types.SimpleNamespace(
        clip_frames=6,
        num_steps=3,
        classes=("walk", "run", "hop"),
        input_frames=6,
        image_size=32,
        modality=modality,
        flow=flow,
    )


def make_video(path):
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32)
    )
    for _ in range(3):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()


def test_bad_videos_do_not_stop_the_others(tmp_path, run, fake_detection, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "bad_in_the_middle", "c"):
        make_video(folder / f"{name}.avi")
    (folder / "b.avi").write_bytes((folder / "a.avi").read_bytes()[:-500])
    assert run("--workdir", tmp_path, "--video", folder) == 1
    assert fake_detection == ["a", "c"]
    printed = capsys.readouterr()
    assert "b.avi: is truncated" in printed.err
    assert "bad_in_the_middle.avi: broke off" in printed.err
    assert "promises 100 frames, but only 50" in printed.err
    assert "a done" in printed.out


def test_a_name_that_is_no_utf8_does_not_stop_the_others(tmp_path, run, fake_detection, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "a.avi")
    (folder / NOT_UTF8).with_suffix(".avi").write_bytes((folder / "a.avi").read_bytes())
    assert run("--workdir", tmp_path, "--video", folder) == 1
    assert fake_detection == ["a"]
    assert "is not UTF-8; rename it" in capsys.readouterr().err
    frames = make_frames(tmp_path / "frames", 3).rename(tmp_path / NOT_UTF8)
    assert run("--workdir", tmp_path, "--video", frames) == 1
    assert "is not UTF-8; rename it" in capsys.readouterr().err


def test_other_files_of_a_folder_are_told_in_one_line(tmp_path, run, fake_detection, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "a.avi")
    for number in range(12):
        (folder / f"{number:02d}.srt").touch()
    assert run("--workdir", tmp_path, "--video", folder) == 0
    assert fake_detection == ["a"]
    [line] = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert line.startswith(f"{folder}: ")
    assert line.endswith("08.srt, 09.srt and 2 more")


def test_results_do_not_become_videos_to_look_at(tmp_path, run, fake_detection):
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "a.avi")
    with pytest.raises(InputError, match=r"--output .*videos: is the folder of --video"):
        run("--workdir", tmp_path, "--video", folder, "--output", tmp_path / "none/../videos")
    assert fake_detection == []
    assert run("--workdir", tmp_path, "--video", folder / "a.avi", "--output", folder) == 0


def test_no_good_video_needs_no_detector(tmp_path, run, capsys):
    assert run("--workdir", tmp_path / "none", "--video", tmp_path / "missing.mp4") == 1
    assert "missing.mp4: no such file" in capsys.readouterr().err


def settings(monkeypatch, *more, **detector):
    monkeypatch.setattr("sys.argv", ["detect.py", "--workdir", "w", "--video", "v", *more])
    return detect.choose_settings(detect.parse_arguments(), predictor(**detector))


def test_defaults(monkeypatch):
    chosen = settings(monkeypatch)
    assert chosen.output == pathlib.Path("w/detections")
    assert (chosen.stride, chosen.step, chosen.panels, chosen.labels) == (3, 3, (3,), None)
    assert chosen.batch_size % jax.local_device_count() == 0


@pytest.mark.parametrize(
    ("backend", "frames", "side", "expected"),
    [("cpu", 36, 400, 1), ("cpu", 60, 400, 1), ("cpu", 30, 96, 8), ("cpu", 18, 400, 2),
     ("gpu", 36, 400, 8)],
)  # fmt: skip
def test_a_host_gets_as_many_windows_as_it_can_hold(monkeypatch, backend, frames, side, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    of_that_size = types.SimpleNamespace(input_frames=frames, image_size=side)
    assert detect._batch_size(None, of_that_size) == expected
    assert detect._batch_size(12, of_that_size) == 12


def test_choices(monkeypatch):
    chosen = settings(
        monkeypatch, "--step", "2", "--all_steps", "--limit_classes", "hop", "walk", "hop"
    )
    assert (chosen.step, chosen.panels, chosen.labels) == (2, (0, 1, 2), (0, 2))
    assert settings(monkeypatch, "--no_video", "--all_steps").panels == ()


def test_flow_is_computed_as_in_training_or_as_asked(monkeypatch):
    early = {"modality": Modality("early"), "flow": "dis"}
    assert settings(monkeypatch).flow is None
    assert settings(monkeypatch, **early).flow.method == "dis"
    distributed = early | {"flow": "brox-images"}
    assert settings(monkeypatch, "--flow", "dis", **distributed).flow.method == "dis"
    with pytest.raises(InputError, match=r"--flow is missing.*'brox-images'.*dis, tvl1, brox"):
        settings(monkeypatch, **distributed)
    with pytest.raises(InputError, match="--flow dis: this detector reads RGB alone"):
        settings(monkeypatch, "--flow", "dis")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", "7"], "--stride 7: expected 1 to 6"),
        (["--step", "0"], "--step 0: expected 1 to 3"),
        (["--score_threshold", "30"], "expected 0 to 1"),
        (["--score_threshold", "nan"], "expected 0 to 1"),
        (["--limit_classes", "runn"], "no class 'runn'; did you mean 'run'"),
        (["--batch_size", "0"], "batch size 0"),
        (["--output", __file__], "is a file"),
        (["--output", NOT_UTF8], "is not UTF-8; rename it"),
    ],
)
def test_wrong_arguments(monkeypatch, arguments, message):
    with pytest.raises(InputError, match=message):
        settings(monkeypatch, *arguments)
