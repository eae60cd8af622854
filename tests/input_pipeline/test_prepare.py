import dataclasses
import itertools
import json
import os
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import builders, frame_store, prepare, records
from input_pipeline.prepare import RecordOptions
from step_jax.annotations import Annotations, Tube, write_native
from step_jax.errors import InputError
from step_jax.folder_lock import locked_folder

OPTIONS = RecordOptions(core_frames=20, halo_before=0, halo_after=5)


def read_all(records_dir, split):
    """The records of a split as numpy, in the order of the files."""
    spec = builders.features(3).tf_example_spec
    for path, _ in records.shard_paths(records_dir, split):
        for data in tf.data.TFRecordDataset(path):
            yield {k: v.numpy() for k, v in tf.io.parse_single_example(data, spec).items()}


def only(annotations: Annotations, *ids: str, **changes) -> Annotations:
    """Some of the videos, changed."""
    videos = [dataclasses.replace(annotations.video(id), **changes) for id in ids]
    return dataclasses.replace(annotations, videos=tuple(videos))


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_records_hold_the_frames_and_tubes_of_their_segment(records_dir, annotations, identify):
    seen = {}
    for example in itertools.chain(*(read_all(records_dir, name) for name in ("train", "test"))):
        video = annotations.video(example["video"].decode())
        first, stop = example["first_frame"], example["first_frame"] + len(example["frames"])
        assert first == max(0, example["core_start"] - 4)
        assert stop == min(video.num_frames, example["core_end"] + 9)
        assert example["num_frames"] == video.num_frames
        assert (example["width"], example["height"]) == (64, 48)
        for frame, jpeg in zip(range(first, stop), example["frames"], strict=True):
            pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert pixels.shape == (48, 64, 3)
            assert identify(pixels[..., ::-1]) == (video.id, frame)
        check_tubes(example, video, range(first, stop))
        seen.setdefault(video.id, []).extend(range(example["core_start"], example["core_end"]))
    assert {video: sorted(frames) for video, frames in seen.items()} == {
        video.id: list(range(video.num_frames)) for video in annotations.videos
    }


def check_tubes(example, video, frames):
    expected = {
        (tube_id, frame): box / [video.width, video.height] * 2
        for tube_id, tube in enumerate(video.tubes)
        for frame, box in zip(tube.frames, tube.boxes.reshape(-1, 2, 2), strict=True)
        if frame in frames
    }
    found = zip(example["tube_index"], example["tube_frame"], example["tube_box"], strict=True)
    found = {(example["tube_ids"][index], frame): box for index, frame, box in found}
    assert found.keys() == expected.keys()
    for key, box in found.items():
        np.testing.assert_allclose(box, expected[key].ravel() / 2, rtol=1e-6)
    for tube_id, labels in zip(example["tube_ids"], example["tube_labels"], strict=True):
        assert tuple(np.flatnonzero(labels)) == video.tubes[tube_id].labels


def test_info_and_index_describe_the_records(records_dir, annotations):
    info = records.load_info(records_dir)
    assert info.classes == annotations.classes
    assert (info.core_frames, info.halo_before, info.halo_after) == (7, 4, 9)
    train = info.splits["train"]
    assert (train.num_videos, train.num_frames, train.num_tubes) == (3, 75, 4)
    assert sorted(count for _, count in train.shards) == [4, 4, 4]
    index = records.load_index(records_dir, "train")
    for record, example in enumerate(read_all(records_dir, "train")):
        assert index.video_ids[index.record_video[record]] == example["video"].decode()
        assert index.core_start[record] == example["core_start"]
        assert index.core_end[record] == example["core_end"]
        assert index.stop_frame[record] == example["first_frame"] + len(example["frames"])
    expected = [[0, 0, 5, 15], [0, 0, 18, 25], [0, 1, 10, 41], [1, 0, 12, 20], [2, 0, 0, 4]]
    np.testing.assert_array_equal(index.runs, expected)


