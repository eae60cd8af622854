"""`python -m step_jax.metrics.ava` on files alone."""

import json
import os
import subprocess
import sys

import pytest

from step_jax.errors import InputError
from step_jax.metrics.ava import __main__ as command

LABEL_MAP = """
item { name: "stand" id: 12 }
item { name: "carry/hold (an object)" id: 17 }
item { name: "watch (a person)" id: 80 }
"""
# Runs a module as a command where no JAX can be imported.
WITHOUT_JAX = """
import runpy, sys
sys.modules.update(dict.fromkeys(["jax", "flax", "tensorflow", "torch"]))
sys.argv[0] = "ava"
runpy.run_module("step_jax.metrics.ava", run_name="__main__")
"""


@pytest.fixture
def files(tmp_path):
    texts = {
        "gt.csv": "v,0902,.1,.1,.5,.9,12,0\nv,0903,.1,.1,.5,.9,12,0\nv,904,0,0,1,1,80,1\n",
        "det.csv": "v,0902,.1,.1,.5,.9,12,.9\nv,0910,.1,.1,.5,.9,12,.95\n",
        "excluded.csv": "v,0903\n",
        "map.pbtxt": LABEL_MAP,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def arguments(files, *more):
    given = {"ground_truth": "gt.csv", "detections": "det.csv", "label_map": "map.pbtxt"}
    given["exclusions"] = "excluded.csv"
    return [*(text for k, name in given.items() for text in (f"--{k}", files / name)), *more]


def run(files, monkeypatch, *more):
    monkeypatch.setattr(sys, "argv", ["ava", *map(str, arguments(files, *more))])
    command.main()
    output = files / "out.json"
    return json.loads(output.read_text()) if output.exists() else None


def test_json_text_and_page_without_jax(files):
    page = ("--page", files / "page.png", "--output", files / "out.json")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, *map(str, arguments(files, *page))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    report = json.loads((files / "out.json").read_text())
    assert report["mAP"] == pytest.approx(0.25)
    assert report["per_class"]["12"] == {
        "name": "stand",
        "kind": "pose",
        "ap": 0.5,
        "num_ground_truth": 1,
        "num_detections": 2,
        "num_true_positives": 1,
    }
    assert report["per_class"]["17"]["ap"] is None
    assert report["per_class"]["80"]["ap"] == 0
    assert report["breakdown"]["pose"]["mAP"] == 0.5
    assert report["breakdown"]["object interaction"]["mAP"] is None
    assert report["breakdown"]["person interaction"]["num_ground_truth"] == 1
    assert report["rows"]["ground_truth"]["on excluded keyframes"] == 1
    assert report["options"]["name"] == "2018"
    assert report["protocol"] in done.stdout
    assert any(line.split() == ["mAP", "25.00", "2", "2", "1"] for line in done.stdout.splitlines())
    assert (files / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "name", "expected"),
    [
        (["--protocol", "2019"], "2019", 0.25),
        (["--protocol", "2020"], "2020", 0.25),
        (["--ignore_unlisted"], "custom", 0.5),
        (["--protocol", "2020", "--drop_excluded", "--no-ignore_unlisted"], "2019", 0.25),
        (["--protocol", "2019", "--limit", "0"], "2018", 0.25),
    ],
)
def test_options(files, monkeypatch, capsys, flags, name, expected):
    report = run(files, monkeypatch, *flags, "--output", files / "out.json")
    assert report["options"]["name"] == name
    assert report["mAP"] == pytest.approx(expected)
    assert ("is unused" in capsys.readouterr().out) == (name == "2020")


@pytest.mark.parametrize("name", ["gt.csv", "det.csv", "map.pbtxt", "excluded.csv"])
@pytest.mark.parametrize("flag", ["--output", "--page"])
def test_never_writes_over_what_it_reads(files, monkeypatch, flag, name):
    before = (files / name).read_bytes()
    with pytest.raises(InputError, match="is one of the inputs"):
        run(files, monkeypatch, flag, files / name)
    assert (files / name).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("det.csv", "v,0902,.1,.1,.5,.9,12\nv,0902,.1\n", "det.csv:2: 3 columns"),
        ("gt.csv", "", "det.csv: no ground truth is left"),
        ("gt.csv", "v,0902,.1,.1,1.5,.9,12\n", "gt.csv:1: x2 is 1.5"),
        ("excluded.csv", "v\n", "excluded.csv:1: 1 column"),
        ("map.pbtxt", 'item { name: "stand" }', "entry 'stand' has no id"),
        ("map.pbtxt", None, "map.pbtxt: cannot be read as a label map: No such file"),
    ],
)
def test_bad_input_is_one_line(files, monkeypatch, name, text, message):
    (files / name).unlink()
    if text is not None:
        (files / name).write_text(text)
    with pytest.raises(InputError) as error:
        run(files, monkeypatch)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
