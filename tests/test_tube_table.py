"""Tubes in memory and on disk, what is taken, joined and refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from step_jax.errors import InputError
from step_jax.tube_table import TubeWriter, join_tubes, no_tubes, read_tubes, write_tubes

CLASSES = ("run", "jump", "swim")


def make_tubes(seed=0, lengths=(3, 15, 1, 7), videos=("b/2", "a/1"), **values):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 50, len(lengths))
    frames = [np.arange(f, f + n) for f, n in zip(first, lengths, strict=True)]
    rows = sum(lengths)
    columns = {
        "videos": videos,
        "video": rng.integers(0, len(videos), len(lengths)).astype(np.int32),
        "label": rng.integers(0, 3, len(lengths)).astype(np.int32),
        "score": rng.uniform(size=len(lengths)),
        "offset": np.cumsum([0, *lengths]),
        "frame": np.concatenate([np.zeros(0), *frames]).astype(np.int32),
        "boxes": rng.uniform(0, 320, (rows, 4)).astype(np.float32),
        "frame_score": rng.uniform(size=rows).astype(np.float32),
        "provenance": {"linked": "with care"},
    }
    return replace(no_tubes(CLASSES), **columns | values)


def as_list(tubes):
    """One tuple a tube, its rows as lists."""
    return [
        (
            tubes.videos[tubes.video[i]],
            tubes.label[i],
            tubes.score[i],
            tubes.frame[tubes.tube(i)].tolist(),
            tubes.boxes[tubes.tube(i)].tolist(),
            tubes.frame_score[tubes.tube(i)].tolist(),
        )
        for i in range(len(tubes))
    ]


def test_columns_by_tube():
    tubes = make_tubes()
    assert tubes.length.tolist() == [3, 15, 1, 7]
    assert tubes.first.tolist() == [tubes.frame[tubes.tube(i)][0] for i in range(4)]
    assert tubes.row_tube.tolist() == [0] * 3 + [1] * 15 + [2] + [3] * 7


@pytest.mark.parametrize(
    "chosen", [[2, 0, 0], [], slice(1, 3), [True, False, False, True]], ids=str
)
def test_take(chosen):
    tubes = make_tubes()
    chosen = chosen if isinstance(chosen, slice) else np.array(chosen, None if chosen else int)
    expected = [as_list(tubes)[i] for i in np.arange(4)[chosen]]
    assert as_list(tubes.take(chosen)) == expected


@pytest.mark.parametrize("row_group_rows", [4, 2**20])
def test_a_table_is_read_as_it_was_written(tmp_path, row_group_rows):
    path, tubes = tmp_path / "tubes.parquet", make_tubes(videos=("b/2", "none", "a/1"))
    with TubeWriter(
        path, classes=CLASSES, provenance=tubes.provenance, row_group_rows=row_group_rows
    ) as writer:
        writer.append(tubes)
        writer.append(no_tubes(CLASSES))
        writer.append(tubes.take([1]))
    found = read_tubes(path)
    assert as_list(found) == as_list(tubes) + as_list(tubes.take([1]))
    assert found.classes == CLASSES
    assert found.provenance == {"linked": "with care"}
    for name in ("video", "label", "score", "offset", "frame", "boxes", "frame_score"):
        assert getattr(found, name).dtype == getattr(tubes, name).dtype, name


def test_no_tubes_at_all(tmp_path):
    write_tubes(tmp_path / "tubes.parquet", no_tubes(CLASSES))
    found = read_tubes(tmp_path / "tubes.parquet")
    assert (len(found), found.classes, found.boxes.shape) == (0, CLASSES, (0, 4))
    assert as_list(join_tubes([found, make_tubes()])) == as_list(make_tubes())


def test_joined_tubes_keep_their_videos():
    a, b = make_tubes(videos=("x", "y")), make_tubes(1, videos=("y", "z"))
    joined = join_tubes([a, b])
    assert joined.videos == ("x", "y", "z")
    assert as_list(joined) == as_list(a) + as_list(b)


def test_tubes_of_other_classes_are_not_joined(tmp_path):
    other = replace(make_tubes(), classes=("run",))
    with pytest.raises(InputError, match="classes"):
        join_tubes([make_tubes(), other])
    with (
        pytest.raises(InputError, match="classes"),
        TubeWriter(tmp_path / "tubes.parquet", classes=CLASSES) as writer,
    ):
        writer.append(other)
    assert not (tmp_path / "tubes.parquet").exists()
    with pytest.raises(InputError, match="no tubes to join"):
        join_tubes([])


def with_change(name, index, value):
    tubes = make_tubes()
    column = getattr(tubes, name).copy()
    column[index] = value
    return replace(tubes, **{name: column})


@pytest.mark.parametrize(
    ("tubes", "message"),
    [
        (with_change("boxes", (5, 2), np.nan), "tube 1 .*box or the score of a frame"),
        (with_change("frame_score", 18, np.inf), "tube 2 .*box or the score of a frame"),
        (with_change("score", 3, np.nan), "tube 3 .*score is not a finite"),
        (with_change("label", 0, 3), "tube 0 .*class is not 0 to 2"),
        (with_change("label", 0, -1), "tube 0 .*class is not 0 to 2"),
        (with_change("frame", 2, 99), "tube 0 .*do not follow"),
        (with_change("frame", 18, -1), "tube 2 .*negative"),
        (with_change("offset", 2, 3), "tube 1 .*no frames"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_tubes_that_mean_nothing_are_not_written(tmp_path, tubes, message):
    with pytest.raises(InputError, match=message):
        write_tubes(tmp_path / "tubes.parquet", tubes)
    assert list(tmp_path.iterdir()) == []


def rewrite(path, change):
    """The file with `change(table)` in place of its table."""
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed, path)


def set_column(table, name, values):
    index = table.schema.get_field_index(name)
    column = table.schema.field(index)
    return table.set_column(index, column, pa.array(values, column.type))


def change_row(name, row, value):
    def change(table):
        values = table[name].to_pylist()
        values[row] = value
        return set_column(table, name, values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pa.concat_tables([t, t]), "row 26 is of tube 0; expected tube 4"),
        (lambda t: pa.concat_tables([t, t.slice(19)]), "do not follow"),
        (lambda t: t.slice(1).take([*range(25), 0]), "expected tube 4"),
        (change_row("tube_score", 4, 0.5), "row 4: the tube_score changes within tube 1"),
        (change_row("class", 25, 7), "the class changes within tube 3"),
        (change_row("x1", 0, None), "column 'x1' has empty values"),
        (change_row("y2", 0, float("inf")), "tube 0 .*not finite"),
        (lambda t: t.drop_columns("score"), "column 'score' is missing"),
        (lambda t: t.replace_schema_metadata({}), "not a table of tubes"),
        (lambda t: t.replace_schema_metadata({"format": "step_jax.tubes"}), "of version None"),
        (
            lambda t: t.replace_schema_metadata({"format": "step_jax.tubes", "version": "1"}),
            "metadata are broken at 'classes'",
        ),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "tubes.parquet"
    write_tubes(path, make_tubes())
    rewrite(path, change)
    with pytest.raises(InputError, match=message) as error:
        read_tubes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_something_else_is_refused(tmp_path):
    path = tmp_path / "tubes.parquet"
    path.write_text("frame,score\n")
    with pytest.raises(InputError, match="cannot be read as a table of tubes"):
        read_tubes(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_tubes(tmp_path / "missing.parquet")
