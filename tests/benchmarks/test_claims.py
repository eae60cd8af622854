"""`benchmarks.claims`: what is planned, kept, compared and told."""

import json
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import configuration
from benchmarks.claims import __main__ as claims
from benchmarks.claims import (
    config,
    drawing,
    examples,
    matrix,
    page,
    preparation,
    results,
    runs,
    speed,
    tables,
)
from benchmarks.claims.matrix import PLAIN
from benchmarks.claims.runs import Data, Run, Runner
from benchmarks.claims.statements import (
    CONTRADICTED,
    HOLDS,
    OPEN,
    STATEMENTS,
    Comparison,
    Gain,
    Statement,
    Term,
    judge,
)
from configs import moving_actors
from step_jax.annotations import Tube, Video
from step_jax.errors import InputError
from step_jax.modality import Modality
from step_jax.models.factory import build_detector, check_modality, input_frames
from step_jax.proposals import initial_boxes
from step_jax.tubelet_table import TubeletHeader, TubeletRows

NUM_STEPS = {"table1a_s1": 1, "table1a_s2": 2, "table1a_s4": 4, "fig5_k6_of_18": 4, "dense": 1}


# --- the matrix -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", matrix.SCALES)
@pytest.mark.parametrize("row", matrix.ROWS)
def test_every_row_is_a_detector_of_its_data(scale, row):
    found = config.get_config(f"{scale}/{row}")
    detector = build_detector(num_classes=8, **found.model.to_dict())
    check_modality(detector, Modality(found.data.modality, found.data.flow_frames))
    assert len(found.loss.thresholds) == detector.plan.num_steps == NUM_STEPS.get(row, 3)
    assert found.eval.stride < found.model.clip_frames  # or there are no tubes
    assert input_frames(detector) <= 30


def test_rows_differ_in_what_they_say_alone():
    full = config.get_config(f"small/{matrix.FULL}").to_dict()
    for row, changes in matrix.ROWS.items():
        if row != matrix.FULL:
            assert changes != matrix.ROWS[matrix.FULL]
        own = config.get_config(f"small/{row}").to_dict()
        different = set(_different(full, own))
        assert different <= {*changes}, row
        assert different or row == matrix.FULL, row


def _different(one, other, prefix=""):
    for key in one.keys() | other.keys():
        first, second = one.get(key), other.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from _different(first, second, f"{prefix}{key}.")
        elif first != second:
            yield prefix + key


def test_the_dense_set_is_a_thousand_and_the_fewest_are_four():
    assert len(initial_boxes(matrix.DENSE)) == 992
    assert len(initial_boxes(matrix.ROWS["fig6b_m4"]["proposals"])) == 4


@pytest.mark.parametrize("name", ["small", "small/rgb", "huge/dense", "small/dense/1"])
def test_other_rows_are_refused(name):
    with pytest.raises(ValueError, match="expected SCALE/ROW, one of smoke, small, large"):
        config.get_config(name)


def test_speed_is_of_the_detectors_of_figure_6():
    found = speed.changes()
    assert len(found["extended_4"]["loss.thresholds"]) == 4
    assert found["extended_4"]["model.extension_plan"] == (False, True, True, True)
    assert found["steps_4"]["model.extension"] == "none"
    for name, changes in found.items():
        if name.startswith("proposals_"):
            spec = changes.get("proposals", moving_actors.get_config().proposals)
            assert len(initial_boxes(spec)) == int(name.removeprefix("proposals_"))


def test_a_detector_with_two_names_is_measured_once(monkeypatch):
    made = []

    def _detector(described):
        made.append(described)
        return lambda: None

    monkeypatch.setattr(speed, "_detector", _detector)
    found = speed.measure("smoke", rounds=3)
    assert found.keys() == speed.changes().keys()
    assert found["steps_1"] == found["extended_1"]
    assert found["steps_3"] == found["proposals_11"]
    assert len(made) == len(found) - 2


# --- runs -----------------------------------------------------------------------------------------