def test_boxes_are_cut_at_the_picture_and_dropped_outside(annotations, tmp_path):
    boxes = [[-10, -6, 32, 24], [60, 40, 90, 60], [70, 0, 80, 10]]
    tube = Tube(labels=(0,), frames=[3, 4, 5], boxes=boxes)
    prepare.prepare(only(annotations, "d", tubes=(tube,)), tmp_path, options=OPTIONS, workers=1)
    example = next(example for example in read_all(tmp_path, "test") if example["core_start"] == 0)
    np.testing.assert_array_equal(example["tube_frame"], [3, 4])
    expected = [[0, 0, 0.5, 0.5], [60 / 64, 40 / 48, 1, 1]]
    np.testing.assert_allclose(example["tube_box"], expected, rtol=1e-6)
    np.testing.assert_array_equal(records.load_index(tmp_path, "test").runs, [[0, 0, 3, 5]])


def test_boxes_are_relative_to_the_annotations_frame_not_the_files(annotations, tmp_path):
    tube = Tube(labels=(0,), frames=[3], boxes=[[320, 240, 640, 480]])
    changed = only(annotations, "d", width=640, height=480, tubes=(tube,))
    options = dataclasses.replace(OPTIONS, short_side=24)
    prepare.prepare(changed, tmp_path, options=options, workers=1)
    example = next(example for example in read_all(tmp_path, "test") if example["core_start"] == 0)
    np.testing.assert_array_equal(example["tube_box"], [[0.5, 0.5, 1, 1]])
    assert cv2.imdecode(np.frombuffer(example["frames"][0], np.uint8), 1).shape == (24, 32, 3)


