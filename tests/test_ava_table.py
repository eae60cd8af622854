"""Detections on AVA's keyframes as files."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from step_jax.annotations.ava_csv import AvaDetections
from step_jax.ava_table import SCHEMA, read_ava_detections, write_ava_detections
from step_jax.errors import InputError

COLUMNS = ("video", "timestamp", "boxes", "action_id", "score")


def detections(videos=("a", "b", "c"), count=40, seed=0):
    rng = np.random.default_rng(seed)
    return AvaDetections(
        videos,
        rng.integers(0, len(videos), count).astype(np.int32),
        rng.integers(902, 1799, count).astype(np.int32),
        boxes=rng.random((count, 4)).astype(np.float32),
        action_id=rng.integers(1, 81, count).astype(np.int16),
        score=rng.random(count).astype(np.float32),
    )


def assert_same(one, other):
    assert one.videos == other.videos
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("count", [0, 40])
def test_parquet(tmp_path, count):
    found = detections(count=count)
    write_ava_detections(tmp_path / "d.parquet", found)
    again = read_ava_detections([tmp_path / "d.parquet"])
    assert_same(again, found if count else replace(found, videos=()))
    assert [getattr(again, name).dtype for name in COLUMNS] == [
        *(np.int32, np.int32, np.float32, np.int16, np.float32)
    ]


def test_wider_columns_and_another_order(tmp_path):
    found = detections()
    x1, y1, x2, y2 = found.boxes.astype(np.float64).T
    columns = {"score": found.score.astype(np.float64), "x2": x2, "y2": y2, "x1": x1, "y1": y1}
    columns |= {"action_id": found.action_id.astype(np.int64), "surplus": found.score}
    columns |= {"timestamp": found.timestamp.astype(np.int16)}
    columns["video"] = [found.videos[v] for v in found.video]
    pq.write_table(pa.table(columns), tmp_path / "d.parquet", row_group_size=7)
    assert_same(read_ava_detections([tmp_path / "d.parquet"]), found)


def test_shards_of_both_kinds(tmp_path):
    one, other = detections(("b", "d")), detections(("a", "c"), seed=1)
    write_ava_detections(tmp_path / "1.parquet", one)
    write_ava_detections(tmp_path / "2.csv", other)
    both = read_ava_detections([tmp_path / "1.parquet", tmp_path / "2.csv"])
    assert both.videos == ("a", "b", "c", "d")
    assert_same(both.take(slice(0, 40)), replace(one, videos=both.videos, video=1 + 2 * one.video))
    later = both.take(slice(40, None))
    assert [later.videos[v] for v in later.video] == [other.videos[v] for v in other.video]
    np.testing.assert_array_equal(later.boxes.astype(np.float32), other.boxes)


def test_a_keyframe_in_two_shards(tmp_path):
    write_ava_detections(tmp_path / "1.parquet", detections(count=3))
    write_ava_detections(tmp_path / "2.parquet", detections(count=3))
    with pytest.raises(InputError, match=r"2\.parquet: has rows of .* and so has .*1\.parquet"):
        read_ava_detections([tmp_path / "1.parquet", tmp_path / "2.parquet"])


def table(**changes):
    columns = {"video": ["a"], "timestamp": [902], "action_id": [3], "score": [0.5]}
    columns |= {name: [0.5] for name in ("x1", "y1", "x2", "y2")}
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamp": None}, "has no column 'timestamp'"),
        ({"action_id": [3.0]}, "column 'action_id' is double; expected int16"),
        ({"x1": ["0.5"]}, "column 'x1' is string; expected float"),
        ({"score": pa.array([None], pa.float32())}, "column score has empty values"),
        ({"video": pa.array([None], pa.string())}, "column video has empty values"),
        ({"score": [float("nan")]}, "row 0: score is nan; expected a finite number"),
        ({"action_id": [60_000]}, "row 0: action_id is 60000"),
        ({"x2": [200.0]}, "row 0: x2 is 200.0; expected a share of the frame, not pixels"),
        ({"timestamp": [-1]}, "row 0: timestamp is -1"),
    ],
)
def test_bad_tables(tmp_path, changes, message):
    pq.write_table(table(**changes), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=message):
        read_ava_detections([tmp_path / "d.parquet"])


def test_broken_files(tmp_path):
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="cannot be read as a Parquet table"):
        read_ava_detections([tmp_path / "d.parquet"])
    with pytest.raises(InputError, match="No such file"):
        read_ava_detections([tmp_path / "none.parquet"])


def test_the_schema_is_the_csvs():
    assert SCHEMA.names == ["video", "timestamp", "x1", "y1", "x2", "y2", "action_id", "score"]
