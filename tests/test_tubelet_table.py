import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from step_jax import tubelet_table, tubelet_writer
from step_jax.detections import DetectionsWriter
from step_jax.errors import InputError
from step_jax.tubelet_table import iter_tubelet_videos, read_tubelet_header, read_tubelets
from step_jax.tubelet_writer import TubeletWriter, merge_tubelets, write_tubelets

HEADER = {"classes": ("run", "jump"), "clip_frames": 3, "stride": 1, "num_steps": 3, "num_boxes": 2}


def columns(keys, *, seed=0):
    """Rows of (video, step, start, proposal) with random numbers."""
    rng = np.random.default_rng(seed)
    video, step, start, proposal = zip(*keys, strict=True)
    return {
        "video": list(video),
        "step": np.array(step),
        "start": np.array(start),
        "proposal": np.array(proposal),
        "scores": rng.random((len(keys), 2), np.float32),
        "tubes": rng.normal(size=(len(keys), 2, 3, 4)).astype(np.float32),
    }


def all_keys():
    return [
        (video, step, start, proposal)
        for video in ("b", "a", "c")
        for step in (1, 3)
        for start in (0, 1, 2)
        for proposal in (0, 1)
    ]


def written(path, parts, **header):
    with TubeletWriter(path, **{**HEADER, **header}) as writer:
        for part in parts:
            writer.append(part)
    return path


def by_key(rows):
    """{(video, step, start, proposal): (scores, tubes)}, the whole content of a table."""
    names = np.asarray(rows.videos, object)[rows.video]
    keys = zip(names, rows.step.tolist(), rows.start.tolist(), rows.proposal.tolist(), strict=True)
    return {key: (rows.scores[i], rows.tubes[i]) for i, key in enumerate(keys)}


def assert_same_content(rows, expected):
    found = by_key(rows)
    assert found.keys() == expected.keys()
    for key, (scores, tubes) in expected.items():
        np.testing.assert_array_equal(found[key][0], scores)
        np.testing.assert_array_equal(found[key][1], tubes)


def content(part):
    keys = zip(part["video"], part["step"], part["start"], part["proposal"], strict=True)
    return {
        (video, int(step), int(start), int(proposal)): (part["scores"][i], part["tubes"][i])
        for i, (video, step, start, proposal) in enumerate(keys)
    }


@pytest.mark.parametrize("pending_bytes", [1, 1 << 20], ids=["a flush a batch", "one flush"])
def test_rows_in_any_order_come_back_by_video_and_sorted(tmp_path, monkeypatch, pending_bytes):
    monkeypatch.setattr(tubelet_writer, "PENDING_BYTES", pending_bytes)
    monkeypatch.setattr(tubelet_writer, "BUCKETS", 2)  # so that videos share one
    keys = all_keys()
    np.random.default_rng(1).shuffle(keys)
    parts = [columns(keys[i : i + 5], seed=i) for i in range(0, len(keys), 5)]
    path = written(tmp_path / "t.parquet", parts)
    videos = list(iter_tubelet_videos(path))
    assert sorted(rows.videos for rows in videos) == [("a",), ("b",), ("c",)]
    for rows in videos:
        order = list(zip(rows.step, rows.start, rows.proposal, strict=True))
        assert order == sorted(order)
    expected = {key: value for part in parts for key, value in content(part).items()}
    assert_same_content(read_tubelets(path), expected)
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_one_step_is_read_alone_and_videos_without_it_are_left_out(tmp_path):
    part = columns([("a", 1, 0, 0), ("a", 3, 0, 0), ("b", 1, 0, 0)])
    path = written(tmp_path / "t.parquet", [part])
    (rows,) = iter_tubelet_videos(path, step=3)
    assert by_key(rows).keys() == {("a", 3, 0, 0)}
    assert by_key(read_tubelets(path, step=1)).keys() == {("a", 1, 0, 0), ("b", 1, 0, 0)}


def test_the_header_says_which_steps_there_are(tmp_path):
    path = written(tmp_path / "t.parquet", [columns([("a", 3, 0, 0)])], steps=(3,))
    assert read_tubelet_header(path).steps == (3,)
    with pytest.raises(InputError, match=r"step 2: the tubelet table has steps \[3\]"):
        list(iter_tubelet_videos(path, step=2))


def test_a_table_in_memory_is_written_and_read_back(tmp_path):
    rows = read_tubelets(written(tmp_path / "t.parquet", [columns(all_keys())]))
    write_tubelets(tmp_path / "again.parquet", rows)
    again = read_tubelets(tmp_path / "again.parquet")
    assert again.header == rows.header
    assert_same_content(again, by_key(rows))


def test_no_rows_make_an_empty_table(tmp_path):
    rows = read_tubelets(written(tmp_path / "t.parquet", []))
    assert len(rows) == 0
    assert rows.tubes.shape == (0, 2, 3, 4)