def test_seeds_come_one_after_the_other_and_fusions_bring_their_parts():
    found = runs.planned(["late"], range(2))
    assert found == [
        Run(matrix.FULL, 0), Run("table1b_flow", 0), Run("late", 0),
        Run(matrix.FULL, 1), Run("table1b_flow", 1), Run("late", 1),
    ]  # fmt: skip
    assert runs.planned(["dense"], range(2, 4)) == [Run("dense", 2), Run("dense", 3)]
    with pytest.raises(InputError, match="row 'fig7': expected some of fig5_anticipate"):
        runs.planned(["fig7"], range(1))


class ScriptedRunner(Runner):
    """Runs a script in the place of the programs, which writes what they would."""

    def __init__(self, output, *, script, scale="smoke", **options):
        data = Data(output / "annotations.json", output / "records", digest="of the records")
        super().__init__(matrix.SCALES[scale], output, data, **options)
        self._script = script

    def _program(self, *command):
        folder = next(part for part in command if part.startswith("--workdir="))
        return [sys.executable, "-c", self._script, folder.removeprefix("--workdir="), *command[2:]]


WRITES_METRICS = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "finished.json").write_text(json.dumps({"step": 4}))
(folder / "eval/test/4").mkdir(parents=True, exist_ok=True)
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
with (folder / "calls").open("a") as file:
    file.write("x")
(folder / "eval/test/4/metrics.json").write_text(json.dumps({"cores": cores}))
"""


def test_runs_have_a_core_each_and_are_kept(tmp_path):
    runner = ScriptedRunner(tmp_path, script=WRITES_METRICS, together=1)
    some = [Run("dense", 0), Run("dense", 1)]
    assert {run for run, _ in runner.make(some)} == {*some}
    for run in some:
        assert runner.metrics(run) == {"cores": 1}
        assert (runner.folder(run) / "calls").read_text() == "xx"  # trained, evaluated
    again = ScriptedRunner(tmp_path, script="raise SystemExit(1)")
    assert again.done(Run("dense", 1))["seconds"] > 0
    assert again.done(Run("dense", 2)) is None
    again.data = Data(again.data.annotations, again.data.records, digest="of others")
    assert again.done(Run("dense", 1)) is None  # on other records it is another run


def test_what_is_made_of_runs_comes_as_soon_as_they_are_there(tmp_path, monkeypatch):
    """Each by its own command, and before the next seed's trainings."""
    runner, calls = ScriptedRunner(tmp_path, script=WRITES_METRICS, together=1), []
    call = runner._call

    def called(core, run, command):
        if run.row != "late":
            call(core, run, command)
        elif command[1] == "evaluate.py":
            (runner.folder(run) / "metrics.json").write_text(json.dumps({"made of": command[2:]}))
        else:
            assert command[1:3] == ["-m", "step_jax.fusion"]
            assert command[-2:] == ["--output", str(runner.folder(run) / "tubelets.parquet")]
            assert {*map(str, map(runner.tubelets, run.parts))} < {*command}
        calls.append((run.name, [part for part in command if "eval.stride" in part]))

    monkeypatch.setattr(runner, "_call", called)
    planned = runs.planned(["late", "fig5_k30_stride1"], range(2))
    made = [run.name for run, _ in runner.make(planned)]
    of_seed = [matrix.FULL, "fig5_k30", "table1b_flow", "late", "fig5_k30_stride1"]
    assert made == [f"{row}/seed{seed}" for seed in range(2) for row in of_seed]
    assert [one for one in calls if one[1]] == [
        (f"fig5_k30_stride1/seed{seed}", ["--config.eval.stride=1"]) for seed in range(2)
    ]
    copied = runner.folder(Run("fig5_k30_stride1", 1))
    assert (copied / "calls").read_text() == "xx" + "x"  # the training's and one of its own
    assert (copied / "log.txt").read_text() == ""
    workdir, table = runner.metrics(Run("late", 1))["made of"]
    assert workdir == f"--workdir={runner.folder(Run(matrix.FULL, 1))}"
    assert table == f"--detections={runner.folder(Run('late', 1)) / 'tubelets.parquet'}"


