"""AVA's CSV files: what they may look like, and what is said of those that are wrong."""

import csv

import numpy as np
import pytest

from step_jax.annotations.ava_csv import (
    NO_PERSON,
    AvaDetections,
    read_detections_csv,
    read_keyframes,
    read_labels,
    write_detections_csv,
)
from step_jax.errors import InputError

# The form of the real files: unpadded timestamps, a keyframe's rows apart, one person twice.
LABELS = """\
-b_2,0902,0.077,0.151,0.283,0.811,80,1
-b_2,0903,0.226,0.032,0.366,0.497,9,0
a.c,1000,0.332,0,0.481,1,12
-b_2,902,0.077,0.151,0.283,0.811,9,1

a.c,1798
 \t
a.c,1000,0.332,0.194,0.481,0.891,80
"""


def write(folder, text):
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_labels(tmp_path, line_end, start):
    labels = read_labels(write(tmp_path, start + LABELS.replace("\n", line_end)))
    assert labels.videos == ("-b_2", "a.c")
    assert labels.video.tolist() == [0, 0, 1, 0, 1]
    assert labels.timestamp.tolist() == [902, 903, 1000, 902, 1000]
    assert labels.action_id.tolist() == [80, 9, 12, 9, 80]
    assert labels.person_id.tolist() == [1, 0, NO_PERSON, 1, NO_PERSON]
    assert labels.boxes[1].tolist() == [0.226, 0.032, 0.366, 0.497]
    assert labels.boxes.dtype == np.float64
    assert (labels.empty.video.tolist(), labels.empty.timestamp.tolist()) == ([1], [1798])


