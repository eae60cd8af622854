"""The penalty of trimming is the one that held-out videos like best."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube, Video, write_native
from step_jax.errors import InputError
from step_jax.metrics.ucf101_24 import choose_trimming
from step_jax.metrics.ucf101_24.choose_trimming import choose_penalty, format_trials
from step_jax.metrics.video_map import video_map
from step_jax.trimming import TrimOptions, trim
from step_jax.tube_table import Tubes, write_tubes
from step_jax.tubelet_writer import TubeletWriter

BOX = np.array([8, 8, 24, 40], np.float32)
ACTION = slice(20, 50)  # of 80 frames
NAMES = ("Run/v_Run_g21_c01", "Run/v_Run_g22_c01", "Run/v_Run_g25_c02", "Run/v_Run_g01_c01")


def make_annotations():
    frames = np.arange(80)[ACTION]
    tube = Tube((0,), frames, np.tile(BOX, (len(frames), 1)))
    videos = [
        Video(name, name, "test" if "g01" in name else "train", 25.0, 80, 64, 64, (tube,))
        for name in NAMES
    ]
    return Annotations("made_up", ("Run", "Walk"), tuple(videos), root=".")


def frame_scores():
    """High in the action but for a dip, low elsewhere but for a peak, of 11 frames each."""
    scores = np.full(80, 0.2, np.float32)
    scores[ACTION] = 0.8
    scores[30:41] = 0.45
    scores[60:71] = 0.55
    return scores


def make_tubes(names, scale=1.0):
    """One tube a video that covers all of it."""
    count = len(names)
    return Tubes(
        classes=("Run", "Walk"),
        videos=tuple(names),
        video=np.arange(count, dtype=np.int32),
        label=np.zeros(count, np.int32),
        score=np.full(count, 0.5),
        offset=np.arange(count + 1) * 80,
        frame=np.tile(np.arange(80, dtype=np.int32), count),
        boxes=np.tile(BOX, (80 * count, 1)),
        frame_score=np.tile(frame_scores() * np.float32(scale), count),
    )


def held_out():
    annotations = make_annotations()
    return dataclasses.replace(annotations, videos=annotations.videos[1:3])


def test_the_best_of_the_grid_is_chosen():
    """0 leaves the peak and cuts the dip; 100 changes nothing; .2 raw finds the action alone."""
    annotations = held_out()
    tubes = make_tubes(NAMES[1:3])
    penalties = (0, 1, 100)
    chosen, trials = choose_penalty(
        tubes, annotations, "train", threshold=0.75, penalties=penalties, normalise=(False,)
    )
    assert (chosen.penalty, chosen.normalise) == (1, False)
    assert [trial.options and trial.options.penalty for trial in trials] == [None, *penalties]
    for trial in trials:
        trimmed = trim(tubes, trial.options) if trial.options else tubes
        assert trial.mean == video_map(trimmed, annotations, "train", thresholds=[0.75]).at(0.75)
    assert [trial.mean for trial in trials] == [0, 0, 100, 0]


def test_low_scores_need_normalised_ones():
    chosen, trials = choose_penalty(
        make_tubes(NAMES[1:3], 0.5), held_out(), "train", threshold=0.75, penalties=(0.1, 1)
    )
    assert chosen.normalise
    assert [trial.mean for trial in trials[:3]] == [0, 0, 0]


def test_of_equal_ways_the_first_is_chosen():
    others = TrimOptions(penalty=7, min_run=5, top_frames=3)
    chosen, _ = choose_penalty(
        make_tubes(NAMES[1:3]),
        held_out(),
        "train",
        threshold=0.75,
        penalties=(1.2, 1),
        others=others,
    )
    assert chosen == TrimOptions(penalty=1.2, min_run=5, top_frames=3)


def test_an_empty_grid_is_refused():
    with pytest.raises(InputError, match="no penalty to try"):
        choose_penalty(make_tubes(NAMES[1:3]), held_out(), "train", threshold=0.5, penalties=())


def write_tubelets(path):
    """Windows at every frame whose tubelets have the scores of `frame_scores`, roughly."""
    starts = np.tile(np.arange(75), 3)
    count = len(starts)
    header = {"clip_frames": 6, "stride": 1, "num_steps": 1, "num_boxes": 1}
    with TubeletWriter(path, classes=("Run", "Walk"), **header) as writer:
        writer.append(
            {
                "video": np.repeat(NAMES[:3], 75),
                "start": starts,
                "step": np.ones(count, int),
                "proposal": np.zeros(count, int),
                "scores": np.stack([frame_scores()[starts + 2], np.zeros(count)], axis=1),
                "tubes": np.tile(BOX / 64, (count, 1, 6, 1)),
            }
        )


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["choose_trimming", *map(str, arguments)])
    choose_trimming.main()


@pytest.mark.parametrize("kind", ["tubes", "tubelets"])
def test_the_command_looks_at_held_out_videos_alone(tmp_path, monkeypatch, capsys, kind):
    annotations, table, output = (tmp_path / n for n in ("a.json", "t.parquet", "o.json"))
    write_native(annotations, make_annotations())
    if kind == "tubes":
        write_tubes(table, make_tubes(NAMES))
    else:
        write_tubelets(table)
    flags = ["--annotations", annotations, "--detections", table, "--output", output]
    run(monkeypatch, *flags, "--threshold", 0.75, "--penalties", 0, 1, 100)
    report = json.loads(output.read_text())
    assert report["chosen"] == dataclasses.asdict(TrimOptions(penalty=1))
    assert (report["num_videos"], report["num_videos_with_tubes"]) == (2, 2)
    assert len(report["trials"]) == 7
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.endswith("chosen")]
    assert "2 held-out videos, 2 of them with tubes" in printed


def test_a_table_without_held_out_videos_is_refused(tmp_path, monkeypatch):
    annotations, table = tmp_path / "a.json", tmp_path / "t.parquet"
    write_native(annotations, make_annotations())
    write_tubes(table, make_tubes(NAMES[:1]))
    flags = ["--annotations", annotations, "--detections", table, "--output", tmp_path / "o"]
    with pytest.raises(InputError, match="no tube of any of the 2 held-out videos"):
        run(monkeypatch, *flags)


def test_the_table_of_trials():
    way = TrimOptions(penalty=0.5, normalise=True)
    trials = [choose_trimming.Trial(None, 12.3), choose_trimming.Trial(way, 45.6)]
    text = format_trials(trials, way, threshold=0.2)
    assert text.splitlines()[1].split() == ["untrimmed", "12.30"]
    assert text.splitlines()[2].split() == ["0.5", "normalised", "45.60", "chosen"]