def test_seconds_of_interrupted_calls_count(tmp_path):
    some = [Run("dense", 0)]
    failing = ScriptedRunner(tmp_path, script="import time; time.sleep(0.4); raise SystemExit(1)")
    with pytest.raises(InputError, match="exit status 1"):
        list(failing.make(some))
    spent = json.loads((tmp_path / "runs/dense/seed0/spent.json").read_text())["seconds"]
    runner = ScriptedRunner(tmp_path, script=WRITES_METRICS)
    ((_, seconds),) = runner.make(some)
    assert seconds > spent > 0.4
    assert runner.done(some[0])["seconds"] == round(seconds, 1)


def test_a_failing_run_ends_the_others(tmp_path):
    script = "import sys, time; time.sleep(0 if 'dense' in sys.argv[1] else 600); sys.exit(3)"
    runner = ScriptedRunner(tmp_path, script=script, scale="large", together=2)
    with pytest.raises(InputError, match=r"dense/seed0: ended with exit status 3; see .*log.txt"):
        list(runner.make([Run("fig5_k30", 0), Run("dense", 0), Run("fig5_mean", 0)]))
    assert runner.done(Run("dense", 0)) is None
    assert not runner.folder(Run("fig5_mean", 0)).joinpath("done.json").exists()


def test_a_run_that_starts_while_others_are_ended_is_ended_too(tmp_path, monkeypatch):
    script = "import sys, time; time.sleep(4); open(sys.argv[1] + '/went_on', 'w').close()"
    runner = ScriptedRunner(tmp_path, script=script, together=1)
    start = subprocess.Popen

    def ended_meanwhile(*arguments, **options):
        threading.Thread(target=runner._end_all).start()
        time.sleep(0.3)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", ended_meanwhile)
    with pytest.raises(InputError, match="dense/seed0: ended with the others"):
        list(runner.make([Run("dense", 0)]))
    assert not (runner.folder(Run("dense", 0)) / "went_on").exists()


STEP = {
    "step": 1, "mean": 50.0, "localization_recall": 90.0, "errors": {"time": 1.0},
    "per_class": [{"class": "walk", "ap": 50.0}],
}  # fmt: skip


def test_an_interrupted_call_leaves_the_results_of_what_is_finished(tmp_path, monkeypatch):
    def make_all(runner, runs):
        folder = runner.folder(runs[0])
        folder.mkdir(parents=True)
        (tmp_path / "metrics.json").write_text(json.dumps({"steps": [STEP], "protocol": "ACT"}))
        (folder / "train_log.jsonl").write_text(json.dumps({"overlap_histogram_1": [0, 1]}))
        done = {"identity": runner._identity(runs[0]), "metrics": "metrics.json", "seconds": 2.0}
        (folder / "done.json").write_text(json.dumps(done))
        raise KeyboardInterrupt

    data = Data(tmp_path / "annotations.json", tmp_path / "records", digest="of the records")
    monkeypatch.setattr(claims.preparation, "prepare", lambda scale, folder: data)
    monkeypatch.setattr(claims, "make_all", make_all)
    monkeypatch.setattr(
        sys, "argv", ["claims", "--scale=smoke", "--only=dense", f"--output={tmp_path}"]
    )
    with pytest.raises(KeyboardInterrupt):
        claims.main()
    told = json.loads((tmp_path / "results.json").read_text())
    (run,) = told["runs"]
    assert (run["row"], run["seed"], run["frame_map"]) == ("dense", 0, [50.0])
    whole = configuration.changed(ConfigDict(told["preset"]), told["rows"]["dense"])
    expected = config.get_config("smoke/dense").to_json_best_effort()
    assert json.loads(whole.to_json_best_effort()) == json.loads(expected)


