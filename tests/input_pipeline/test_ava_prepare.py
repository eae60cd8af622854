"""AVA's records, from movies and folders of frames to what readers see of them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import containers
import cv2
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import builders, prepare, records
from input_pipeline.ava import disk, shards, sources
from step_jax.errors import InputError

FPS = 25
SECONDS = 8  # of the made-up movies, from 900 on; the rest is missing


@pytest.fixture(scope="session")
def movies(tmp_path_factory):
    """Two pieces of movies, and the annotation files that name them."""
    folder = tmp_path_factory.mktemp("movies")
    write_annotations(folder, train=["aaa"], val=["bbb"])
    containers.write_mp4(folder / "aaa.mp4", [1] * FPS * SECONDS, timescale=FPS)
    times_ms = [round(1000 * i / 30) for i in range(30 * SECONDS)]
    containers.write_matroska(folder / "bbb.mkv", times_ms, fps=30)
    return folder


def write_annotations(folder, *, version="2.1", **splits):
    for split, videos in splits.items():
        rows = [f"{video},0903,0.1,0.1,0.5,0.5,{number % 80 + 1},0" for number, video in
                enumerate(videos)]  # fmt: skip
        (folder / f"ava_{split}_v{version}.csv").write_text("\n".join(rows) + "\n")


def run(movies, output, *flags, workers=1, start="900"):
    arguments = ["--videos", movies, "--annotations", movies, "--output", output]
    arguments += ["--start_second", start] if start else []
    return prepare.main(["ava", *map(str, [*arguments, "--workers", workers, *flags])])


@pytest.fixture(scope="session")
def built(movies, tmp_path_factory):
    output = tmp_path_factory.mktemp("ava") / "records"
    assert run(movies, output) == 0
    return output


def read_all(output, split):
    spec = builders.pixel_features().tf_example_spec
    for path, _ in records.shard_paths(output, split):
        for data in tf.data.TFRecordDataset(path):
            yield {k: v.numpy() for k, v in tf.io.parse_single_example(data, spec).items()}


def numbers_in(example):
    jpegs = (np.frombuffer(jpeg, np.uint8) for jpeg in example["frames"])
    return [containers.read_number(cv2.imdecode(jpeg, 1)) for jpeg in jpegs]


def expected_numbers(fps, seconds=SECONDS):
    """Of all 10,800 frames: what a movie of whole rates shows, and its last frame after its end."""
    shown = [second * fps + i * fps // 12 for second in range(seconds) for i in range(12)]
    return np.array(shown + [seconds * fps - 1] * (10_800 - len(shown)))


@pytest.mark.parametrize(("split", "video", "fps"), [("train", "aaa", 25), ("val", "bbb", 30)])
def test_records_hold_twelve_frames_of_every_second(built, split, video, fps):
    expected = expected_numbers(fps)
    cores = []
    for example in read_all(built, split):
        assert example["video"].decode() == video
        assert (example["num_frames"], example["width"], example["height"]) == (10_800, 64, 48)
        first, stop = example["first_frame"], example["first_frame"] + len(example["frames"])
        assert first == max(0, example["core_start"] - 12)
        assert stop == min(10_800, example["core_end"] + 35)
        if first < 12 * SECONDS or example["core_end"] == 10_800:
            np.testing.assert_array_equal(numbers_in(example), expected[first:stop])
        cores.append((example["core_start"], example["core_end"]))
    assert cores == [(start, start + 180) for start in range(0, 10_800, 180)]


def test_info_index_and_tfds_describe_the_records(built):
    info = records.load_info(built)
    assert (info.kind, info.first_second, info.classes) == ("ava", 900, ())
    assert (info.core_frames, info.halo_before, info.halo_after) == (180, 12, 35)
    empty = range(900 + SECONDS, 1800)
    assert info.missing_keyframes["aaa"] == tuple(range(empty[1], 1799))
    assert info.repeated_keyframes == {"aaa": (empty[0],), "bbb": (empty[0],)}
    for split in ("train", "val"):
        index = records.load_index(built, split)
        assert index.num_records == info.splits[split].num_records == 60
        for number, example in enumerate(read_all(built, split)):
            assert index.first_frame[number] == example["first_frame"]
            assert index.stop_frame[number] == example["first_frame"] + len(example["frames"])
            assert index.core_start[number] == example["core_start"]
            assert index.core_end[number] == example["core_end"]
    builder = tfds.builder_from_directory(built / "clip_records" / "1.0.0")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 60,
        "val": 60,
    }
    example = next(iter(tfds.as_numpy(builder.as_dataset(split="val"))))
    assert example["frames"].shape[1:] == (48, 64, 3)


def test_reports_say_what_is_missing(built):
    [first, second] = json.loads((built / "report.json").read_text())["videos"]
    assert (first["video"], first["kind"], first["fps"]) == ("aaa", "movie", 25)
    assert (first["first_s"], first["first_is_exact"], first["start_second"]) == (0, True, 900)
    assert first["num_frames"] == 200
    assert second["empty_seconds"] == list(range(900 + SECONDS, 1800))
    with open(built / "report.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["empty_seconds"] == f"{900 + SECONDS}-1799"
    assert rows[1]["missing_keyframes"] == f"{901 + SECONDS}-1798"


def test_the_other_version_needs_no_other_records(movies, built, tmp_path, capsys):
    write_annotations(tmp_path, train=["aaa"], val=["bbb"], version="2.2")
    for name in ("aaa.mp4", "bbb.mkv"):
        (tmp_path / name).symlink_to(movies / name)
    before = (built / "records.json").stat().st_mtime_ns
    assert run(tmp_path, built, "--version", "2.2") == 0
    assert "up to date" in capsys.readouterr().out
    assert (built / "records.json").stat().st_mtime_ns == before


def read_shards(output):
    return [
        [(example["first_frame"], *example["frames"]) for example in read_all(output, split)]
        for split in ("train", "val")
    ]


def test_a_pool_makes_the_same_records(movies, built, tmp_path):
    assert run(movies, tmp_path / "out", workers=2) == 0
    assert read_shards(tmp_path / "out") == read_shards(built)


def test_beam_makes_the_same_records(movies, built, tmp_path):
    pytest.importorskip("apache_beam")
    assert run(movies, tmp_path / "out", "--beam_runner", "DirectRunner") == 0
    assert read_shards(tmp_path / "out") == read_shards(built)


@pytest.fixture
def copies(movies, tmp_path):
    """A folder of the movies that a test may change; `three` are in the training list."""
    folder = tmp_path / "movies"
    folder.mkdir()
    write_annotations(folder, train=["aaa", "broken", "ccc"], val=["bbb"])
    (folder / "aaa.mp4").write_bytes((movies / "aaa.mp4").read_bytes())
    (folder / "ccc.mp4").write_bytes((movies / "aaa.mp4").read_bytes())
    (folder / "bbb.mkv").write_bytes((movies / "bbb.mkv").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "has no broken"),
        (b"\0\xff" * 5000, "cannot be opened as a video"),
        ("half", "is truncated"),
    ],
)
def test_one_unreadable_movie_leaves_the_others(movies, copies, tmp_path, capsys, data, message):
    whole = (movies / "aaa.mp4").read_bytes()
    if data is not None:
        (copies / "broken.mp4").write_bytes(whole[: len(whole) // 2] if data == "half" else data)
    output = tmp_path / "out"
    assert run(copies, output) == 1
    printed = capsys.readouterr().out
    assert message in printed.partition("failed: broken: ")[2]
    assert "1 videos failed" in printed
    info = records.load_info(output)
    assert info.splits["train"].num_videos == 2
    assert sum(1 for _ in read_all(output, "train")) == 120
    builder = tfds.builder_from_directory(output / "clip_records" / "1.0.0")
    assert sum(1 for _ in builder.as_dataset(split="train")) == 120
    times = {path.name: path.stat().st_mtime_ns for path in output.rglob("*tfrecord*")}
    (copies / "broken.mp4").write_bytes(whole)
    assert run(copies, output) == 0
    assert "1 videos to prepare" in capsys.readouterr().out
    assert records.load_info(output).splits["train"].num_videos == 3
    again = {path.name: path.stat().st_mtime_ns for path in output.rglob("*tfrecord*")}
    assert [name for name in times if times[name] != again[name]] == [
        "clip_records-train.tfrecord-00001-of-00003"
    ]


def test_missing_movies_may_be_left_out(copies, tmp_path, capsys):
    assert run(copies, tmp_path / "out", "--present_only") == 0
    assert "3 videos to prepare" in capsys.readouterr().out
    assert run(copies, tmp_path / "out", "--present_only") == 0
    assert "up to date" in capsys.readouterr().out


def test_some_videos_first(movies, copies, tmp_path, capsys):
    assert run(copies, tmp_path / "out", "--limit_videos", "1") == 0
    assert "2 videos to prepare" in capsys.readouterr().out
    (copies / "broken.mp4").write_bytes((movies / "aaa.mp4").read_bytes())
    assert run(copies, tmp_path / "out") == 0
    assert "2 videos to prepare" in capsys.readouterr().out


@pytest.mark.slow
def test_a_movie_that_kills_its_process_leaves_the_others(copies, tmp_path, monkeypatch, capsys):
    """The process dies as of a decoder's bug; `sitecustomize` is what it imports first."""
    write_annotations(copies, train=["broken", "ccc"], val=["bbb"])
    (copies / "broken.mp4").write_bytes((copies / "aaa.mp4").read_bytes())
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, input_pipeline.ava.sources as s\n"
        "original = s.open_source\n"
        "def deadly(path, timing):\n"
        "    if 'broken' in str(path): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(path, timing)\n"
        "s.open_source = deadly\n"
    )
    places = [str(tmp_path), os.getcwd()]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    assert run(copies, tmp_path / "out", workers=2) == 1
    printed = capsys.readouterr().out
    assert "was killed (signal 9)" in printed.partition("failed: broken: ")[2]
    splits = records.load_info(tmp_path / "out").splits
    assert {name: split.num_videos for name, split in splits.items()} == {"train": 1, "val": 1}


