"""The benchmarks of linking and of a whole test list run, on loads that are what they say."""

import json
import sys

import numpy as np
import pytest

from benchmarks import linking, ucf101_24
from benchmarks.simulated_tubelets import Load, simulated_annotations, simulated_videos
from step_jax.linking import link, video_sizes
from step_jax.tube_table import join_tubes
from step_jax.tubelet_table import concatenate
from step_jax.windows import window_starts

TINY = Load(num_videos=3, num_clips=60, num_classes=4, proposals=5, fewest=2)


@pytest.fixture(scope="module")
def tiny():
    """Annotations, sizes, rows."""
    annotations = simulated_annotations(TINY)
    rows = concatenate(TINY.header, list(simulated_videos(TINY, annotations)))
    return annotations, video_sizes(annotations), rows


def test_a_load_is_as_large_as_it_says(tiny):
    annotations, _, rows = tiny
    assert len(annotations.videos) == 3
    for number, video in enumerate(annotations.videos):
        starts = np.unique(rows.start[rows.video == number])
        assert starts.tolist() == window_starts(video.num_frames, clip_frames=6, stride=1).tolist()
    _, counts = np.unique([rows.video, rows.start], axis=1, return_counts=True)
    assert (len(counts), counts.min(), counts.max()) == (pytest.approx(60, abs=3), 2, 5)
    assert rows.tubes.shape[1:] == (4, 6, 4)
    assert (rows.scores.sum(axis=1) < 1).all()


def test_the_same_seed_gives_the_same_videos(tiny):
    _, _, rows = tiny
    again = concatenate(TINY.header, list(simulated_videos(TINY, simulated_annotations(TINY))))
    np.testing.assert_array_equal(again.tubes, rows.tubes)
    np.testing.assert_array_equal(again.scores, rows.scores)


def test_actors_are_found(tiny):
    """Linked tubes of the video's class lie on its actors, else the load is not realistic."""
    annotations, sizes, rows = tiny
    tubes = link(rows, sizes=sizes)
    order = np.lexsort((-tubes.score, tubes.video))
    best = tubes.take(order[np.searchsorted(tubes.video[order], range(3))])
    truth = [video.tubes[0].labels[0] for video in annotations.videos]
    assert best.label.tolist() == truth
    assert (best.length > 15).all()


def test_more_videos_are_the_same_ones(tiny):
    _, sizes, rows = tiny
    once = link(rows, sizes=sizes)
    more, own_sizes = linking.more_videos(rows, sizes, 3)
    many = link(more, sizes=own_sizes)
    assert len(many.videos) == 9
    np.testing.assert_array_equal(many.boxes, join_tubes([once] * 3).boxes)


def test_longer_videos_are_the_same_in_a_row(tiny):
    _, sizes, rows = tiny
    longer, own_sizes = linking.longer_videos(rows, sizes, 3)
    assert len(longer) == 3 * len(rows)
    name = rows.videos[1]
    assert own_sizes[name] == (3 * sizes[name][0], *sizes[name][1:])
    starts = np.unique(longer.start[longer.video == 1])
    first = np.unique(rows.start[rows.video == 1])
    assert starts.tolist() == [*first, *(first + sizes[name][0]), *(first + 2 * sizes[name][0])]


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    module.main()


def test_the_benchmark_of_linking(tmp_path, monkeypatch, capsys):
    flags = ["--videos", 2, "--windows", 24, "--repeats", 1, "--output", tmp_path / "o.json"]
    run(monkeypatch, linking, *flags)
    results = json.loads((tmp_path / "o.json").read_text())["results"]
    assert [row["what"] for row in results][:3] == [
        "link, one batch",
        "link, video by video",
        "link, online",
    ]
    assert len(capsys.readouterr().out.splitlines()) == len(results) == 11
    assert all(row["seconds"] > 0 for row in results)


@pytest.mark.parametrize("shared", [False, True])
def test_the_benchmark_of_a_test_list(tmp_path, monkeypatch, shared):
    table, output = tmp_path / "new" / "t.parquet", tmp_path / "o.json"
    flags = ["--videos", 24, "--windows", 480, "--table", table, "--output", output]
    flags += ["--shared_boxes"] if shared else []
    run(monkeypatch, ucf101_24, *flags)
    report = json.loads(output.read_text())
    written = table.stat().st_mtime_ns
    assert report["results"]["tubes"] > 24
    assert report["results"]["frame-mAP"] > 20
    assert report["peak_mib"] > 50
    parts = report["seconds"]
    assert parts["all"] == pytest.approx(sum(s for name, s in parts.items() if name != "all"))
    run(monkeypatch, ucf101_24, *flags)  # again, from the same table
    assert json.loads(output.read_text())["results"] == report["results"]
    assert table.stat().st_mtime_ns == written