@pytest.mark.slow
def test_a_run_alone_repeats_the_numbers_it_had_beside_another(tmp_path, monkeypatch):
    data = tmp_path / "data"
    found = []
    derived = "late,fig5_k30_stride1"
    for output, rows, together in (("two", f"fig6b_m4,{derived}", 2), ("one", "fig6b_m4", 1)):
        options = [f"--output={tmp_path / output}", f"--data={data}", f"--together={together}"]
        monkeypatch.setattr(
            sys, "argv", ["claims", "--scale=smoke", "--seeds=1", f"--only={rows}", *options]
        )
        claims.main()
        told = json.loads((tmp_path / output / "results.json").read_text())["runs"]
        assert {run["row"] for run in told} >= {*rows.split(",")}
        found.append(next(run for run in told if run["row"] == "fig6b_m4"))
    assert found[0].pop("seconds") > 0
    assert found[1].pop("seconds") > 0
    assert len(found[0]["frame_map"]) == 3
    assert found[0] == found[1]
    table = "runs/fig6b_m4/seed0/eval/test/4/tubelets.parquet"
    assert (tmp_path / "one" / table).read_bytes() == (tmp_path / "two" / table).read_bytes()


def test_what_is_kept_of_a_run():
    video = {kind: {"mean": {"0.5": 30.0}, "mean_50_95": 12.0} for kind in ("linked", "trimmed")}
    metrics = {"steps": [STEP, STEP | {"mean": 60.0, "video": video}], "protocol": "ACT"}
    found = results.reduced(metrics)
    assert found["frame_map"] == [50.0, 60.0]
    assert found["per_class"] == [{"walk": 50.0}] * 2
    assert found["video_map"]["trimmed"] == {"0.5": 30.0, "0.5:0.95": 12.0}
    assert "video_map" not in results.reduced({**metrics, "steps": [STEP]})


def test_overlaps_are_of_the_end_of_training():
    log = [{"overlap_histogram_1": [1.0, 0.0], "overlap_histogram_2": [1.0, 0.0]}] * 8
    log += [{"overlap_histogram_1": [0.5, 0.5], "overlap_histogram_2": [0.0, 1.0]}] * 2
    found = results.overlaps(log)
    assert found["overlap_histogram"] == [[0.5, 0.5], [0.0, 1.0]]
    assert found["overlap"] == [0.5, 0.75]


def test_runs_of_a_row_are_in_the_order_of_seeds():
    found = [{"row": "dense", "seed": seed} for seed in (4, 0, 3)]
    assert [run["seed"] for run in results.by_row(found)["dense"]] == [0, 3, 4]


def of_machine(*told, **changes):
    """Results with runs of `dense`: (seed, frame-mAP)."""
    made = [
        {"row": "dense", "seed": seed, "seconds": 10.0 * seed, "frame_map": [value]}
        for seed, value in told
    ]
    described = results.described(matrix.SCALES["small"])
    return {"machines": [{"cores": 2}], "records": "r", **described, "runs": made, **changes}


def test_results_of_several_machines_are_put_together():
    a, b = of_machine((2, 30.0), (0, 10.0)), of_machine((1, 20.0), (2, 30.0), speed={"dense": 1})
    b["runs"][1]["seconds"] = 5.0
    found = results.merged({"a": a, "b": b, "c": of_machine(machines=[{"cores": 4}])})
    assert [(run["seed"], run["seconds"]) for run in found["runs"]] == [(0, 0), (1, 10), (2, 20)]
    assert found["machines"] == [{"cores": 2}, {"cores": 4}]
    assert found["speed"] == {"dense": 1}


@pytest.mark.parametrize("unlike", [{"frame_map": [30.25]}, {"windows": 7}])
def test_a_run_with_other_numbers_is_refused(unlike):
    a, b = of_machine((2, 30.0)), of_machine((1, 20.0), (2, 30.0))
    b["runs"][1] |= unlike
    (key,) = unlike
    with pytest.raises(InputError, match=rf"b: dense/seed2 has other .* in a \({key}\)"):
        results.merged({"a": a, "b": b})
    del a["runs"][0]
    assert results.merged({"a": a, "b": b})["runs"] == b["runs"]


def test_results_of_other_records_are_refused():
    with pytest.raises(InputError, match="b: its 'records' are not those of a"):
        results.merged({"a": of_machine((0, 10.0)), "b": of_machine((1, 20.0), records="other")})


def test_results_of_another_matrix_or_form_are_refused():
    results.check(of_machine((0, 10.0)), "a")
    older = of_machine((0, 10.0))
    del older["machines"]
    with pytest.raises(InputError, match="a: has no 'machines'"):
        results.check(older, "a")
    changed = of_machine((0, 10.0))
    changed["rows"]["dense"]["loss.max_positives"] = 8
    with pytest.raises(InputError, match="a: its 'rows' are not those of the matrix as it is"):
        results.check(changed, "a")