def test_an_interrupted_run_goes_on(movies, copies, tmp_path, capsys):
    containers.write_mp4(copies / "broken.mp4", [1] * 60 * 200, timescale=60)  # takes a while
    output = tmp_path / "out"
    arguments = ["--videos", copies, "--annotations", copies, "--output", output]
    arguments += ["--start_second", "900", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "input_pipeline.prepare", "ava", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((output / "videos").glob("aaa.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert not list(output.rglob("*.tmp*"))
    assert not (output / "records.json").exists()
    (copies / "broken.mp4").write_bytes((movies / "aaa.mp4").read_bytes())
    assert run(copies, output) == 0
    assert "4 videos to prepare" not in capsys.readouterr().out
    assert records.load_info(output).splits["train"].num_videos == 3


# --- sources --------------------------------------------------------------------------------------


def write_pictures(folder, count, *, name="{:06d}.jpg", first=1):
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / name.format(number + first)
        path.write_bytes(containers.coded_jpeg(number))


def shown_numbers(output):
    examples = [example for example in read_all(output, "train") if example["first_frame"] == 0]
    return numbers_in(examples[0])


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_frames_starts_at_second_900(tmp_path, first):
    write_annotations(tmp_path, train=["x"])
    write_pictures(tmp_path / "x", 95, name="x_{:06d}.jpg", first=first)
    (tmp_path / "x" / f"x_{first + 40:06d}.jpg").unlink()
    assert run(tmp_path, tmp_path / "out", start=None) == 0
    numbers = shown_numbers(tmp_path / "out")
    assert numbers[:12] == [i * 30 // 12 for i in range(12)]
    there = [i for i in range(30, 60) if i != 40]
    assert numbers[12:24] == [there[i * 29 // 12] for i in range(12)]
    assert numbers[36:48] == [90 + i * 5 // 12 for i in range(12)]
    [report] = json.loads((tmp_path / "out" / "report.json").read_text())["videos"]
    assert (report["kind"], report["num_frames"], report["repeated_seconds"]) == (
        "frames",
        94,
        [903],
    )


def test_a_folder_for_each_second(tmp_path):
    write_annotations(tmp_path, train=["x"])
    for second, count in {900: 25, 901: 24, 903: 25, 904: 3}.items():
        write_pictures(tmp_path / "x" / f"{second:04d}", count)
    (tmp_path / "x" / "902").mkdir()
    damaged = tmp_path / "x" / "0903" / "000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    assert run(tmp_path, tmp_path / "out", start=None) == 0
    numbers = shown_numbers(tmp_path / "out")
    assert numbers[:12] == [i * 25 // 12 for i in range(12)]
    assert numbers[12:24] == [i * 2 for i in range(12)]
    assert numbers[24:36] == [23] * 12
    assert numbers[36:48] == [0, 0, *(i * 25 // 12 for i in range(2, 12))]  # its second: damaged
    assert numbers[48:60] == [i * 3 // 12 for i in range(12)]
    [report] = json.loads((tmp_path / "out" / "report.json").read_text())["videos"]
    assert (report["kind"], report["fps"], report["num_undecodable"]) == ("seconds", 25, 1)
    assert report["empty_seconds"][:2] == [902, 905]


def test_a_second_of_damaged_pictures_is_empty(tmp_path):
    write_annotations(tmp_path, train=["x"])
    write_pictures(tmp_path / "x", 120)
    for path in [tmp_path / "x" / f"{number:06d}.jpg" for number in [*range(1, 4), *range(31, 61)]]:
        path.write_bytes(b"no image")
    assert run(tmp_path, tmp_path / "out", start=None) == 0
    numbers = shown_numbers(tmp_path / "out")
    assert numbers[:3] == [5, 5, 5]  # 0, 2: the first later one
    assert numbers[12:24] == [27] * 12
    info = records.load_info(tmp_path / "out")
    [report] = json.loads((tmp_path / "out" / "report.json").read_text())["videos"]
    assert report["empty_seconds"][:2] == [901, 904]
    assert info.repeated_keyframes["x"] == (904,)


def test_starts_by_video(movies, tmp_path):
    (tmp_path / "starts.csv").write_text("aaa,898.5\n\nbbb,901\n")
    flags = ["--start_seconds", tmp_path / "starts.csv", "--short_side", "24"]
    assert run(movies, tmp_path / "out", *flags) == 0
    numbers = shown_numbers(tmp_path / "out")
    there = [i for i in range(200) if 900 <= Fraction("898.5") + Fraction(i, 25) < 901]
    assert numbers[:12] == [there[i * len(there) // 12] for i in range(12)]
    assert {example["height"] for example in read_all(tmp_path / "out", "val")} == {24}
    first, second = json.loads((tmp_path / "out" / "report.json").read_text())["videos"]
    assert (first["start_second"], second["start_second"]) == (898.5, 901)
    assert second["empty_seconds"][:2] == [900, 909]


def test_a_piece_without_its_start_is_an_error(movies, tmp_path, capsys):
    assert run(movies, tmp_path / "out", start=None) == 1
    assert "aaa.mp4: has no frame in seconds 900 to 1799" in capsys.readouterr().out
    assert not (tmp_path / "out" / "records.json").exists()


def test_two_files_of_a_video(tmp_path):
    (tmp_path / "x.mp4").touch()
    (tmp_path / "x.mkv").touch()
    with pytest.raises(InputError, match=r"has x\.mkv and x\.mp4; leave only one"):
        sources.find_source(tmp_path, "x", {})
    assert sources.find_source(tmp_path, "x", {"x": "x.mp4"}) == tmp_path / "x.mp4"


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--core_frames", "100"], "core_frames is 100; expected a multiple of 12"),
        (["--core_frames", "132"], "core_frames is 132; expected a divisor of 10800"),
        (["--jpeg_quality", "0"], "jpeg_quality is 0; expected 1 to 100"),
        (["--halo_after", "-1"], "halo_after is -1; expected 0 or more"),
        (["--start_second", "soon"], "--start_second: 'soon'; expected a number"),
        (["--folder_fps", "0"], "--folder_fps is 0"),
        (["--version", "2.2"], "has neither ava_train_v2.2.csv nor ava_val_v2.2.csv"),
        (["--workers", "0"], "--workers is 0"),
        (["--videos", "/nowhere"], "--videos /nowhere: no such folder"),
    ],
)
def test_wrong_flags_are_named(movies, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(movies, tmp_path / "out", *flags)


def test_wrong_start_seconds_are_named(movies, tmp_path):
    (tmp_path / "starts.csv").write_text("aaa,900\nbbb;901\n")
    with pytest.raises(InputError, match=r"starts\.csv:2: 'bbb;901'; expected video,seconds"):
        run(movies, tmp_path / "out", "--start_seconds", tmp_path / "starts.csv")


def test_a_video_in_both_splits(tmp_path):
    write_annotations(tmp_path, train=["x", "y"], val=["y"])
    with pytest.raises(InputError, match=r"video y is in both splits of v2\.1"):
        run(tmp_path, tmp_path / "out")


def test_a_video_that_is_a_path(tmp_path):
    write_annotations(tmp_path, train=["../x"])
    with pytest.raises(InputError, match="expected a name without a folder"):
        run(tmp_path, tmp_path / "out")


def test_other_options_or_videos_need_another_folder(movies, built, tmp_path, records_dir):
    with pytest.raises(InputError, match="was begun with short_side 360, not 300"):
        run(movies, built, "--short_side", "300")
    write_annotations(tmp_path, train=["aaa", "zzz"])
    with pytest.raises(InputError, match="was begun with other videos of train"):
        run(tmp_path, built)
    with pytest.raises(InputError, match="holds records that are not AVA's"):
        run(movies, records_dir)


def test_a_full_disk_is_found_before(movies, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda output: 1000)
    with pytest.raises(InputError, match=r"the records need about .* GB, 0\.0 GB are free"):
        run(movies, tmp_path / "out")
    assert not (tmp_path / "out" / "videos").exists()
    assert run(movies, tmp_path / "out", "--ignore_disk_space") == 0


def test_the_estimate_is_about_right(movies, built, tmp_path):
    job = shards.ShardJob(
        video="aaa",
        split="train",
        source=str(movies / "aaa.mp4"),
        shard="",
        report="",
        timing=sources.Timing(Fraction(900)),
        options=shards.ShardOptions(),
    )
    made = records.load_info(built).splits["train"].num_bytes
    assert disk.estimate_bytes([job]) == pytest.approx(made, rel=0.1)
    assert disk.estimate_bytes([job.with_source(tmp_path / "none.mp4")]) is None


def test_beam_that_is_not_there(movies, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match="--beam_runner needs Apache Beam"):
        run(movies, tmp_path / "out", "--beam_runner", "DirectRunner")
