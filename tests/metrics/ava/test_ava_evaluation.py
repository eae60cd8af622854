"""A detector's table on a split: which videos count, all steps, the files that are written."""

import math

import numpy as np
import pytest

from step_jax.annotations.ava_csv import read_detections_csv
from step_jax.annotations.ava_folder import open_ava_folder
from step_jax.detections import DetectionsWriter
from step_jax.errors import InputError
from step_jax.metrics.ava import evaluation

MAP = 'item { name: "a" id: 3 } item { name: "b" id: 12 }'
TRUTH = """\
u,0902,.1,.1,.5,.5,3,0
u,0903,.1,.1,.5,.5,12,0
v,0902,.1,.1,.5,.5,3,0
v,0903
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ava_val_v2.2.csv").write_text(TRUTH)
    (tmp_path / "ava_val_excluded_timestamps_v2.2.csv").write_text("u,0950\n")
    (tmp_path / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(MAP)
    return open_ava_folder(tmp_path, "2.2")


def write_table(path, found):
    """Rows (video, second, step, class), all of the same box."""
    header = {"classes": ("a", "b"), "clip_frames": 12, "stride": 12, "num_steps": 2}
    with DetectionsWriter(path, frames="middle", provenance={"who": "me"}, **header) as writer:
        for number, (video, second, step, label) in enumerate(found):
            box = {"x1": [0.1], "y1": [0.1], "x2": [0.5], "y2": [0.5]}
            columns = {"video": [video], "frame": [12 * (second - 900)], "step": [step]}
            columns |= {"tubelet": [number], "class": [label], "score": [0.5]}
            writer.append({**columns, **box})
    return path


def test_steps_videos_and_csv(folder, tmp_path):
    table = write_table(
        tmp_path / "t.parquet", [("u", 902, 1, 0), ("u", 902, 2, 0), ("u", 903, 2, 1)]
    )
    everything, provenance = evaluation.evaluate_table(
        table, folder, "val", protocol="2018", csv=tmp_path / "d.csv"
    )
    assert provenance == {"who": "me"}
    assert {step: one.mean for step, one in everything.items()} == {1: 0.25, 2: 0.75}
    assert read_detections_csv(tmp_path / "d.csv").action_id.tolist() == [3, 12]
    of_u, _ = evaluation.evaluate_table(table, folder, "val", protocol="2018", videos="u*")
    assert of_u[2].mean == 1
    assert of_u[2].num_ground_truth.tolist() == [1, 1]
    metrics = evaluation.make_metrics(everything, version="2.2", provenance=provenance)
    assert metrics["score"] == 75
    assert metrics["mAP"] == 0.75
    assert [step["mean"] for step in metrics["steps"]] == [25, 75]
    text = evaluation.text_of(everything, version="2.2")
    assert "step 1: 25.00, step 2: 75.00" in text
    assert "AVA v2.2" in text
    evaluation.write_page(tmp_path, everything)
    assert (tmp_path / evaluation.PAGE).stat().st_size > 1000


def test_detections_of_videos_that_do_not_count_are_no_false_positives(folder, tmp_path):
    rows = [(video, second, 2, label) for video, second, label in [("u", 902, 0), ("u", 903, 1)]]
    table = write_table(tmp_path / "t.parquet", [*rows, ("v", 902, 2, 0)])
    options = {"protocol": "2018", "csv": tmp_path / "d.csv"}
    of_u, _ = evaluation.evaluate_table(table, folder, "val", videos="u", **options)
    assert of_u[2].mean == 1
    assert len(read_detections_csv(tmp_path / "d.csv").action_id) == 2
    of_v, _ = evaluation.evaluate_table(table, folder, "val", videos="v", **options)
    assert of_v[1].mean_of(np.array([True, False])) == 0


def test_what_cannot_be_evaluated(folder, tmp_path):
    table = write_table(tmp_path / "t.parquet", [("x", 902, 2, 0)])
    with pytest.raises(InputError, match=r"ava_val_v2.2.csv, .*t.parquet: .*same split"):
        evaluation.evaluate_table(table, folder, "val", protocol="2018")
    with pytest.raises(InputError, match=r"ava_protocol '2017': expected one of 2018, 2019, 2020"):
        evaluation.evaluate_table(table, folder, "val", protocol="2017")
    with pytest.raises(InputError, match=r"no video matches 'w'"):
        evaluation.evaluate_table(table, folder, "val", protocol="2018", videos="w")


def test_an_undefined_mean_is_no_number(folder, tmp_path):
    table = write_table(tmp_path / "t.parquet", [("u", 902, 2, 0)])
    results, _ = evaluation.evaluate_table(table, folder, "val", protocol="2018")
    assert results[1].mean == 0
    assert evaluation._percent(math.nan) is None
    assert np.isnan(results[1].mean_of(np.zeros(2, bool)))