def test_results_of_before_the_matrix_grew_count():
    older, newer = of_machine((0, 10.0)), of_machine((1, 20.0))
    del older["rows"]["fig5_k30"], older["strides"]["fig5_k30_stride1"]
    results.check(older, "a")
    found = results.merged({"a": older, "b": newer})
    assert found["rows"] == newer["rows"]
    assert found["strides"] == newer["strides"]
    newer["strides"]["fig5_mean_stride1"] = ["fig5_mean", 1]
    with pytest.raises(InputError, match="b: its 'strides' are not those of the matrix"):
        results.check(newer, "b")


def test_data_of_another_scale_are_refused(tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "records.json").touch()
    split = SimpleNamespace(num_videos=16)
    info = SimpleNamespace(splits={"train": split, "test": split}, digest="d")
    monkeypatch.setattr(preparation.records, "load_info", lambda folder: info)
    assert preparation.prepare(matrix.SCALES["smoke"], tmp_path).digest == "d"
    with pytest.raises(
        InputError, match=r"holds \(16, 16\) .* the scale 'large' has \(5120, 320\)"
    ):
        preparation.prepare(matrix.SCALES["large"], tmp_path)


# --- statements -----------------------------------------------------------------------------------


def of(*frame_maps):
    """Runs of a row, seeds 0, 1, ...: frame-mAPs, a value or one for each step; None: no run."""
    return [
        {"seed": seed, "frame_map": list(np.atleast_1d(value))}
        for seed, value in enumerate(frame_maps)
        if value is not None
    ]


def statement(*comparisons):
    return Statement("name", "text", "source", "paper", comparisons)


ONE = statement(Comparison(Term("a"), Term("b")))


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ((60, 61, 62), (50, 52, 54), HOLDS),  # 9 over 2
        ((53, 53, 53), (50, 52, 54), OPEN),  # 1 within 2
        ((40, 41, 42), (50, 52, 54), CONTRADICTED),
        ((54, 54, 54), (50, 52, 54), OPEN),  # 2 does not exceed 2
        ((60,), (50,), OPEN),  # nothing is known of the deviation
        ((60, 61, 0), (50, 52), HOLDS),  # the seeds that both have
        ((60, None, 0), (50, 52, 1), OPEN),
        ((), (50, 52), OPEN),
    ],
)
def test_a_difference_counts_beyond_the_larger_deviation(a, b, verdict):
    assert judge(ONE, {"a": of(*a), "b": of(*b)}).verdict == verdict


def test_a_statement_holds_when_all_of_it_does():
    both = statement(Comparison(Term("a"), Term("b")), Comparison(Term("a"), Term("c")))
    rows = {"a": of(60, 61), "b": of(50, 51), "c": of(60, 62)}
    assert judge(both, rows).verdict == OPEN
    assert judge(both, rows | {"c": of(70, 71)}).verdict == CONTRADICTED
    assert judge(both, rows | {"c": of(40, 41)}).verdict == HOLDS
    assert [one.difference for one in judge(both, rows).compared] == [10, -0.5]
    assert [one.by_seed for one in judge(both, rows).compared] == [(10, 10), (0, -1)]