def test_agrees_with_pythons_reader(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(500):
        numbers = ",".join(repr(float(x)) for x in rng.random(4))
        second = str(rng.integers(902, 1799)).zfill(rng.integers(3, 6))
        line = f"v{rng.integers(9)},{second},{numbers},{rng.integers(1, 81)}"
        lines += [line + ["", f",{rng.random()}"][rng.integers(2)]] + [""] * int(rng.random() < 0.1)
    path = write(tmp_path, "\n".join(lines))
    found = read_detections_csv(path)
    rows = [row for row in csv.reader(path.open()) if row]
    assert [found.videos[v] for v in found.video] == [row[0] for row in rows]
    assert found.timestamp.tolist() == [int(row[1]) for row in rows]
    assert found.boxes.tolist() == [[float(x) for x in row[2:6]] for row in rows]
    assert found.action_id.tolist() == [int(row[6]) for row in rows]
    assert found.score.tolist() == [float(row[7]) if len(row) == 8 else 1 for row in rows]


@pytest.mark.parametrize("text", ["", "\n", "\r\n \n"])
def test_files_without_rows(tmp_path, text):
    path = write(tmp_path, text)
    assert len(read_detections_csv(path)) == len(read_keyframes(path)) == 0
    assert len(read_labels(path)) == len(read_labels(path).empty) == 0
    assert read_labels(path).boxes.shape == (0, 4)


def test_keyframes(tmp_path):
    found = read_keyframes(write(tmp_path, "b,0902\na,1798\nb,902"))
    assert (found.videos, found.video.tolist()) == (("a", "b"), [1, 0, 1])
    assert found.timestamp.tolist() == [902, 1798, 902]


GOOD = "v,0902,0,0,1,1,12,0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,timestamp,x1,y1,x2,y2,action_id,person_id\n" + GOOD, r":1: .*a header\?"),
        (GOOD + "\nv,902,nan,0,1,1,12,0", ":3: x1 is 'nan'; expected a finite number"),
        (GOOD + "v,902,0,0,inf,1,12", ":2: x2 is 'inf'"),
        (GOOD + "v,902.5,0,0,1,1,12,0", ":2: timestamp is '902.5'; expected a whole number"),
        ("v,902,0,0,1,1,12.0,0\n" + GOOD, ":1: action_id is '12.0'"),
        (GOOD + "v,902,0,0,1,1,12,", ":2: person_id is ''"),
        (GOOD + "v,902,0,0,1,1,12,-1", ":2: person_id is -1"),
        (GOOD * 2 + "v,902,0,0,1.001,1,12", r":3: x2 is 1.001; expected .* in \[0, 1\]"),
        (GOOD + "v,902,0,-0.1,1,1,12,0", ":2: y1 is -0.1"),
        (GOOD + "v,0901,0,0,1,1,12,0", ":2: timestamp is 901; expected .*902 to 1798"),
        ("v,1799\n" + GOOD, ":1: timestamp is 1799"),
        (GOOD + "v,902,0,0,1,1,0,0", ":2: action_id is 0; expected an id from 1 to 80"),
        (GOOD + "v,902,0,0,1,1,81,0", ":2: action_id is 81"),
        (GOOD + "v,902,0,0,1,1,12,0,", r":2: 9 columns .*; expected 2 \(video, timestamp\), or 7"),
        (GOOD + "v,902,0", ":2: 3 columns"),
        (GOOD + "v", ":2: 1 column "),
        (GOOD + ",902", ":2: video is ''; expected a name$"),
        (GOOD + "v,902,0,0,1,1,99999999999999999999,0", ":2: action_id is '9999"),
        (b"\xff\xfe,902\n", ":1: video is"),
        (GOOD.replace("\n", "\r") + GOOD, ":1: 15 columns"),
        ("v,902\rv,0,0,1,1,12,0\n", "line ends|:1: timestamp is"),
    ],
)
def test_bad_labels_say_which_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        read_labels(write(tmp_path, text))
    assert "rows.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v,902,12,30,200,380,12,.5", ":1: x1 is 12.0; expected a share of the frame, not pixels"),
        ("v,902,0,0,1,1,12,nan", ":1: score is 'nan'"),
        ("v,902", ":1: 2 columns"),
        ("v,-5,0,0,1,1,12,.5", ":1: timestamp is -5"),
        ("v,902,0,0,1,1,0,.5", "ids, not indices from 0"),
    ],
)
def test_bad_detections(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_detections_csv(write(tmp_path, text))


def test_detections_may_leave_the_frame_and_the_keyframes(tmp_path):
    found = read_detections_csv(write(tmp_path, "v,1813,-0.1,-.2,1.2,1.3,12,-3\n"))
    assert found.boxes.tolist() == [[-0.1, -0.2, 1.2, 1.3]]
    assert (found.timestamp[0], found.score[0]) == (1813, -3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_written_detections_read_the_same(tmp_path, dtype):
    rng = np.random.default_rng(0)
    found = AvaDetections(
        ("a", "b"),
        rng.integers(0, 2, 50).astype(np.int32),
        rng.integers(0, 1799, 50).astype(np.int32),
        boxes=rng.random((50, 4)).astype(dtype),
        action_id=rng.integers(1, 81, 50).astype(np.int16),
        score=(rng.random(50) ** 9).astype(dtype),
    )
    write_detections_csv(tmp_path / "out.csv", found)
    again = read_detections_csv(tmp_path / "out.csv")
    for name in ("video", "timestamp", "action_id"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.testing.assert_array_equal(again.boxes.astype(dtype), found.boxes)
    np.testing.assert_array_equal(again.score.astype(dtype), found.score)
    line = (tmp_path / "out.csv").read_text().splitlines()[0].split(",")
    assert len(line) == 8
    assert line[1] == f"{found.timestamp[0]:04d}"


def test_a_name_with_a_comma_cannot_be_written(tmp_path):
    one = np.zeros(1, np.int32)
    found = AvaDetections(("a,b",), one, one, np.ones((1, 4)), one.astype(np.int16), np.ones(1))
    with pytest.raises(InputError, match="'a,b'"):
        write_detections_csv(tmp_path / "out.csv", found)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read: No such file"):
        read_labels(tmp_path / "none.csv")
