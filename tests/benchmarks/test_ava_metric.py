"""The benchmark of AVA's metric, made small."""

import json
import sys

import numpy as np
import pytest

from benchmarks import ava_metric
from step_jax.annotations.ava_csv import AvaDetections
from step_jax.ava_table import read_ava_detections


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ava_metric, "VIDEOS", 2)
    monkeypatch.setattr(ava_metric, "LABELS", 500)
    monkeypatch.setattr(ava_metric, "SIZES", {"few.csv": 300, "full.parquet": 2})


def test_makes_what_it_says(small, tmp_path):
    labels = ava_metric.make(tmp_path, "full.parquet", 0)
    again = ava_metric.make(tmp_path, "few.csv", 0)
    np.testing.assert_array_equal(labels.boxes, again.boxes)
    found = read_ava_detections([tmp_path / "full.parquet"])
    assert isinstance(found, AvaDetections)
    assert len(found) == 2 * (2 * 897 - 37)
    assert len(read_ava_detections([tmp_path / "few.csv"])) == 300


def test_measures_every_protocol(small, monkeypatch, capsys, tmp_path):
    arguments = ["--folder", str(tmp_path), "--one", "full.parquet", "--phase", "measure"]
    monkeypatch.setattr(sys, "argv", ["ava_metric", *arguments])
    ava_metric.main()
    report = json.loads(capsys.readouterr().out)
    assert list(report["seconds"]) == ["read", "2018", "2019", "2020"]
    assert all(0 < ap < 1 for ap in report["mAP"].values())
