"""One video from file to table, drawn video and summary, with a detector made of arithmetic."""

import json
import os
import weakref
from dataclasses import replace

import numpy as np
import pytest

from step_jax.detections import DetectionsWriter, read_detections
from step_jax.errors import InputError
from step_jax.flow.methods import Estimator
from step_jax.modality import Modality
from step_jax.streaming import video_run
from step_jax.streaming.video_run import Settings, detect_video
from step_jax.video import VideoWriter, probe, read_frames
from step_jax.visualize import overlay


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(overlay, "SHORTEST_PX", 48)
    monkeypatch.setattr(overlay, "SHORTEST_PANEL_PX", 48)


def settings(tmp_path, **changes):
    output = tmp_path / "out"
    output.mkdir(exist_ok=True)
    defaults = {"stride": 2, "batch_size": 4, "score_threshold": 0.5, "step": 2, "panels": (2,)}
    return Settings(output=output, **defaults | changes)


def test_files_of_a_video(tmp_path, arithmetic, frame_folder):
    folder = frame_folder(9)
    report = detect_video("numbers", folder, arithmetic.Predictor(), settings(tmp_path))
    assert [file.name for file in report.files] == [
        "numbers.webm",
        "numbers.parquet",
        "numbers.json",
    ]
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(report.files)

    table = read_detections(report.files[1])
    assert set(table.frame) == set(range(9))
    assert set(table.step) == {1, 2}
    assert table.header.provenance["checkpoint"] == "70"
    info = probe(report.files[0])
    assert (info.width, info.height, round(info.fps)) == (64, 48, 25)
    assert len(list(read_frames(report.files[0]))) == 9

    told = json.loads(report.files[2].read_text())
    assert (told["frames"], told["fps"], told["detector_step"]) == (9, 25.0, 2)
    assert set(told["seconds"]) == {"read", "detect", "select", "table", "draw", "encode"}
    shown = table.take((table.step == 2) & (table.score >= 0.5))
    for label, name in enumerate(table.classes):
        mine = shown.label == label
        assert told["classes"][name]["frames"] == len(np.unique(shown.frame[mine]))
        assert told["classes"][name]["best_score"] == pytest.approx(shown.score[mine].max())


def test_every_frame_is_drawn_with_its_own_boxes(tmp_path, arithmetic, frame_folder, monkeypatch):
    drawn = []

    class Recorder(overlay.Overlay):
        def __call__(self, frame, found):
            drawn.append((int(frame[0, 0, 0]), {s: set(b.tubelet) for s, b in found.items()}))
            return super().__call__(frame, found)

    monkeypatch.setattr(video_run, "Overlay", Recorder)
    report = detect_video(
        "numbers",
        frame_folder(11),
        arithmetic.Predictor(),
        settings(tmp_path, panels=(0, 1, 2), labels=(1,)),
    )
    drawn = drawn[1:]  # the first asks for the picture's size
    assert [number for number, _ in drawn] == list(range(11))
    table = read_detections(report.files[1])
    for number, found in drawn:
        for step in (1, 2):
            here = (table.frame == number) & (table.step == step)
            here &= (table.score >= 0.5) & (table.label == 1)
            assert found[step] <= set(table.tubelet[here])
            assert bool(found[step]) == here.any()


def test_another_rate(tmp_path, arithmetic, frame_folder):
    predictor = arithmetic.Predictor(fps=10.0)
    report = detect_video("slow", frame_folder(10), predictor, settings(tmp_path, panels=()))
    assert (report.frames, report.fps, report.expected) == (4, 10.0, 4)
    assert [file.suffix for file in report.files] == [".parquet", ".json"]


def constant_flow(batch):
    def compute(first, second):
        return np.zeros((*first.shape, 2), np.float32)

    return Estimator("constant", {}, compute, batch=batch)


def test_flow_is_timed_and_told(tmp_path, arithmetic, frame_folder):
    predictor = arithmetic.Predictor(modality=Modality("early"))
    chosen = settings(tmp_path, flow=constant_flow(batch=4), panels=())
    report = detect_video("numbers", frame_folder(9), predictor, chosen)
    assert report.frames == 9
    assert {channels for *_, channels in predictor.shapes} == {18}
    assert "flow" in report.seconds
    assert read_detections(report.files[0]).header.provenance["flow"] == "constant"


