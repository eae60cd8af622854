"""`benchmarks.claims.thinning`: fewer windows of a table."""

import sys

import numpy as np
import pytest

from benchmarks.claims import thinning
from step_jax.errors import InputError
from step_jax.tubelet_table import TubeletHeader, TubeletRows, read_tubelets
from step_jax.tubelet_writer import write_tubelets


@pytest.fixture
def table(tmp_path):
    """Two videos with windows every 5 frames, and at 17 the first one's last."""
    start = np.array([0, 5, 10, 15, 17, 0, 5, 10], np.int32)
    video = np.array([0] * 5 + [1] * 3, np.int32)
    number = len(start)
    header = TubeletHeader(classes=("a",), clip_frames=12, stride=5, num_steps=1, num_boxes=1)
    rows = TubeletRows(
        header=header,
        videos=("long", "short"),
        video=video,
        start=start,
        step=np.ones(number, np.int8),
        proposal=np.zeros(number, np.int32),
        scores=np.linspace(0.1, 0.8, number, dtype=np.float32)[:, None],
        tubes=np.tile(np.float32([0, 0, 1, 1]), (number, 1, 12, 1)),
    )
    write_tubelets(tmp_path / "all.parquet", rows)
    return tmp_path / "all.parquet"


def thin(monkeypatch, table, stride):
    output = table.with_name("some.parquet")
    arguments = [f"--input={table}", f"--stride={stride}", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["thinning", *arguments])
    thinning.main()
    return read_tubelets(output)


def test_windows_at_the_stride_are_kept_and_the_last_of_each_video(table, monkeypatch):
    found = thin(monkeypatch, table, 10)
    names = np.asarray(found.videos)[found.video]
    assert sorted(zip(names.tolist(), found.start.tolist(), strict=True)) == [
        ("long", 0), ("long", 10), ("long", 17), ("short", 0), ("short", 10)
    ]  # fmt: skip
    np.testing.assert_allclose(np.sort(found.scores[:, 0]), [0.1, 0.3, 0.5, 0.6, 0.8])
    assert found.header.stride == 10


def test_a_stride_between_the_tables_windows_is_refused(table, monkeypatch):
    with pytest.raises(InputError, match="--stride 12: expected a multiple of the table's, 5"):
        thin(monkeypatch, table, 12)
