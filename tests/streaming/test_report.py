import pathlib

import numpy as np
import pytest

from step_jax.streaming.frame_detections import FrameBoxes
from step_jax.streaming.report import Report, clock_time, is_summary_of
from step_jax.streaming.sightings import Sightings


def report(sightings):
    return Report(
        name="yard",
        video=pathlib.Path("videos/yard.mp4"),
        frames=100,
        expected=None,
        fps=25.0,
        width=64,
        height=48,
        checkpoint=900,
        detector_step=3,
        stride=3,
        score_threshold=0.5,
        seconds={"read": 1.0, "detect": 3.00049},
        classes=("walk", "play a game"),
        sightings=sightings,
        files=(pathlib.Path("out/yard.webm"),),
    )


def seen(frames, label, score):
    sightings = Sightings()
    for frame in frames:
        found = FrameBoxes(np.array([0]), np.array([label]), np.array([score]), np.zeros((1, 4)))
        sightings.add(frame, found)
    return sightings


def test_text_is_a_table():
    lines = report(seen(range(25, 75), label=1, score=0.875)).text().splitlines()
    assert lines[1:] == [
        "yard: 100 frames, 4.0 s at 25 fps; took 4.0 s, 25.0 frames a second",
        "  class        best  frames  longest  seen",
        "  play a game  0.88      50    2.0 s  0:01.0 - 0:03.0",
        "  out/yard.webm",
    ]


def test_text_tells_what_came_closest():
    assert "nothing with a score of 0.5 or more at step 3" in report(Sightings()).text()
    sightings = Sightings()
    sightings.consider({"score": np.array([0.25]), "class": np.array([0])})
    assert "the best of all is 'walk' with 0.250" in report(sightings).text()


@pytest.mark.parametrize(
    "text", ["", "[1]", "\0", '{"video": "videos/yard.mp4"}', "[" * 100000, '{"video": "\\u0000"}']
)
def test_the_json_of_others_is_no_summary(tmp_path, text):
    (tmp_path / "yard.json").write_text(text)
    assert not is_summary_of(pathlib.Path("videos/yard.mp4"), tmp_path / "yard.json")
    assert not is_summary_of(pathlib.Path("videos/yard.mp4"), tmp_path / "none.json")


def test_json():
    told = report(seen([7, 8], label=0, score=0.75)).to_json()
    assert told["video"] == "videos/yard.mp4"
    assert told["seconds"] == {"read": 1.0, "detect": 3.0}
    assert list(told["classes"]) == ["walk"]
    assert told["classes"]["walk"]["longest_run"] == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (75.25, "1:15.2"), (59.99, "0:59.9"), (0.3, "0:00.3"), (3675, "1:01:15.0")],
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text
