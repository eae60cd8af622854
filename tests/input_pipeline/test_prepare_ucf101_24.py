"""UCF101-24's builder finds what a download holds, checks all of it, and builds the records."""

import dataclasses
import pickle
import shutil

import cv2
import numpy as np
import pytest
import scipy.io

from input_pipeline import prepare, records, ucf101_24
from step_jax.annotations import read_native
from step_jax.annotations.act_pickle import write_act
from step_jax.annotations.frame_labels import write_frame_labels
from step_jax.annotations.pyannot import read_pyannot, write_pyannot
from step_jax.annotations.splits import assign_splits
from step_jax.errors import InputError
from step_jax.video import VideoWriter

# Of other sizes than the 320 x 240 of the boxes, as re-encoded downloads are.
WIDTH, HEIGHT = 34, 26
TEST = "Diving/v_Diving_g01_c01"
TRAIN = "Diving/v_Diving_g08_c01"
HELD_OUT = "SalsaSpin/v_SalsaSpin_g22_c01"
FRAMES = {TEST: 9, TRAIN: 7, HELD_OUT: 8}
LABELS = {TEST: 5, TRAIN: 5, HELD_OUT: 14}


def image():
    return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def write_images(folder, count):
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), image())


def pyannot():
    """The three videos, with boxes that touch no border and begin in the third frame."""
    boxes = np.array([[101, 52, 200, 140], [102, 52, 200, 140]], np.uint8)
    return {
        name: {
            "label": LABELS[name],
            "numf": np.uint8(frames),
            "annotations": [{"label": LABELS[name], "sf": 2, "ef": 4, "boxes": boxes}],
        }
        for name, frames in FRAMES.items()
    }


@pytest.fixture
def source(tmp_path):
    """A download: frames in class folders, the pickle and the list of test videos."""
    folder = tmp_path / "ucf24"
    for name, frames in FRAMES.items():
        write_images(folder / "rgb-images" / name, frames)
    (folder / "splitfiles").mkdir()
    (folder / "splitfiles" / "pyannot.pkl").write_bytes(pickle.dumps(pyannot()))
    (folder / "splitfiles" / "testlist01.txt").write_text(TEST)
    return folder


@pytest.fixture
def build(source, tmp_path, capsys):
    """Runs the command; returns the annotations that it wrote and what it printed."""

    def run(*options, output="out"):
        paths = ["--source", str(source), "--output", str(tmp_path / output)]
        prepare.main(["ucf101_24", *paths, "--workers", "1", "--core_frames", "5", *options])
        written = tmp_path / output / ucf101_24.ANNOTATIONS_FILE
        return read_native(written), capsys.readouterr().out

    return run


@pytest.fixture
def read(build, monkeypatch):
    """As `build`, without building records."""
    monkeypatch.setattr(prepare, "prepare", lambda *_, **__: False)
    return build


def test_a_download_becomes_records_and_annotations(build, source, tmp_path):
    write_images(source / "brox-images" / TEST, 9)
    write_images(source / "brox-images" / TRAIN, 7)
    write_images(source / "brox-images" / HELD_OUT, 8)
    annotations, printed = build("--validation_groups", "22-22")
    for line in (
        f"annotations: {source}/splitfiles/pyannot.pkl",
        f"test list: {source}/splitfiles/testlist01.txt",
        f"videos: {source}/rgb-images",
        f"flow: {source}/brox-images",
        "test: 1 videos, 9 frames, 2 annotated frames, 1 tubes, 2 boxes",
    ):
        assert line in printed
    splits = {video.id: video.split for video in annotations.videos}
    assert splits == {TEST: "test", TRAIN: "train", HELD_OUT: "validation"}
    info = records.load_info(tmp_path / "out")
    assert {name: split.num_frames for name, split in info.splits.items()} == {
        "test": 9,
        "train": 7,
        "validation": 8,
    }
    assert (info.flow, info.annotations_file) == ("brox-images", "annotations.json")
    video = annotations.video(TEST)
    assert annotations.video_path(video).resolve() == source / "rgb-images" / TEST
    np.testing.assert_array_equal(video.tubes[0].boxes[0], [100, 51, 300, 191])
    assert "up to date" in build("--validation_groups", "22-22")[1]


def test_videos_of_a_flat_folder_without_flow(build, source):
    shutil.rmtree(source / "rgb-images")
    for name, frames in FRAMES.items():
        path = source / f"{name.rpartition('/')[2]}.avi"
        with VideoWriter(path, fps=25, width=WIDTH, height=HEIGHT) as writer:
            for _ in range(frames):
                writer.write(image())
    annotations, printed = build()
    assert annotations.video(TEST).path == "videos/v_Diving_g01_c01.avi"
    assert "flow: none" in printed
    assert "records will hold RGB alone" in printed


def write_other_formats(source):
    """The same annotations in every format; returns the file names."""
    data = read_pyannot(source / "splitfiles" / "pyannot.pkl")
    data = assign_splits(data, test=[TEST])
    write_pyannot(source / "pyannot_with_class_names.pkl", data)
    write_act(source / "UCF101v2-GT.pkl", data)
    write_frame_labels(source / "labels", data)
    videos = [[matlab(name, entry) for name, entry in pyannot().items()]]
    scipy.io.savemat(source / "finalAnnots.mat", {"annot": np.array(videos)})


def matlab(name, entry):
    """One element of the struct array `annot`."""
    [tube] = entry["annotations"]
    boxes = np.empty((1, 1), [(key, object) for key in ("sf", "ef", "class", "boxes")])
    boxes[0, 0] = (np.uint8(tube["sf"] + 1), np.uint8(tube["ef"]), tube["label"] + 1, tube["boxes"])
    fields = [(key, object) for key in ("num_imgs", "name", "tubes")]
    return np.array((entry["numf"], name, boxes), fields)


