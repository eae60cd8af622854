"""Fusion against loops over dictionaries, and one line for each pair of tables that do not fit."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from step_jax import cli, fusion
from step_jax.detections import DetectionsWriter
from step_jax.errors import InputError
from step_jax.tubelet_table import TubeletHeader, TubeletRows, read_tubelet_header, read_tubelets
from step_jax.tubelet_writer import write_tubelets

CLASSES = ("walk", "run", "jump")
VIDEOS = ("a", "b/c", "d")


def tubelets(seed, *, proposals=3, num_boxes=3, starts=(0, 1, 2), videos=VIDEOS, **header):
    """Random tubelets of two steps in every window of the videos, in random order."""
    rng = np.random.default_rng(seed)
    keys = [
        (video, start, step, proposal)
        for video in range(len(videos))
        for start in starts
        for step in (1, 2)
        for proposal in range(proposals)
    ]
    rng.shuffle(keys)
    video, start, step, proposal = np.array(keys).T
    header = {"clip_frames": 4, "stride": 1, "num_steps": 2, "classes": CLASSES} | header
    header = TubeletHeader(num_boxes=num_boxes, provenance={"split": "test"}, **header)
    frames, classes = header.clip_frames, len(header.classes)
    return TubeletRows(
        header=header,
        videos=tuple(videos),
        video=video.astype(np.int32),
        start=start.astype(np.int32),
        step=step.astype(np.int8),
        proposal=proposal.astype(np.int32),
        scores=rng.random((len(keys), classes), np.float32),
        tubes=rng.random((len(keys), num_boxes, frames, 4), np.float32),
    )


def as_dictionary(rows):
    """{(video, start, step, proposal): (scores, tubes)}."""
    keys = zip(rows.video, rows.start, rows.step, rows.proposal, strict=True)
    return {
        (rows.videos[video], *map(int, others)): (scores, tubes)
        for (video, *others), scores, tubes in zip(keys, rows.scores, rows.tubes, strict=True)
    }


def written(folder, *tables):
    paths = [folder / f"{name}.parquet" for name in "ABC"[: len(tables)]]
    for path, rows in zip(paths, tables, strict=True):
        write_tubelets(path, rows)
    return paths


def fused(folder, *tables, **options):
    fusion.fuse(written(folder, *tables), folder / "fused.parquet", **options)
    return read_tubelets(folder / "fused.parquet")


@pytest.mark.parametrize("num_boxes", [1, 3])
def test_mean_is_that_of_corresponding_tubelets(tmp_path, num_boxes):
    tables = [tubelets(seed, num_boxes=num_boxes) for seed in range(3)]
    found = as_dictionary(fused(tmp_path, *tables, method="mean", weights=[2, 1, 1]))
    expected = [as_dictionary(rows) for rows in tables]
    assert set(found) == set(expected[0])
    for key, (scores, tubes) in found.items():
        for c in range(3):
            values = [one[key][0][c] for one in expected]
            assert scores[c] == pytest.approx((2 * values[0] + values[1] + values[2]) / 4, rel=1e-6)
        for r in range(num_boxes):
            for k in range(4):
                boxes = [one[key][1][r, k] for one in expected]
                mean = (2 * boxes[0] + boxes[1] + boxes[2]) / 4
                np.testing.assert_allclose(tubes[r, k], mean, rtol=1e-6)


def test_without_weights_all_count_the_same_and_boxes_can_be_the_firsts(tmp_path):
    tables = [tubelets(seed) for seed in range(2)]
    found = as_dictionary(fused(tmp_path, *tables, boxes="first"))
    first, second = (as_dictionary(rows) for rows in tables)
    for key, (scores, tubes) in found.items():
        np.testing.assert_allclose(scores, (first[key][0] + second[key][0]) / 2, rtol=1e-6)
        np.testing.assert_array_equal(tubes, first[key][1])


def test_union_keeps_every_tubelet_under_a_number_of_its_own(tmp_path):
    tables = [tubelets(0), tubelets(1, proposals=5), tubelets(2, proposals=1)]
    found = as_dictionary(fused(tmp_path, *tables, method="union"))
    assert len(found) == sum(map(len, tables))
    for number, rows in enumerate(tables):
        for (video, start, step, proposal), (scores, tubes) in as_dictionary(rows).items():
            ours = found[video, start, step, 3 * proposal + number]
            np.testing.assert_array_equal(ours[0], scores)
            np.testing.assert_array_equal(ours[1], tubes)


@pytest.mark.parametrize("method", fusion.METHODS)
def test_the_order_of_rows_does_not_matter(tmp_path, method):
    tables = [tubelets(seed) for seed in range(2)]
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        results.append(fused(tmp_path / name, *tables, method=method))
        tables = [rows.take(np.arange(len(rows))[::-1]) for rows in tables]
    for item in ("video", "start", "step", "proposal", "scores", "tubes"):
        np.testing.assert_array_equal(getattr(results[0], item), getattr(results[1], item))


def test_one_detector_twice_is_itself(tmp_path):
    """The same tubelets in two files: a mean changes nothing."""
    rows = tubelets(0)
    found, expected = as_dictionary(fused(tmp_path, rows, rows)), as_dictionary(rows)
    for key, (scores, tubes) in found.items():
        np.testing.assert_array_equal(scores, expected[key][0])
        np.testing.assert_array_equal(tubes, expected[key][1])


def test_the_table_says_what_was_fused(tmp_path):
    paths = written(tmp_path, tubelets(0), tubelets(1))
    fusion.fuse(paths, tmp_path / "fused.parquet", weights=[3, 1])
    header = read_tubelet_header(tmp_path / "fused.parquet")
    assert header.classes == CLASSES
    assert header.provenance["split"] == "test"
    told = json.loads(header.provenance["fusion"])
    assert told == {"method": "mean", "weights": [0.75, 0.25], "boxes": "mean"}
    inputs = json.loads(header.provenance["inputs"])
    assert [one["table"] for one in inputs] == [str(path) for path in paths]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"classes": ("walk", "run", "hop")}, "B.parquet: classes is .*hop.*only detectors with"),
        ({"clip_frames": 5}, "clip_frames is 5, but 4 in"),
        ({"stride": 2}, "stride is 2, but 1 in"),
        ({"num_boxes": 1}, "num_boxes is 1, but 3 in"),
        ({"num_steps": 3}, "num_steps is 3, but 2 in"),
        ({"num_steps": 2, "steps": (2,)}, r"steps is \[2\], but \[1, 2\] in"),
        ({"starts": (0, 1)}, r"B.parquet: lacks .*the window at frame 2, step 1, of video"),
        ({"starts": (0, 1, 2, 5)}, r"A.parquet: lacks .*the window at frame 5, step 1"),
        ({"videos": ("a", "d")}, r"B.parquet: has no tubelet of 1 videos of .*A.parquet.*'b/c'"),
        ({"videos": (*VIDEOS, "e")}, r"A.parquet: has no tubelet of 1 videos of .*B.*'e'"),
        ({"videos": ("x",)}, r"has no tubelet of 3 videos .*'a'; evaluate both"),
    ],
)
@pytest.mark.parametrize("method", fusion.METHODS)
def test_tables_that_do_not_fit(tmp_path, method, other, message):
    rows = tubelets(1, **{"steps": (), **other})
    if rows.header.steps == (2,):
        rows = rows.take(rows.step == 2)
    with pytest.raises(InputError, match=message) as raised:
        fused(tmp_path, tubelets(0), rows, method=method)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "fused.parquet").exists()


def test_a_mean_needs_the_same_proposals(tmp_path):
    message = "A.parquet: lacks proposal 3 of the window at frame 0, step 1, of video"
    with pytest.raises(InputError, match=message):
        fused(tmp_path, tubelets(0), tubelets(1, proposals=4))
    assert len(fused(tmp_path, tubelets(0), tubelets(1, proposals=4), method="union"))


def test_wrong_options(tmp_path):
    a, b = written(tmp_path, tubelets(0), tubelets(1))
    output = tmp_path / "fused.parquet"
    for inputs, options, message in (
        ([a], {}, "1 given; expected two or more"),
        ([a, tmp_path / "x" / ".." / "A.parquet"], {}, "given twice"),
        ([a, b], {"weights": [1.0]}, "1 for 2 inputs"),
        ([a, b], {"weights": [1.0, 0.0]}, "expected positive"),
        ([a, b], {"weights": [1.0, float("nan")]}, "expected positive"),
        ([a, b], {"weights": [1.0, 1.0], "method": "union"}, "of a mean"),
        ([a, b], {"method": "max"}, "expected one of mean, union"),
        ([a, b], {"boxes": "second"}, "expected one of mean, first"),
    ):
        with pytest.raises(InputError, match=message):
            fusion.fuse(inputs, output, **options)
    with pytest.raises(InputError, match="is one of the inputs"):
        fusion.fuse([a, b], b)


def test_a_table_of_detections_is_refused(tmp_path):
    (a,) = written(tmp_path, tubelets(0))
    other = tmp_path / "detections.parquet"
    with DetectionsWriter(other, classes=CLASSES, clip_frames=4, stride=1, num_steps=2):
        pass
    with pytest.raises(InputError, match=r"not a tubelet table.*eval\.tubes"):
        fusion.fuse([a, other], tmp_path / "fused.parquet")


def test_the_command(tmp_path, monkeypatch, capsys):
    a, b = map(str, written(tmp_path, tubelets(0), tubelets(1)))
    output = str(tmp_path / "fused.parquet")
    monkeypatch.setattr(sys, "argv", ["fusion", "--inputs", a, b, "--output", output])
    with pytest.raises(SystemExit) as exit_status:
        cli.run_command(fusion.main)
    assert exit_status.value.code == 0
    assert "mean of 2 tables, 3 videos" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["fusion", "--inputs", a, a, "--output", output])
    with pytest.raises(SystemExit) as exit_status:
        cli.run_command(fusion.main)
    assert exit_status.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_memory_is_that_of_a_video(tmp_path, monkeypatch):
    """No reader is ahead of the others by more than a video."""
    open_videos = []

    def watched(path, **options):
        for rows in original(path, **options):
            open_videos.append(path.name)
            yield rows

    original = fusion.iter_tubelet_videos
    monkeypatch.setattr(fusion, "iter_tubelet_videos", watched)
    fused(tmp_path, tubelets(0), tubelets(1))
    assert open_videos == ["A.parquet", "B.parquet"] * len(VIDEOS)


def test_fusing_and_drawing_tubes_need_no_jax():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'tensorflow'])); "
        "import step_jax.fusion, step_jax.visualize.tubes"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_union_of_one_step(tmp_path):
    tables = [rows.take(rows.step == 2) for rows in (tubelets(0), tubelets(1))]
    tables = [
        dataclasses.replace(rows, header=dataclasses.replace(rows.header, steps=(2,)))
        for rows in tables
    ]
    assert read_tubelet_header(written(tmp_path, *tables)[0]).steps == (2,)
    assert set(fused(tmp_path, *tables, method="union").step) == {2}
