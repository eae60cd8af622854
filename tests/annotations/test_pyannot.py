"""UCF101-24's own annotation files."""

import pickle

import numpy as np
import pytest

from step_jax.annotations.ucf101_24 import CLASSES, read_pyannot
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
    """Pickles the data beside a split file with the basketball video, and reads it."""

    def read_pickled(data, **arguments):
        (tmp_path / "pyannot.pkl").write_bytes(pickle.dumps(data, 2))
        (tmp_path / "testlist01.txt").write_text(BASKETBALL)  # no newline, as in the real one
        arguments.setdefault("split_file", tmp_path / "testlist01.txt")
        return read_pyannot(tmp_path / "pyannot.pkl", **arguments)

    return read_pickled


def test_classes_are_the_24_in_order():
    assert len(CLASSES) == 24
    assert list(CLASSES[:3]) == ["Basketball", "BasketballDunk", "Biking"]
    assert CLASSES[14] == "SalsaSpin"


def test_reads_videos_splits_and_frames(read, data):
    annotations = read(data)
    assert annotations.classes == CLASSES
    test, train = annotations.video(BASKETBALL), annotations.video(DIVING)
    assert (test.split, train.split) == ("test", "train")
    assert (test.num_frames, test.width, test.height) == (9, 320, 240)
    assert [tube.labels for tube in (*test.tubes, *train.tubes)] == [(0,), (5,)]
    np.testing.assert_array_equal(test.tubes[0].frames, [2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_boxes_become_corners_without_overflow(read, dtype):
    # In uint8 101 + 200 is 45. The corners are x - 1, y - 1, x - 1 + w, y - 1 + h.
    boxes = [(101, 52, 200, 140), (1, 1, 255, 239)]
    annotations = read({BASKETBALL: record(boxes=boxes, dtype=dtype)})
    [tube] = annotations.videos[0].tubes
    np.testing.assert_array_equal(tube.boxes, [[100, 51, 300, 191], [0, 0, 255, 239]])


def test_a_slice_of_the_real_file_in_its_own_types(read):
    # v_SalsaSpin_g03_c01, tube 0, frame 0, and its frame count, in the file's uint8.
    entry = record(label=14, boxes=[(102, 50, 75, 157)], start=0)
    entry["numf"] = np.uint8(168)
    annotations = read({"SalsaSpin/v_SalsaSpin_g03_c01": entry, BASKETBALL: record()})
    video = annotations.video("SalsaSpin/v_SalsaSpin_g03_c01")
    assert video.num_frames == 168
    np.testing.assert_array_equal(video.tubes[0].boxes, [[101, 49, 176, 206]])


def test_the_form_with_class_names_knows_its_own_split(read, data):
    classes = [name.lower() for name in CLASSES]
    lower = {name.lower().replace("v_", "v_"): entry for name, entry in data.items()}
    wrapped = {"db": lower, "trainvideos": [DIVING.lower()], "classes": classes}
    annotations = read(wrapped, split_file=None)
    assert annotations.classes == tuple(classes)
    assert [video.split for video in annotations.videos] == ["test", "train"]


def test_finds_files_and_frame_folders_nested_or_not(read, data, tmp_path):
    (tmp_path / "videos" / "Diving" / "v_Diving_g20_c01").mkdir(parents=True)
    (tmp_path / "videos" / "v_Basketball_g01_c01.avi").touch()
    annotations = read(data, videos=tmp_path / "videos")
    assert annotations.root == tmp_path / "videos"
    paths = [video.path for video in annotations.videos]
    assert paths == ["v_Basketball_g01_c01.avi", "Diving/v_Diving_g20_c01"]


def test_missing_videos_are_an_error_unless_only_those_present_are_wanted(read, data, tmp_path):
    (tmp_path / "v_Diving_g20_c01.mp4").touch()
    with pytest.raises(InputError, match=f"1 of 2 videos are missing, such as '{BASKETBALL}'"):
        read(data, videos=tmp_path)
    annotations = read(data, videos=tmp_path, present_only=True)
    assert [video.id for video in annotations.videos] == [DIVING]
    with pytest.raises(InputError, match="has none of the 1 videos"):
        read(data, videos=tmp_path, present_only=True, split="test")
    (tmp_path / "v_Diving_g20_c01.avi").touch()
    with pytest.raises(InputError, match="there more than once"):
        read(data, videos=tmp_path, present_only=True)


def test_split_keeps_one_side(read, data):
    assert [video.id for video in read(data, split="test").videos] == [BASKETBALL]
    assert [video.id for video in read(data, split="train").videos] == [DIVING]


def change(data, **changes):
    data[BASKETBALL]["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 1}, "tube 0: label 1 is BasketballDunk, but the video is"),
        ({"label": 24}, "label 24 is no class"),
        ({"ef": 9}, r"tube 0: boxes have shape \(1, 4\), but sf 2 and ef 9"),
        ({"sf": 20, "ef": 21}, "tube 0 covers frames 20 to 20"),
        ({"boxes": np.array([[1, 1, 0, 5]], np.uint8)}, "frame 2 has an empty or inverted box"),
        ({"boxes": None}, r"boxes have shape \(\)"),
        ({"sf": "x"}, "not as expected in a pyannot file"),
    ],
)
def test_a_wrong_tube_is_an_error_that_names_its_video(read, data, changes, message):
    change(data, **changes)
    with pytest.raises(InputError, match=message) as error:
        read(data)
    assert BASKETBALL in str(error.value)


def test_other_pickles_and_lists_are_input_errors(read, data, tmp_path):
    with pytest.raises(InputError, match="is not a pyannot file"):
        read([1, 2])
    with pytest.raises(InputError, match="expected a name like"):
        read({"../../etc/passwd": record()})
    with pytest.raises(InputError, match="does not say which videos are for training"):
        read(data, split_file=None)
    (tmp_path / "list.txt").write_text("Archery/v_Archery_g01_c01\n")
    with pytest.raises(InputError, match="none of its 1 names"):
        read(data, split_file=tmp_path / "list.txt")
    with pytest.raises(InputError, match="cannot be read as a list"):
        read(data, split_file=tmp_path / "none.txt")