def test_all_formats_say_the_same_and_the_order_among_them_is_told(read, source):
    expected, _ = read()
    write_other_formats(source)
    found, printed = read()
    assert found == expected
    assert f"annotations: {source}/pyannot_with_class_names.pkl (there, too" in printed
    assert "split lists: the annotation file's own" in printed
    for name in ("finalAnnots.mat", "UCF101v2-GT.pkl", "labels"):
        found, printed = read("--annotations_file", str(source / name))
        assert found == expected, name
        assert f"annotations: {source / name}\n" in printed


def test_lists_given_come_first_and_then_the_files_own(read, source):
    write_other_formats(source)
    other = source / "other.txt"
    other.write_text(f"{TRAIN}.avi 6\r\nDiving/v_Diving_g09_c09.avi 6\r\n")
    found, printed = read("--split_file", str(other))
    assert found.video(TRAIN).split == "test"
    assert f"{other}: 1 of the videos listed are not among the annotations" in printed
    with pytest.raises(InputError, match=r"has no testlist02\.txt"):
        read("--split", "2")
    (source / "testlist02.txt").write_text(HELD_OUT)
    assert read("--split", "2")[0].video(HELD_OUT).split == "test"


def test_only_present_videos_if_told(read, source):
    shutil.rmtree(source / "rgb-images" / TRAIN)
    with pytest.raises(InputError, match=f"1 of 3 videos are missing, such as '{TRAIN}'"):
        read()
    assert len(read("--present_only")[0].videos) == 2
    shutil.rmtree(source / "rgb-images")
    with pytest.raises(InputError, match="has none of the 3 videos"):
        read("--present_only")


def lose_frame(folder, number):
    (folder / f"{number:05d}.jpg").unlink()


def test_all_videos_are_checked_before_the_first_is_decoded(read, source):
    lose_frame(source / "rgb-images" / TRAIN, 7)
    lose_frame(source / "rgb-images" / HELD_OUT, 4)
    with pytest.raises(InputError) as error:
        read()
    text = str(error.value)
    assert text.startswith("2 of 3 videos are not as annotated: ")
    assert (
        f"video '{TRAIN}': {source}/rgb-images/{TRAIN} has 6 frames, its annotation says 7" in text
    )
    assert f"video '{HELD_OUT}': " in text
    assert "the frames between 00003.jpg and 00005.jpg are missing" in text


def test_many_bad_videos_are_counted_and_a_few_shown(source):
    annotations = read_pyannot(source / "splitfiles" / "pyannot.pkl")
    first = annotations.videos[0]
    names = [f"Diving/v_Diving_g01_c{n:02d}" for n in range(2, 9)]
    bad = [dataclasses.replace(first, id=name, num_frames=99) for name in names]
    annotations = dataclasses.replace(annotations, videos=bad, root=source / "rgb-images")
    with pytest.raises(InputError) as error:
        ucf101_24.check_frames(annotations)
    assert str(error.value).startswith("7 of 7 videos are not as annotated: ")
    assert str(error.value).count("has 9 frames, its annotation says 99") == 5
    assert "; and 2 more. " in str(error.value)


def test_flow_of_another_length_or_missing_is_found_before_decoding(read, source):
    flow = source.parent / "flow"
    write_images(flow / TEST, 8)
    write_images(flow / TRAIN, 7)
    with pytest.raises(InputError) as error:
        read("--flow", str(flow))
    assert str(error.value).startswith("2 of 3 videos are not as annotated: ")
    assert f"video '{TEST}': 8 flow images" in str(error.value)
    assert f"video '{HELD_OUT}': has no folder of flow images" in str(error.value)
    with pytest.raises(InputError, match="no such folder"):
        read("--flow", str(source / "none"))
    assert "flow: none, as told" in read("--flow", "none")[1]


def test_mixed_sizes_in_a_video_are_an_error_that_names_the_frame(build, source):
    path = source / "rgb-images" / TRAIN / "00004.jpg"
    cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))
    with pytest.raises(InputError, match=r"00004\.jpg: is 36x26 pixels, .* are 34x26") as error:
        build()
    assert f"video '{TRAIN}'" in str(error.value)


def test_a_link_that_leads_elsewhere_is_not_followed(read, source, tmp_path):
    read()
    (source / "rgb-images").rename(source / "Frames")
    with pytest.raises(InputError, match=r"out/videos: leads to .*; remove it"):
        read()
    assert "videos: " in read(output="other")[1]


@pytest.mark.parametrize("groups", ["22-", "25-22", "x", "-3"])
def test_groups_are_numbers_and_ranges(read, groups):
    with pytest.raises(InputError, match=f"--validation_groups {groups}: "):
        read(f"--validation_groups={groups}")
    assert ucf101_24._groups("8, 22-24") == [8, 22, 23, 24]


def test_a_folder_without_annotations_or_lists(read, source, tmp_path):
    (source / "splitfiles" / "testlist01.txt").unlink()
    with pytest.raises(InputError, match=r"has no testlist01\.txt"):
        read()
    (source / "splitfiles" / "pyannot.pkl").unlink()
    with pytest.raises(InputError, match=r"has no annotations; expected one of pyannot_with"):
        read()
    with pytest.raises(InputError, match="no such folder"):
        prepare.main(["ucf101_24", "--source", str(tmp_path / "no"), "--output", "x"])