def test_an_interrupted_run_goes_on_and_a_finished_one_does_nothing(
    annotations, tmp_path, monkeypatch
):
    data, write_store, decoded = only(annotations, "b", "d"), frame_store.write_store, []

    def interrupted(path, video_path, *, name, **options):
        if name == "d" and not decoded.count("d"):
            decoded.append("d")
            raise KeyboardInterrupt
        decoded.append(name)
        return write_store(path, video_path, name=name, **options)

    monkeypatch.setattr(frame_store, "write_store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data, tmp_path, options=OPTIONS, workers=1)
    with pytest.raises(InputError, match="no complete clip records"):
        records.load_info(tmp_path)
    assert prepare.prepare(data, tmp_path, options=OPTIONS, workers=1)
    assert decoded == ["b", "d", "d"]
    assert not list(tmp_path.glob("partial-*"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not prepare.prepare(data, tmp_path, options=OPTIONS, workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match="other annotations or options"):
        prepare.prepare(only(annotations, "b"), tmp_path, options=OPTIONS)
    with pytest.raises(InputError, match="other annotations or options"):
        prepare.prepare(data, tmp_path, options=RecordOptions())


def test_a_changed_video_is_noticed(annotations, tmp_path):
    shutil.copy(annotations.root / "b.avi", tmp_path / "b.avi")
    data = dataclasses.replace(only(annotations, "b"), root=tmp_path)
    assert prepare.prepare(data, tmp_path / "out", options=OPTIONS, workers=1)
    shutil.copy(annotations.root / "a.avi", tmp_path / "b.avi")
    with pytest.raises(InputError, match=r"b\.avi has changed since the records were built"):
        prepare.prepare(data, tmp_path / "out", options=OPTIONS)
    (tmp_path / "b.avi").unlink()  # the records do without
    assert not prepare.prepare(data, tmp_path / "out", options=OPTIONS)


def test_frame_counts_must_agree(annotations, tmp_path):
    for num_frames, found in ((31, "30 frames"), (29, "more than 29 frames")):
        data = only(annotations, "b", num_frames=num_frames)
        with pytest.raises(InputError, match=rf"'b'.*{found} can be decoded.* says {num_frames}"):
            prepare.prepare(data, tmp_path, options=OPTIONS, workers=1)
        assert not [name for name in files_in(tmp_path) if "partial" not in name]
        assert not [name for name in files_in(tmp_path) if name.endswith((".npy", ".jpegs"))]


def test_a_truncated_video_is_named_by_a_worker_process_too(annotations, tmp_path):
    data = (annotations.root / "b.avi").read_bytes()
    (tmp_path / "b.avi").write_bytes(data[: len(data) // 2])
    cut = dataclasses.replace(only(annotations, "b"), root=tmp_path)
    with pytest.raises(InputError, match=r"video 'b': .*truncated"):
        prepare.prepare(cut, tmp_path / "out", options=OPTIONS, workers=2)


def test_workers_make_the_same_records(annotations, records_dir, tmp_path):
    options = RecordOptions(core_frames=7, halo_before=4, halo_after=9, shards=3)
    prepare.prepare(annotations, tmp_path, options=options, workers=2)
    for path, _ in records.shard_paths(records_dir, "train"):
        name = os.path.relpath(path, records_dir)
        assert (tmp_path / name).read_bytes() == (records_dir / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"path": "nowhere.avi"}, {}, "'b'.*nowhere.avi does not exist"),
        ({"split": "train-1"}, {}, "'train-1' cannot be a file name"),
        ({"split": "all"}, {}, "'all' cannot be a file name"),
        ({}, {"shards": 3}, "3 shards, but the smallest split has 2 records"),
        ({}, {"core_frames": 0}, "core_frames is 0; expected 1 or more"),
        ({}, {"jpeg_quality": 101}, "jpeg_quality is 101; expected 100 or less"),
        ({}, {"halo_after": -1}, "halo_after is -1; expected 0 or more"),
    ],
)
def test_wrong_input_is_named(annotations, tmp_path, changes, options, message):
    def build():
        data = only(annotations, "b", **changes)
        chosen = dataclasses.replace(OPTIONS, **options)
        prepare.prepare(data, tmp_path, options=chosen, workers=1)

    with pytest.raises(InputError, match=message):
        build()


def test_nothing_to_build(annotations, tmp_path):
    with pytest.raises(InputError, match="no videos"):
        prepare.prepare(only(annotations), tmp_path)


def test_an_output_that_cannot_be_written(annotations, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/out: cannot be written"):
        prepare.prepare(only(annotations, "b"), tmp_path / "file" / "out")


def test_two_runs_keep_out_of_each_others_way(annotations, tmp_path):
    with (
        locked_folder(tmp_path),
        pytest.raises(InputError, match="another run is writing there"),
    ):
        prepare.prepare(only(annotations, "b"), tmp_path)


def damage(folder, **changes):
    document = json.loads((folder / "records.json").read_text())
    (folder / "records.json").write_text(json.dumps({**document, **changes}))


def test_damaged_folders_are_named(records_dir, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(records_dir, folder)
    with pytest.raises(InputError, match="no split 'val'; the splits are: 'train', 'test'"):
        records.load_index(folder, "val")
    next((folder / "clip_records").rglob("*train.tfrecord-00001*")).unlink()
    with pytest.raises(
        InputError, match="00001-of-00003: this record file, of 4 records, is missing"
    ):
        records.shard_paths(folder, "train")
    (folder / "index.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"index\.npz: cannot be read"):
        records.load_index(folder, "train")
    damage(folder, halo_before=None, unknown=3)
    with pytest.raises(InputError, match=r"records\.json: damaged.*unknown"):
        records.load_info(folder)
    damage(folder, version=0)
    with pytest.raises(InputError, match=r"version 0; expected 'step_jax\.clip_records' version 2"):
        records.load_info(folder)
    (folder / "records.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        records.load_info(folder)


def test_command(annotations, tmp_path, capsys):
    data = only(annotations, "d")
    write_native(annotations.root / "d.json", data)
    arguments = ["--annotations", str(annotations.root / "d.json"), "--output", str(tmp_path)]
    prepare.main([*arguments, "--core_frames", "10", "--workers", "1"])
    assert "test: 1 videos, 23 frames, 0 tubes, 3 records" in capsys.readouterr().out
    assert records.load_info(tmp_path).annotations_file == "d.json"
    prepare.main([*arguments, "--core_frames", "10"])
    assert "up to date" in capsys.readouterr().out