def test_the_papers_own_numbers_hold():
    """Tables 1a, 1b and Section 4.2; where the paper has none, some in its order."""
    paper = {
        "table1a_s1": [51.5], "table1a_s2": [56.6, 60.7], PLAIN: [57.1, 61.8, 62.6],
        "table1a_s4": [58.2, 62.1, 62.8, 62.7],
        "fig5_k30": [0, 0, 63], "fig5_mean": [0, 0, 64], "fig5_k6_of_18": [58, 62, 62.7, 64],
        "fig5_k30_stride25": [0, 0, 62], "fig5_k30_stride1": [0, 0, 64],
        "fig5_anticipate_stride1": [0, 0, 67], "fig5_extrapolate": [57, 64, 65.5],
        matrix.FULL: [57, 65, 66.7], "table1b_flow": [0, 0, 63.5], "table1b_early": [0, 0, 74.3],
        "late": [0, 0, 70.7], "hybrid": [0, 0, 75.0],
        "without_scene_context": [56.5, 63, 64.2], "without_hard_sampling": [0, 0, 65.2],
        "without_rising_thresholds": [0, 0, 65.7],
        "fig6b_m4": [0, 0, 50], "fig6b_m109": [0, 0, 63], "dense": [60],
        "fig6b_m34": [0, 0, 63], "m34_without_hard_sampling": [0, 0, 61.5],
    }  # fmt: skip
    found = {
        row: [{"seed": seed, "frame_map": numbers, "overlap": [0.2, 0.3, 0.4]} for seed in range(2)]
        for row, numbers in paper.items()
    }
    assert {one.name: judge(one, found).verdict for one in STATEMENTS} == {
        one.name: HOLDS for one in STATEMENTS
    }


def test_steps_and_gains_are_of_the_same_seed():
    """The gains of one seed at a time deviate less than their terms."""
    rows = {"a": of((10, 30), (20, 40.5)), "b": of((9, 20), (19, 30))}
    later = Gain(Term("a", 2), Term("b", 2))
    first = Gain(Term("a", 1), Term("b", 1))
    (found,) = judge(statement(Comparison(later, first)), rows).compared
    assert found.more == pytest.approx((10.25, 0.25 * 2**0.5))
    assert found.less == (1, 0)
    assert Term("a").of(rows).tolist() == [30, 40.5]
    assert Term("a", 1).of(rows).tolist() == [10, 20]


def test_twelve_statements_are_counted_and_ask_for_rows_that_there_are():
    assert sum(one.counted for one in STATEMENTS) == 12
    assert len({one.name for one in STATEMENTS}) == len(STATEMENTS)
    made_up = everything(3)
    for one in STATEMENTS:
        assert len(judge(one, made_up).compared) == len(one.comparisons)


# --- examples ------------------------------------------------------------------------------------


def test_a_window_is_judged_by_its_best_tubelet():
    """Two actors; the best tubelet is at the second one's box, in half of the first one's place."""
    boxes = np.array([[0, 0, 10, 10], [20, 0, 40, 20]], np.float32)
    frames = np.arange(2, 8)
    tubes = [Tube((label,), frames, np.repeat(box[None], 6, 0)) for label, box in enumerate(boxes)]
    video = Video("v", "v.avi", "test", 25.0, 10, 40, 20, tubes)
    header = TubeletHeader(("a", "b"), clip_frames=3, stride=1, num_steps=1, num_boxes=1)
    at = np.repeat(boxes[:, None, None] / [40, 20, 40, 20], 3, axis=2).astype(np.float32)

    def found(start, scores):
        scores = np.array(scores, np.float32)
        zeros = np.zeros(2, np.int32)
        rows = TubeletRows(
            header, ("v",), zeros, zeros + start, zeros + 1, np.arange(2), scores, at
        )
        return examples.best_of(rows, video, start)

    right = found(2, [[0.1, 0.2], [0.3, 0.9]])
    assert right == ("v", 2, pytest.approx(0.9), 1.0, True)
    assert right.is_right
    wrong = found(5, [[0.1, 0.2], [0.9, 0.3]])
    assert (wrong.has_class, wrong.is_right) == (False, False)
    assert "wrong class: v, frame 5" in wrong.text
    assert found(6, [[0.1, 0.2], [0.3, 0.9]]) is None  # they act in frames 6 and 7 alone
    later = Tube((0,), np.arange(4, 8), np.repeat(boxes[:1], 4, 0))
    video = Video("v", "v.avi", "test", 25.0, 10, 40, 20, [later, tubes[1]])
    assert found(2, [[0.1, 0.2], [0.3, 0.9]]) is None  # one of the two begins in its last frame
    assert found(4, [[0.1, 0.2], [0.3, 0.9]]) is not None