@pytest.mark.parametrize("name", ["rgb", "early"])
def test_memory_does_not_grow_with_the_video(tmp_path, arithmetic, frame_folder, monkeypatch, name):
    alive, most = 0, 0

    def gone():
        nonlocal alive
        alive -= 1

    def endless(path, **_):
        nonlocal alive, most
        for number in range(150):
            frame = np.full((30, 40, 3), number, np.uint8)
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield number / 25, frame

    monkeypatch.setattr(video_run, "read_frames", endless)
    flow = constant_flow(batch=3) if name == "early" else None
    chosen = settings(tmp_path, stride=1, batch_size=4, panels=(), flow=flow)
    predictor = arithmetic.Predictor(modality=Modality(name))
    report = detect_video("long", frame_folder(2), predictor, chosen)
    assert report.frames == 150
    assert most <= 7 + 2 * 4 + 3 + (4 + 3 if flow else 0)  # lookahead, and frames at once


def test_a_video_that_breaks_off_leaves_nothing(tmp_path, arithmetic, frame_folder):
    folder = frame_folder(9)
    (folder / "0008.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"0008\.png"):
        detect_video("broken", folder, arithmetic.Predictor(), settings(tmp_path))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("broken", ["drawn video", "table", "summary"])
def test_all_files_are_replaced_or_none(tmp_path, arithmetic, frame_folder, monkeypatch, broken):
    folder, chosen = frame_folder(5), settings(tmp_path)
    report = detect_video("numbers", folder, arithmetic.Predictor(), chosen)
    before = {file: file.read_bytes() for file in report.files}

    def full(*_):
        raise InputError("no room on the disk")

    owner, method = {
        "drawn video": (VideoWriter, "_close"),
        "table": (DetectionsWriter, "_flush"),
        "summary": (video_run, "write_json"),
    }[broken]
    monkeypatch.setattr(owner, method, full)
    with pytest.raises(InputError, match="no room on the disk"):
        detect_video("numbers", folder, arithmetic.Predictor(), replace(chosen, stride=1))
    assert {file: file.read_bytes() for file in chosen.output.iterdir()} == before


def test_a_run_killed_between_two_files_can_be_repeated(
    tmp_path, arithmetic, frame_folder, monkeypatch
):
    folder, chosen = frame_folder(5), settings(tmp_path)

    def killed(source, target, rename=os.replace):
        rename(source, target)
        if target.parent == chosen.output:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            detect_video("numbers", folder, arithmetic.Predictor(), chosen)
    assert len(list(chosen.output.iterdir())) == 1
    assert len(detect_video("numbers", folder, arithmetic.Predictor(), chosen).files) == 3


def test_the_result_does_not_replace_the_video(tmp_path, arithmetic):
    chosen = settings(tmp_path)
    video = chosen.output / "mine.webm"
    video.write_bytes(b"precious")
    with pytest.raises(InputError, match="would replace it"):
        detect_video("mine", video, arithmetic.Predictor(), chosen)
    assert video.read_bytes() == b"precious"


@pytest.mark.parametrize("panels", [(), (2,)])
@pytest.mark.parametrize("name", ["mine.webm", "mine.parquet", "mine.json"])
def test_the_result_replaces_no_other_file(tmp_path, arithmetic, frame_folder, name, panels):
    chosen = settings(tmp_path, panels=panels)
    (chosen.output / name).write_text('{"video": "precious"}')
    with pytest.raises(InputError, match=rf"would replace .*{name}, which was not made of it"):
        detect_video("mine", frame_folder(5), arithmetic.Predictor(), chosen)
    assert [file.name for file in chosen.output.iterdir()] == [name]
    assert (chosen.output / name).read_text() == '{"video": "precious"}'


def test_results_are_replaced_by_those_of_the_same_video_alone(
    tmp_path, arithmetic, frame_folder, monkeypatch
):
    (tmp_path / "clip1").mkdir()
    (tmp_path / "clip2").mkdir()
    first, second = frame_folder(5, "clip1/frames"), frame_folder(7, "clip2/frames")
    chosen, summary = settings(tmp_path), tmp_path / "out" / "frames.json"
    detect_video("frames", first, arithmetic.Predictor(), settings(tmp_path, panels=()))
    with pytest.raises(InputError, match=r"clip2/frames: the result would replace .*frames"):
        detect_video("frames", second, arithmetic.Predictor(), chosen)
    monkeypatch.chdir(tmp_path)
    relative = first.relative_to(tmp_path)
    detect_video("frames", relative, arithmetic.Predictor(), chosen)
    told = json.loads(summary.read_text())
    assert told["video"] == str(first)
    summary.write_text(json.dumps({**told, "video": str(relative)}))  # as it once was
    assert detect_video("frames", first, arithmetic.Predictor(), chosen).frames == 5
