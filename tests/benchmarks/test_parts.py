"""`benchmarks.inference` and `benchmarks.training` on a detector of a few thousand parameters."""

import json
import sys

import jax
import numpy as np
import pytest
import tiny_run

from benchmarks import arithmetic, configuration, inference, parts, training
from benchmarks.arithmetic import MatrixRate
from configs import moving_actors
from step_jax.errors import InputError
from step_jax.train_state import init_variables

INFERENCE_PARTS = ["backbone", "context", "RoI 1", "head 1", "RoI 2", "head 2"]
TRAINING_PARTS = ["backbone", "context", "candidates", *INFERENCE_PARTS[2:], "optimizer"]


def random_variables(detector, **options):
    """What `train_state.init_variables` gives, without compiling it."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(detector, **options))
    return jax.tree.map(lambda leaf: random.normal(0, 0.1, leaf.shape).astype("float32"), shapes)


@pytest.fixture
def run(tmp_path, monkeypatch, one_device):
    """`run(program, *arguments)`: what it writes to its --output."""
    values = {key: value for key, value in tiny_run.OVERRIDES.items() if "scene" not in key}
    config = tmp_path / "tiny.py"
    config.write_text(
        "from configs import moving_actors\n"
        "def get_config():\n"
        "    config = moving_actors.get_config()\n"
        "    with config.ignore_type(), config.unlocked():\n"
        f"        config.update_from_flattened_dict({values!r})\n"
        "    return config\n"
    )

    monkeypatch.setattr(arithmetic, "_SHAPES", ((64, 64, 64),))

    def run(program, *arguments):
        monkeypatch.setattr(program, "init_variables", random_variables)
        output = tmp_path / "output.json"
        flags = ["--config", config, "--output", output, "--repeats", 1, "--batch", 1, *arguments]
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, flags)])
        program.main()
        return json.loads(output.read_text())

    return run


def names_of(result):
    return [part["part"] for part in result["parts"]]


def gflop_of_parts(result):
    return sum(part["gflop"] for part in result["parts"])


def test_inference(run, capsys):
    result = run(inference, "--batches", "1", "--peak_tflops", 1)
    assert names_of(result) == INFERENCE_PARTS
    assert result["whole"]["gflop"] == pytest.approx(gflop_of_parts(result), rel=1e-9)
    assert result["peak_mib"] >= result["before_mib"] > 0
    (batch,) = result["batches"]
    assert batch["fits"]
    assert batch["gflop"] == result["whole"]["gflop"]
    printed = capsys.readouterr().out
    assert "head 2" in printed
    assert "of peak" in printed


@pytest.mark.slow
def test_deviation_of_bfloat16(run, capsys):
    rows = run(inference, "--compare_precision")["deviation"]
    assert [(row["run"], row["step"]) for row in rows] == [
        ("free", 1), ("free", 2), ("fed", 1), ("fed", 2),
    ]  # fmt: skip
    for row in rows:
        assert 0 < row["logits"]["mean"] <= row["logits"]["largest"] < 1
    assert rows[0]["logits"] == rows[2]["logits"]  # the first step is fed the same tubes anyway
    assert "step 2" in capsys.readouterr().out


@pytest.mark.slow
def test_training(run):
    result = run(training)
    assert names_of(result) == TRAINING_PARTS
    assert result["whole"]["gflop"] == pytest.approx(gflop_of_parts(result), rel=1e-9)
    forward = [part["part"] for part in result["parts"] if "forward_median_seconds" in part]
    assert forward == [name for name in TRAINING_PARTS if name not in ("candidates", "optimizer")]


def test_memory_that_does_not_suffice_ends_the_search(run, monkeypatch):
    def full(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    measure = inference.measure

    def then_full(*arguments):
        result = measure(*arguments)
        monkeypatch.setattr(inference, "time_whole", full)
        return result

    monkeypatch.setattr(inference, "measure", then_full)
    assert run(inference, "--whole", "--batches", "1,2")["batches"] == [{"batch": 1, "fits": False}]


def test_report_and_table():
    whole = parts.Measured("whole", (2.0, 4.0, 3.0), int(6e9))
    part = parts.Measured("backbone", (1.0,), int(4e9), temporary_bytes=3 * 2**20)
    forward = parts.Measured("backbone", (0.25,), int(2e9))
    rate = MatrixRate(8e9, (1, 2, 3))
    reported = parts.report(whole, [part], rate, forwards=[forward], peak_tflops=0.1)
    assert reported["whole"]["median_seconds"] == 3
    assert reported["whole"]["share_of_matrix_rate"] == pytest.approx(6 / 3 / 8)
    assert reported["parts"][0]["share_of_peak"] == pytest.approx(4 / 100)
    assert reported["rest_seconds"] == 2
    row = parts.table(reported).splitlines()[1].split()
    assert row == ["backbone", "1000.0", "1000.0", "250.0", "33%", "4.00", "50%", "4.0%", "3"]


def test_configurations(tmp_path):
    assert configuration.load_config("configs/ava.py:released").train.batch_size == 8
    described = configuration.describe(
        "configs/ava.py", configuration.load_config("configs/ava.py"), precision="bfloat16"
    )
    assert len(described["classes"]) == 60
    assert described["model"]["precision"] == "bfloat16"
    for spec in ("configs/none.py", "configs/ava.py:none", "configs/moving_actors.py:none"):
        with pytest.raises(InputError, match="--config"):
            configuration.load_config(spec)
    with pytest.raises(InputError, match="--precision"):
        configuration.describe("x.py", moving_actors.get_config(), precision="float8")