def test_parts_are_merged_and_an_overlap_is_refused(tmp_path):
    first = columns([("a", 1, 0, 0), ("b", 1, 0, 0)], seed=1)
    second = columns([("a", 1, 1, 0), ("c", 1, 0, 0)], seed=2)
    paths = [written(tmp_path / f"{i}.parquet", [part]) for i, part in enumerate((first, second))]
    merge_tubelets(paths, tmp_path / "all.parquet")
    assert_same_content(read_tubelets(tmp_path / "all.parquet"), content(first) | content(second))
    with pytest.raises(InputError, match="video 'a', step 1, window at 0, proposal 0 occurs twice"):
        merge_tubelets([paths[0], *paths], tmp_path / "twice.parquet")
    assert not (tmp_path / "twice.parquet").exists()


def test_parts_of_different_detectors_are_not_merged(tmp_path):
    parts = [columns([("a", 1, 0, 0)])]
    one, other = (
        written(tmp_path / f"{name}.parquet", parts, provenance={"checkpoint": name})
        for name in ("1", "2")
    )
    with pytest.raises(InputError, match="of different detectors or windows"):
        merge_tubelets([one, other], tmp_path / "all.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full((1, 2), np.nan)}, "row 0 .video 'a', window at 4.: scores is not fin"),
        ({"tubes": np.full((1, 2, 3, 4), np.inf)}, "tubes is not finite; expected finite numbers"),
        ({"step": [4]}, r"step is 4; expected one of \[1, 2, 3\]"),
        ({"start": [-1]}, "start is -1; expected 0 or more"),
        ({"proposal": [-2]}, "proposal is -2; expected 0 or more"),
    ],
)
def test_values_that_mean_nothing_are_refused_on_both_ways(tmp_path, change, message, monkeypatch):
    part = columns([("a", 1, 4, 0)]) | {k: np.asarray(v) for k, v in change.items()}
    with pytest.raises(InputError, match=message):
        written(tmp_path / "t.parquet", [part])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tubelet_writer, "check_values", lambda *_, **__: None)
    path = written(tmp_path / "t.parquet", [part])
    with pytest.raises(InputError, match=message):
        read_tubelets(path)


def test_an_error_inside_the_block_leaves_nothing(tmp_path):
    def interrupted():
        with TubeletWriter(tmp_path / "t.parquet", **HEADER) as writer:
            writer.append(columns([("a", 1, 0, 0)]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_table_is_named(tmp_path):
    path = tmp_path / "d.parquet"
    with DetectionsWriter(path, classes=["run"], clip_frames=6, stride=1, num_steps=1):
        pass
    assert not tubelet_table.is_tubelet_table(path)
    with pytest.raises(InputError, match=r"not a tubelet table \(it is step_jax.detections\)"):
        read_tubelets(path)


def test_a_file_with_the_rows_of_a_video_apart_is_refused(tmp_path):
    path = written(tmp_path / "t.parquet", [columns(all_keys())])
    table = pq.read_table(path)
    names = table["video"].to_pylist()
    mixed = table.take(pa.array([names.index("a"), names.index("b")]))
    pq.write_table(mixed, tmp_path / "mixed.parquet")
    with pytest.raises(InputError, match="row group 0 does not hold one whole video"):
        read_tubelets(tmp_path / "mixed.parquet")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes", "5"),
        ("classes", "[1, 2]"),
        ("clip_frames", "-3"),
        ("clip_frames", '"three"'),
        ("clip_frames", "3.0"),
        ("clip_frames", "null"),
        ("num_boxes", "1000000000000"),
        ("stride", "0"),
        ("stride", "-1"),
        ("steps", '["a"]'),
        ("num_steps", "0"),
        ("provenance", "[1, 2]"),
        ("provenance", "[" * 100000),
    ],
)
def test_metadata_that_mean_nothing(tmp_path, name, text):
    path = written(tmp_path / "t.parquet", [columns([("a", 1, 0, 0)])])
    table = pq.read_table(path)
    metadata = table.schema.metadata | {name.encode(): text.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=r"t\.parquet: its metadata are broken at"):
        read_tubelets(path)


@pytest.mark.parametrize("inside", [False, True], ids=["a row", "a number of a row"])
@pytest.mark.parametrize("name", ["scores", "tubes"])
def test_empty_values_are_refused(tmp_path, name, inside):
    path = written(tmp_path / "t.parquet", [columns(all_keys()[:12])])
    table = pq.read_table(path)
    values = table[name].to_pylist()
    values[5] = [None, *values[5][1:]] if inside else None
    field = table.schema.field(name)
    at = table.schema.get_field_index(name)
    table = table.set_column(at, field, pa.array(values, field.type))
    pq.write_table(table, path)
    with pytest.raises(InputError, match=f"column '{name}' has empty values"):
        read_tubelets(path)


def test_a_truncated_file_is_one_clear_error(tmp_path):
    path = written(tmp_path / "t.parquet", [columns(all_keys())])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="cannot be read as a tubelet table"):
        read_tubelets(path)


def test_boxes_are_one_or_as_many_as_classes(tmp_path):
    with pytest.raises(InputError, match="num_boxes is 3; expected 1 or as many as classes, 2"):
        written(tmp_path / "t.parquet", [], num_boxes=3)