def test_examples_are_the_best_of_each_kind_of_different_videos():
    some = [
        examples.Example(video, start, score, overlap, True)
        for video, start, score, overlap in [
            ("a", 0, 0.9, 0.8), ("a", 5, 0.8, 0.2), ("b", 0, 0.7, 0.9), ("c", 0, 0.6, 0.1),
            ("d", 0, 0.5, 0.4), ("e", 0, 0.4, 0.3), ("f", 0, 0.95, 0.5),
        ]
    ]  # fmt: skip
    chosen = examples.choose(iter(some), 2)
    assert [(one.video, one.is_right) for one in chosen] == [
        ("f", True), ("a", True), ("c", False), ("d", False)
    ]  # fmt: skip


# --- the page -------------------------------------------------------------------------------------


VIDEO_THRESHOLDS = ("0.05", "0.1", "0.2", "0.3", "0.5", "0.6", "0.7", "0.5:0.95")


def everything(seeds):
    """Made-up runs of all rows, of which each later one is better."""
    made = {}
    for place, row in enumerate([*matrix.ROWS, *matrix.DERIVED]):
        steps = NUM_STEPS.get(row, 3)
        made[row] = [
            {
                "row": row,
                "seed": seed,
                "frame_map": [place + 10.0 * step + seed for step in range(1, steps + 1)],
                "windows": 100 + place,
                "overlap": [0.2, 0.3, 0.4],
                "overlap_histogram": [[0.5, 0.5, 0]] * 3,
                "per_class": [{"walk": place + 0.5, "hop": 2.0 * seed}] * steps,
                "video_map": {
                    kind: dict.fromkeys(VIDEO_THRESHOLDS, 40.0 + seed)
                    for kind in ("linked", "trimmed")
                },
            }
            for seed in range(seeds)
        ]
    return made


SPEED = {name: {"frames_per_second": 777.4} for name in speed.changes()}
MACHINE = {
    "device": "cpu", "devices": 1, "processor": "one", "cores": 2, "load": 0.25, "python": "3.11",
    "versions": {"jax": "0.10.2"},
}  # fmt: skip
MEASURED = {"machine": MACHINE, "speed": SPEED}


def test_tables_have_means_and_deviations():
    text = tables.page(everything(3), MEASURED)
    place = list(matrix.ROWS).index("table1a_s2")
    assert f"| S = 2 | {place + 11}.0 ± 1.0 | {place + 21}.0 ± 1.0 | - | - |" in text
    assert "| 109 |" in text
    assert text.count("777") == 4 + 2 * 4 + 4 * 2
    assert "41.0 ± 1.0" in text
    assert f"| K = 30 | {list(matrix.ROWS).index('fig5_k30')}.5 | 2.0 |" in text
    verdicts = [judge(one, everything(3)).verdict for one in STATEMENTS if one.counted]
    assert f"{verdicts.count(HOLDS)} of 12 statements hold" in text
    number = len(matrix.ROWS) + len(matrix.DERIVED)
    assert text.startswith(f"{3 * number} runs; seeds of every row: 0 1 2.")
    assert "(one, 2 cores, load 0.2)" in text
    assert "**, by seed +10.0 +10.0 +10.0: holds" in text


def test_rows_with_other_seeds_are_named():
    found = everything(3)
    del found["dense"][1], found["late"][:]
    line = tables.page(found, None).splitlines()[0]
    assert line.endswith(", but for `dense` 0 2, `late` -.")


def test_tables_of_nothing_are_empty():
    text = tables.page({}, None)
    assert "0 of 12 statements hold" in text
    assert "±" not in text


CHECKED = {
    matrix.FULL: {
        "steps": [
            {"positives": 3.0, "negatives": 2.0, "pool": 6.0, "tubes_with_positive": 0.975,
             "negative_score": 0.3, "other_score": 0.2, "overlap": 0.4},
            {"positives": 3.0, "negatives": 2.0, "pool": 6.0, "tubes_with_positive": 1.0,
             "negative_score": 0.3, "other_score": 0.2, "overlap": 0.6, "overlap_added": 0.5},
        ],
        "gradients": {"classification_1": {"backbone": 0.25, "heads_0": 0.5, "heads_1": 0.0}},
        "unreached": ["heads_1/box"],
    },
    "dense": {
        "steps": [],
        "gradients": {"classification_1": {"backbone": 0.2, "heads_0": 0.1}},
        "unreached": [],
    },
}  # fmt: skip


