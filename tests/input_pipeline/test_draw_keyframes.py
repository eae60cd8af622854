"""The command that draws AVA's keyframes out of the records."""

import argparse

import ava_records
import numpy as np
import pytest

from input_pipeline import draw_keyframes
from step_jax.annotations.ava_csv import read_detections_csv
from step_jax.annotations.ava_folder import open_ava_folder
from step_jax.cli import run_command


@pytest.fixture(scope="module")
def ava(tmp_path_factory):
    from input_pipeline.accelerators import hide_accelerators

    hide_accelerators()
    folder = tmp_path_factory.mktemp("ava")
    ava_records.write_annotations(folder / "csv")
    ava_records.write_records(folder / "records")
    (folder / "d.csv").write_text("d,0902,.1,.1,.5,.5,12,.3\nd,0902,.1,.1,.5,.5,3,.9\n")
    return folder


def run(ava, monkeypatch, *more):
    flags = ["--records", ava / "records", "--annotations", ava / "csv", "--output", ava / "p.png"]
    monkeypatch.setattr("sys.argv", ["draw", *map(str, (*flags, *more))])
    with pytest.raises(SystemExit) as exit_:
        run_command(draw_keyframes.main)
    return exit_.value.code


def test_pictures_are_those_of_the_keyframes(ava):
    """Each once, from the record that holds it, in the colours of RGB."""
    labels = open_ava_folder(ava / "csv", "2.1").labels("train")
    shown = list(draw_keyframes.read_keyframes(ava / "records", "train", labels, count=99))
    wanted = sorted(
        {(labels.videos[v], int(t)) for v, t in zip(labels.video, labels.timestamp, strict=False)}
    )
    assert sorted((video, second) for video, second, _ in shown) == wanted
    for video, second, frame in shown:
        assert ava_records.identify(frame) == (video, 12 * (second - 900))
    few = list(draw_keyframes.read_keyframes(ava / "records", "train", labels, count=3))
    assert len(few) == 3


def test_texts(ava):
    folder = open_ava_folder(ava / "csv", "2.2")
    labels, found = folder.labels("val"), read_detections_csv(ava / "d.csv")
    told = argparse.Namespace(top=5, min_score=0.2)
    frame = np.zeros((24, 32, 3), np.uint8)
    label_map = folder.label_map()
    drawn = draw_keyframes.keyframe_picture("d", 902, frame, labels, found, label_map, told)
    assert drawn.found_texts == ["class3 0.90", "class12 0.30"]
    people = labels.person_id[(labels.timestamp == 902)]
    assert len(drawn.true_boxes) == len(set(people.tolist()))
    (ava / "other.csv").write_text("d,0902,.1,.1,.5,.5,11,.9\n")  # none of the label map's
    other = read_detections_csv(ava / "other.csv")
    drawn = draw_keyframes.keyframe_picture("d", 902, frame, labels, other, label_map, told)
    assert drawn.found_texts == ["(11) 0.90"]
    told.top, told.min_score = 1, 0.95
    drawn = draw_keyframes.keyframe_picture("d", 902, frame, labels, found, label_map, told)
    assert len(drawn.found_boxes) == 0


def test_command(ava, monkeypatch, capsys):
    assert run(ava, monkeypatch, "--detections", ava / "d.csv", "--count", 2) == 0
    assert "d 902, d 9" in capsys.readouterr().out
    assert (ava / "p.png").stat().st_size > 1000
    assert run(ava, monkeypatch, "--count", 0) == 1
    assert "--count is 0; expected 1 or more" in capsys.readouterr().err
    assert run(ava, monkeypatch, "--videos", "x*") == 1
    assert "no video matches 'x*'" in capsys.readouterr().err
