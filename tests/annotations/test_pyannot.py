"""pyannot.pkl, with and without class names, in and out."""

import dataclasses
import pickle

import numpy as np
import pytest

from step_jax.annotations import Annotations, Tube
from step_jax.annotations.foreign import UNASSIGNED, Source
from step_jax.annotations.pyannot import read_pyannot, write_pyannot
from step_jax.annotations.ucf101_24 import CLASSES
from step_jax.errors import InputError

BASKETBALL, DIVING = "Basketball/v_Basketball_g01_c01", "Diving/v_Diving_g20_c01"


def record(label=0, boxes=((101, 52, 200, 140),), start=2, numf=9, dtype=np.uint8):
    boxes = np.array(boxes, dtype)
    tube = {"label": label, "sf": start, "ef": start + len(boxes), "boxes": boxes}
    return {"label": label, "numf": np.uint8(numf), "annotations": [tube]}


@pytest.fixture
def data():
    return {BASKETBALL: record(), DIVING: record(label=5)}


@pytest.fixture
def read(tmp_path):
    """Pickles the data and reads it."""

    def read_pickled(data, **arguments):
        (tmp_path / "pyannot.pkl").write_bytes(pickle.dumps(data, 2))
        return read_pyannot(tmp_path / "pyannot.pkl", **arguments)

    return read_pickled


def test_classes_are_the_24_in_order():
    assert len(CLASSES) == 24
    assert list(CLASSES[:3]) == ["Basketball", "BasketballDunk", "Biking"]
    assert CLASSES[14] == "SalsaSpin"


def test_reads_videos_and_frames(read, data):
    annotations = read(data)
    assert annotations.classes == CLASSES
    first, second = annotations.video(BASKETBALL), annotations.video(DIVING)
    assert (first.split, first.path) == (UNASSIGNED, BASKETBALL)
    assert (first.num_frames, first.width, first.height) == (9, 320, 240)
    assert [tube.labels for tube in (*first.tubes, *second.tubes)] == [(0,), (5,)]
    np.testing.assert_array_equal(first.tubes[0].frames, [2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_boxes_become_corners_without_overflow(read, dtype):
    # In uint8 101 + 200 is 45. The corners are x - 1, y - 1, x - 1 + w, y - 1 + h.
    boxes = [(101, 52, 200, 140), (1, 1, 255, 239)]
    annotations = read({BASKETBALL: record(boxes=boxes, dtype=dtype)})
    [tube] = annotations.videos[0].tubes
    np.testing.assert_array_equal(tube.boxes, [[100, 51, 300, 191], [0, 0, 255, 239]])


def test_frame_numbers_do_not_overflow_either(read):
    entry = record(start=np.uint8(200), numf=255)
    entry["annotations"][0]["ef"] = np.uint8(201)
    [tube] = read({BASKETBALL: entry}).videos[0].tubes
    np.testing.assert_array_equal(tube.frames, [200])


def test_a_slice_of_the_real_file_in_its_own_types(read):
    # v_SalsaSpin_g03_c01, tube 0, frame 0, and its frame count, in the file's uint8.
    entry = record(label=14, boxes=[(102, 50, 75, 157)], start=0)
    entry["numf"] = np.uint8(168)
    video = read({"SalsaSpin/v_SalsaSpin_g03_c01": entry}).videos[0]
    assert video.num_frames == 168
    np.testing.assert_array_equal(video.tubes[0].boxes, [[101, 49, 176, 206]])


def test_the_form_with_class_names_knows_its_own_split(read, data):
    classes = [name.lower() for name in CLASSES]
    lower = {name.lower(): entry for name, entry in data.items()}
    annotations = read({"db": lower, "trainvideos": [DIVING.lower()], "classes": classes})
    assert annotations.classes == tuple(classes)
    assert [video.split for video in annotations.videos] == ["test", "train"]


def test_other_classes_and_frames_can_be_told(read):
    source = Source(name="jhmdb", classes=("clap", "walk"), width=64, height=48, fps=30)
    [video] = read({"walk/#20_a": record(label=1)}, source=source).videos
    assert (video.width, video.height, video.fps) == (64, 48, 30)


def change(data, **changes):
    data[BASKETBALL]["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 1}, "tube 0: label 1 is BasketballDunk, but the video is"),
        ({"label": 24}, "label 24 is no class"),
        ({"label": -1}, "label -1 is no class"),
        ({"ef": 9}, r"tube 0: boxes have shape \(1, 4\), but sf 2 and ef 9"),
        ({"sf": 20, "ef": 21}, "tube 0 covers frames 20 to 20"),
        ({"sf": 2.5}, "sf is 2.5; expected a whole number"),
        ({"boxes": np.array([[1, 1, 0, 5]], np.uint8)}, "frame 2 has an empty or inverted box"),
        ({"boxes": np.array([[1, 1, np.nan, 5]])}, "frame 2 has a box that is not finite"),
        ({"boxes": None}, r"boxes have shape \(\)"),
        ({"sf": "x"}, "not as expected in a pyannot file"),
    ],
)
def test_a_wrong_tube_is_an_error_that_names_its_video(read, data, changes, message):
    change(data, **changes)
    with pytest.raises(InputError, match=message) as error:
        read(data)
    assert f"pyannot.pkl: video {BASKETBALL!r}" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is not a pyannot file"),
        ({}, "has no video"),
        ({"db": {}, "trainvideos": []}, "has no video"),
        ({"db": {BASKETBALL: record()}}, "not as expected in a pyannot file: KeyError"),
        ({"../../etc/passwd": record()}, "expected a name like"),
        ({7: record()}, "video 7: expected a name like"),
    ],
)
def test_other_pickles_are_input_errors(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content)


def test_what_is_written_is_read_back(read, data, tmp_path):
    data[DIVING]["annotations"].append(data[DIVING]["annotations"][0] | {"sf": 7, "ef": 8})
    wrapped = {"db": data, "trainvideos": [DIVING], "classes": list(CLASSES)}
    annotations = read(wrapped)
    write_pyannot(tmp_path / "out.pkl", annotations)
    assert read_pyannot(tmp_path / "out.pkl") == annotations
    half = dataclasses.replace(annotations.videos[0], tubes=[Tube((0,), [0], [[0.5, 1, 7, 8]])])
    written = dataclasses.replace(annotations, videos=[half])
    write_pyannot(tmp_path / "out.pkl", written)
    assert read_pyannot(tmp_path / "out.pkl") == written


@pytest.mark.parametrize(
    ("tube", "message"),
    [
        (Tube((0,), [1, 3], [[1, 1, 5, 5]] * 2), "tube 0: has gaps between its frames 1 and 3"),
        (Tube((0, 2), [1], [[1, 1, 5, 5]]), r"tube 0: has the 2 classes \[0, 2\]"),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(read, data, tmp_path, tube, message):
    annotations = read(data)
    video = dataclasses.replace(annotations.videos[0], tubes=[tube])
    with pytest.raises(InputError, match=message):
        write_pyannot(tmp_path / "out.pkl", dataclasses.replace(annotations, videos=[video]))
    videos = [annotations.videos[0], dataclasses.replace(annotations.videos[1], width=640)]
    with pytest.raises(InputError, match="one frame size"):
        write_pyannot(tmp_path / "out.pkl", Annotations("a", CLASSES, videos, tmp_path))
    assert not (tmp_path / "out.pkl").exists()