CHECKS = {"seed": 1, "rows": CHECKED}


def test_tables_tell_what_was_checked():
    text = tables.page(everything(3), None, CHECKS)
    name = f"`{matrix.FULL}`"
    assert f"| {name} | 1 | 3.0 | 2.0 | 6.0 | 97.5% | 1.50 | 0.40 | - |" in text
    assert f"| {name} | 2 | 3.0 | 2.0 | 6.0 | 100.0% | 1.50 | 0.60 | 0.50 |" in text
    assert f"| {name} | classification, step 1 | 0.25 | 0.50 | 0 |" in text
    assert "| `dense` | classification, step 1 | 0.20 | 0.10 | - |" in text
    assert f"reaches: {matrix.FULL}: heads_1/box." in text
    reached = {"dense": CHECKED["dense"] | CHECKED[matrix.FULL] | {"unreached": []}}
    told = tables.checked({"seed": 1, "rows": reached})
    assert "Seed 1. Parameters that no loss reaches: none." in told


def test_the_page_keeps_what_is_written_by_hand():
    old = f"before\n\n{page._BEGIN}\nold\n{page._END}\n\nafter\n"
    new = page.with_numbers(old, "new\n")
    assert new.startswith("before\n\n")
    assert new.endswith("\n\nafter\n")
    assert "new" in new
    assert "old" not in new
    assert page.with_numbers(new, "new\n") == new
    with pytest.raises(InputError, match="the page has no"):
        page.with_numbers("nothing", "new")


def test_the_picture_is_drawn_of_some_rows_and_of_all(tmp_path):
    drawing.draw({matrix.FULL: everything(1)[matrix.FULL]}, None, tmp_path / "some.png")
    drawing.draw(everything(3), SPEED, tmp_path / "all.png")
    sizes = [(tmp_path / f"{name}.png").stat().st_size for name in ("some", "all")]
    assert 20_000 < sizes[0] < sizes[1]


def test_results_and_page_go_through_files(tmp_path, monkeypatch, capsys):
    made = [run for own in everything(2).values() for run in own]
    found = of_machine(runs=sorted(made, key=lambda run: run["seed"]))
    (tmp_path / "results.json").write_text(json.dumps(found))
    (tmp_path / "speed.json").write_text(json.dumps(MEASURED))
    (tmp_path / "checks.json").write_text(json.dumps(CHECKS))
    (tmp_path / "claims.md").write_text(f"{page._BEGIN}\n{page._END}")
    monkeypatch.setattr(
        sys, "argv",
        ["page", f"--results={tmp_path / 'results.json'}", f"--speed={tmp_path / 'speed.json'}",
         f"--checks={tmp_path / 'checks.json'}", f"--page={tmp_path / 'claims.md'}"],
    )  # fmt: skip
    page.main()
    assert "of 12 statements hold" in (tmp_path / "claims.md").read_text()
    kept = json.loads((tmp_path / "claims.json").read_text())
    assert kept["runs"] == found["runs"]
    assert kept["checks"] == CHECKS
    assert (tmp_path / "claims.png").exists()
    assert len(capsys.readouterr().out.splitlines()) == 3
    old = (tmp_path / "claims.md").read_text()

    # The kept results are results too, with what was measured.
    arguments = ["page", f"--page={tmp_path / 'claims.md'}"]
    monkeypatch.setattr(sys, "argv", [*arguments, f"--results={tmp_path / 'claims.json'}"])
    page.main()
    assert (tmp_path / "claims.md").read_text() == old

    for content, message in (
        ("{", "results.json: is no JSON"),
        (json.dumps(of_machine()), "results.json: no run is finished; the page is left as it was"),
    ):
        (tmp_path / "results.json").write_text(content)
        monkeypatch.setattr(sys, "argv", [*arguments, f"--results={tmp_path / 'results.json'}"])
        with pytest.raises(InputError, match=message):
            page.main()
        assert (tmp_path / "claims.md").read_text() == old
