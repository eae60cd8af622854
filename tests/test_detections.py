"""The table survives writing, merging and misuse."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from step_jax import detections as table
from step_jax import row_groups, table_header
from step_jax.detections import (
    SCHEMA,
    DetectionsWriter,
    merge_detections,
    read_detections,
    read_header,
    write_detections,
)
from step_jax.errors import InputError

HEADER = {
    "classes": ("walk", 'häufig, "quoted"'),
    "clip_frames": 6,
    "stride": 2,
    "num_steps": 3,
    "provenance": {"checkpoint": "run/120", "score_threshold": "0.01"},
}


def random_rows(seed, *, count=50, videos=("b", "a", "c")):
    """Columns of distinct rows, in no order."""
    rng = np.random.default_rng(seed)
    return {
        "video": rng.choice(np.array(videos, object), count),
        "frame": rng.permutation(count),
        "step": rng.integers(1, 4, count),
        "tubelet": rng.integers(0, 2**31, count),
        "class": rng.integers(0, 2, count),
        "score": rng.uniform(size=count).astype(np.float32),
        **{name: rng.uniform(size=count).astype(np.float32) for name in ("x1", "y1", "x2", "y2")},
    }


def write(path, *parts, **changes):
    with DetectionsWriter(path, **HEADER | changes) as writer:
        for rows in parts:
            writer.append(rows)
    return path


def as_rows(detections):
    """The rows as a list of tuples, the slow way."""
    d = detections
    return [
        (d.videos[d.video[i]], d.frame[i], d.step[i], d.tubelet[i], d.label[i], d.score[i], *box)
        for i, box in enumerate(d.boxes)
    ]


def test_what_is_written_is_read(tmp_path):
    parts = [random_rows(seed) for seed in range(3)]
    path = write(tmp_path / "d.parquet", *parts)
    read = read_detections(path)
    expected = [row for part in parts for row in zip(*part.values(), strict=True)]
    assert as_rows(read) == expected
    assert read.header == read_header(path) == table.TableHeader(**HEADER)
    assert read.classes == HEADER["classes"]
    assert read.video.dtype == read.frame.dtype == read.tubelet.dtype == np.int32
    assert (read.step.dtype, read.label.dtype) == (np.int8, np.int16)
    assert read.score.dtype == read.boxes.dtype == np.float32


@pytest.mark.parametrize("row_group_rows", [7, 100, 2**20])
def test_one_step_of_many_row_groups(tmp_path, row_group_rows):
    """Whose dictionaries of names differ; a broken row is named by its place in the file."""
    parts = [random_rows(seed, videos=(f"v{seed}", "v")) for seed in range(3)]
    path = write(tmp_path / "d.parquet", *parts, row_group_rows=row_group_rows)
    everything = [row for part in parts for row in zip(*part.values(), strict=True)]
    assert as_rows(read_detections(path)) == everything
    assert as_rows(read_detections(path, step=2)) == [row for row in everything if row[2] == 2]
    stored = pq.read_table(path)
    scores = stored["score"].to_numpy().copy()
    scores[len(scores) - 5] = np.nan
    changed = stored.set_column(5, SCHEMA.field("score"), pa.array(scores))
    pq.write_table(changed, path, row_group_size=row_group_rows)
    with pytest.raises(InputError, match=rf"row {len(scores) - 5} .*score is nan"):
        read_detections(path, step=1)


def test_any_reader_of_parquet_finds_the_schema(tmp_path):
    path = write(tmp_path / "d.parquet", random_rows(0))
    stored = pq.read_table(path)
    assert stored.schema.equals(SCHEMA)
    assert stored["video"].to_pylist() == random_rows(0)["video"].tolist()
    assert stored.schema.metadata[b"format"] == b"step_jax.detections"
    assert stored.schema.metadata[b"version"] == b"1"


def test_which_frames_of_a_window_have_rows(tmp_path):
    path = write(tmp_path / "d.parquet", random_rows(0), frames="middle")
    assert read_detections(path).header.frames == "middle"
    write_detections(tmp_path / "copy.parquet", read_detections(path))
    assert read_header(tmp_path / "copy.parquet").frames == "middle"
    other = write(tmp_path / "all.parquet", random_rows(1))
    with pytest.raises(InputError, match=r"all\.parquet: frames is all, but middle in"):
        merge_detections([path, other], tmp_path / "m.parquet")

    def without(table):
        kept = {key: v for key, v in table.schema.metadata.items() if key != b"frames"}
        return table.replace_schema_metadata(kept)

    rewrite(path, without)  # as tables were before
    assert read_header(path).frames == "all"


def test_one_step_alone(tmp_path):
    path = write(tmp_path / "d.parquet", random_rows(0), random_rows(1))
    everything = read_detections(path)
    of_step = as_rows(everything.at_step(2))
    assert of_step == [row for row in as_rows(everything) if row[2] == 2]
    assert as_rows(read_detections(path, step=2)) == of_step
    with pytest.raises(InputError, match="step 4: the detections have steps 1 to 3"):
        everything.at_step(4)


def test_an_empty_table_is_legal(tmp_path):
    nothing = {name: column[:0] for name, column in random_rows(0).items()}
    for parts in ((), (nothing,)):
        path = write(tmp_path / "d.parquet", *parts)
        read = read_detections(path)
        assert len(read) == len(read_detections(path, step=1)) == 0
        assert read.boxes.shape == (0, 4)
        merge_detections([path], tmp_path / "m.parquet")
        assert len(read_detections(tmp_path / "m.parquet")) == 0


def test_row_groups_are_written_as_they_fill(tmp_path):
    with DetectionsWriter(tmp_path / "d.parquet", **HEADER, row_group_rows=100) as writer:
        for seed in range(5):
            writer.append(random_rows(seed, count=60))
            assert waiting_rows(writer) < 100
    metadata = pq.ParquetFile(tmp_path / "d.parquet").metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(sizes) == 300
    assert max(sizes) <= 100


def waiting_rows(writer):
    return sum(len(batch) for batch in [*writer._combined, *writer._waiting])


def test_many_small_or_empty_pieces_are_kept_as_few(tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "_MOST_WAITING", 8)
    rows = random_rows(0, count=400)
    pieces = [{name: values[i : i + 1] for name, values in rows.items()} for i in range(400)]
    nothing = {name: values[:0] for name, values in rows.items()}
    with DetectionsWriter(tmp_path / "d.parquet", **HEADER, row_group_rows=150) as writer:
        for number, piece in enumerate(pieces):
            writer.append(piece)
            writer.append(nothing)
            assert waiting_rows(writer) == (number + 1) % 150
            assert len(writer._combined) + len(writer._waiting) <= 150 // 8 + 8
    metadata = pq.ParquetFile(tmp_path / "d.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(3)] == [150, 150, 100]
    found = pq.read_table(tmp_path / "d.parquet").to_pydict()
    assert {name: np.asarray(values).tolist() for name, values in rows.items()} == found


def test_a_name_that_is_no_utf8_is_an_error(tmp_path):
    path = tmp_path / os.fsdecode(b"vid\xe9o.parquet")
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        DetectionsWriter(path, **HEADER)


def test_an_error_leaves_no_file_and_no_change(tmp_path):
    def fail(path):
        with DetectionsWriter(path, **HEADER) as writer:
            writer.append(random_rows(0))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail(tmp_path / "d.parquet")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "d.parquet", random_rows(1))
    before = (tmp_path / "d.parquet").read_bytes()
    with pytest.raises(RuntimeError, match="power cut"):
        fail(tmp_path / "d.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["d.parquet"]
    assert (tmp_path / "d.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", np.nan, "row 7 .*score is nan; expected a finite number"),
        ("x2", np.inf, "x2 is inf; expected a finite number"),
        ("class", 2, "class is 2; expected 0 to 1"),
        ("class", -1, "class is -1; expected 0 to 1"),
        ("step", 0, "step is 0; expected 1 to 3"),
        ("step", 4, "step is 4; expected 1 to 3"),
        ("frame", -1, "frame is -1; expected 0 or more"),
        ("tubelet", -3, "tubelet is -3; expected 0 or more"),
    ],
)
def test_values_that_mean_nothing_are_refused(tmp_path, column, value, message):
    rows = random_rows(0)
    rows[column][7] = value
    with pytest.raises(InputError, match=message):
        write(tmp_path / "d.parquet", rows)
    columns = [
        pa.array(rows[field.name], field.type)
        if field.name != "video"
        else pa.array(rows["video"], pa.string()).dictionary_encode()
        for field in SCHEMA
    ]
    metadata = table_header.to_metadata(
        table.TableHeader(**HEADER), format=table.FORMAT, version=table.VERSION
    )
    schema = SCHEMA.with_metadata(metadata)
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=f"d.parquet: .*{message}"):
        read_detections(tmp_path / "d.parquet")


def rewrite(path, change):
    """Writes the table at `path` again after `change(table)`, past the checks of the writer."""
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace_schema_metadata({}), "not a detections table"),
        (
            lambda t: t.replace_schema_metadata(t.schema.metadata | {b"version": b"2"}),
            "of version 2; this program reads version 1",
        ),
        (
            lambda t: t.replace_schema_metadata(t.schema.metadata | {b"classes": b"[walk"}),
            "metadata are broken",
        ),
        (
            lambda t: t.replace_schema_metadata(t.schema.metadata | {b"frames": b'"some"'}),
            "frames 'some': expected one of all, middle",
        ),
        (lambda t: t.drop_columns(["score"]), "column 'score' is missing; expected float"),
        (
            lambda t: t.set_column(1, "frame", t["frame"].cast(pa.int64())),
            "column 'frame' is int64; expected int32",
        ),
        (
            lambda t: t.set_column(5, "score", pa.array([None] * len(t), pa.float32())),
            "column 'score' has empty values",
        ),
        (lambda t: pa.concat_tables([t, t.slice(3, 2)]), "2 rows occur twice, first video"),
    ],
)
def test_tables_that_are_wrong(tmp_path, change, message):
    path = write(tmp_path / "d.parquet", random_rows(0))
    rewrite(path, change)
    with pytest.raises(InputError, match=message) as caught:
        read_detections(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_tables(tmp_path):
    path = write(tmp_path / "d.parquet", random_rows(0))
    path.write_bytes(path.read_bytes()[:-20])
    for broken in (path, tmp_path / "missing.parquet"):
        with pytest.raises(InputError, match="cannot be read as a detections table"):
            read_detections(broken)


def test_merging_gives_the_same_file_in_any_order(tmp_path):
    parts = [random_rows(0), random_rows(1, videos=("a", "d")), random_rows(2, count=0)]
    paths = [write(tmp_path / f"{i}.parquet", part) for i, part in enumerate(parts)]
    merge_detections(paths, tmp_path / "m.parquet")
    merge_detections(paths[::-1], tmp_path / "n.parquet")
    assert (tmp_path / "m.parquet").read_bytes() == (tmp_path / "n.parquet").read_bytes()
    rows = [row for part in parts for row in zip(*part.values(), strict=True)]
    rows.sort(key=lambda row: (row[0], row[2], row[3], row[4], row[1]))
    merged = read_detections(tmp_path / "m.parquet")
    assert as_rows(merged) == rows
    assert merged.header == table.TableHeader(**HEADER)


def test_merging_refuses_overlap_and_strangers(tmp_path):
    first = write(tmp_path / "0.parquet", random_rows(0))
    overlap = {name: column[10:12] for name, column in random_rows(0).items()}
    again = write(tmp_path / "1.parquet", overlap)
    with pytest.raises(InputError, match="2 rows occur twice"):
        merge_detections([first, again], tmp_path / "m.parquet")
    other = write(tmp_path / "2.parquet", random_rows(1), stride=1)
    with pytest.raises(InputError, match=r"2\.parquet: stride is 1, but 2 in .*0\.parquet"):
        merge_detections([first, other], tmp_path / "m.parquet")
    with pytest.raises(InputError, match="no detections tables"):
        merge_detections([], tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_writing_from_memory_in_several_pieces(tmp_path, monkeypatch):
    read = read_detections(write(tmp_path / "d.parquet", random_rows(0), random_rows(1)))
    monkeypatch.setattr(table, "ROW_GROUP_ROWS", 30)
    write_detections(tmp_path / "e.parquet", read)
    assert as_rows(read_detections(tmp_path / "e.parquet")) == as_rows(read)


def test_columns_must_be_those_of_the_schema(tmp_path):
    rows = random_rows(0)
    del rows["x1"]
    with pytest.raises(ValueError, match="the columns are"):
        write(tmp_path / "d.parquet", rows)
