"""`benchmarks.scaling`: what is planned, resumed, searched and told; a worker."""

import io
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from benchmarks import configuration
from benchmarks.scaling import cases, drawing, worker, workers
from benchmarks.scaling.cases import Case, Hardware
from benchmarks.scaling.largest import measure_up_to_largest
from benchmarks.scaling.measurements import Measurement
from benchmarks.scaling.table import table
from step_jax import parallel
from step_jax.errors import InputError

CPU, GPUS = Hardware("cpu", 1), Hardware("gpu", 4)
CONFIG = configuration.load_config("configs/moving_actors.py")


def test_every_case_has_its_own_name_and_survives_json():
    for hardware in (CPU, GPUS):
        planned = [case for own in cases.sweeps(CONFIG, hardware, ()).values() for case in own]
        assert len({case.name for case in planned}) == len(planned) > 25
        for case in planned:
            assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case
            configuration.changed(CONFIG, case.changes)  # the keys are there


def test_a_case_changes_a_copy_of_the_configuration():
    (case,) = (one for one in cases.sweeps(CONFIG, CPU, ("steps",))["steps"] if one.value == 4
               and one.series == "extended")  # fmt: skip
    changed = configuration.changed(CONFIG, case.changes)
    assert changed.model.extension_plan == (False, True, True, True)
    assert len(changed.loss.thresholds) == 4
    assert CONFIG.model.extension_plan == (False, True, True)
    assert cases.digest(CONFIG, case) != cases.digest(changed, case)


def test_virtual_devices_share_a_batch_and_real_ones_are_those_there_are():
    virtual = cases.sweeps(CONFIG, CPU, ("devices",))["devices"]
    assert [(case.wrapper, case.devices, case.batch) for case in virtual] == [
        ("jit", 1, 8), *(("pmap", number, 8) for number in (1, 2, 4, 8))
    ]  # fmt: skip
    real = cases.sweeps(CONFIG, GPUS, ("devices",))["devices"]
    assert {case.devices for case in real} == {1, 2, 4}
    assert all(case.batch % case.devices == 0 for case in real)
    assert [case.batch for case in real if case.series == "batch of each"] == [4, 8, 16]


def test_the_largest_batch_is_looked_for_on_accelerators_alone():
    assert "largest" not in cases.sweeps(CONFIG, CPU, ())
    found = cases.sweeps(CONFIG, GPUS, ("largest",))["largest"]
    assert {case.changes["model.precision"] for case in found} == {
        "float32", "tensorfloat32", "bfloat16"
    }  # fmt: skip


def test_an_unknown_sweep_is_told():
    with pytest.raises(InputError, match=r"--sweeps colour: expected some of devices,"):
        cases.sweeps(CONFIG, CPU, ("colour",))


def test_a_process_sees_as_many_devices_as_its_case_says(monkeypatch, tmp_path):
    case = Case("devices", 2, 8, devices=2)
    assert workers.environment(case, CPU, tmp_path)["JAX_NUM_CPU_DEVICES"] == "2"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert workers.environment(case, GPUS, tmp_path)["CUDA_VISIBLE_DEVICES"] == "0,1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0")
    assert workers.environment(case, GPUS, tmp_path)["CUDA_VISIBLE_DEVICES"] == "3,1"


@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 7, 24, 100])
def test_the_largest_batch_that_fits_is_found(tmp_path, capacity):
    def measure(case):
        one = Measurement(case, tmp_path / f"{case.name}.json", "digest")
        one.tell({"fits": case.batch <= capacity})
        return one

    found = measure_up_to_largest(Case("largest", 1, 1), measure, limit=1024)
    batches = [one.case.batch for one in found]
    assert batches == sorted(set(batches))
    assert len(batches) < 13
    fitting = [one.case.batch for one in found if one.fits]
    assert [batch for batch in batches if batch <= capacity] == fitting
    assert capacity - max(fitting, default=0) <= capacity // 8
    assert any(not one.fits for one in found)


def test_no_batch_is_larger_than_the_limit(tmp_path):
    def measure(case):
        return Measurement(case, tmp_path / f"{case.name}.json", "digest")

    found = measure_up_to_largest(Case("largest", 1, 1), measure, limit=20)
    assert [one.case.batch for one in found] == [1, 2, 4, 8, 16]


TOLD = {"fits": True, "devices": 2, "gflop": 40.0, "temporary_mib": 100.0}


def measured(folder, value, seconds, **told):
    case = Case("batch", value, batch=int(value))
    one = Measurement(case, folder / f"{case.name}.json", "digest")
    one.tell(TOLD | told)
    for each in seconds:
        one.add({"seconds": each, "cpu_seconds": 2 * each, "peak_mib": 300.0})
    return one


def test_a_measurement_goes_on_where_it_was_interrupted(tmp_path):
    one = measured(tmp_path, 4, [1.0, 3.0])
    assert not one.is_complete(3)
    again = Measurement(one.case, tmp_path / "batch-4.json", "digest")
    again.add({"seconds": 2.0, "cpu_seconds": 2.5, "peak_mib": 310.0})
    assert again.is_complete(3)
    row = again.row(peak_tflops=0.1)
    assert (row["seconds"], row["clips_per_second"], row["gflop_per_clip"]) == (2.0, 2.0, 10.0)
    assert (row["cost"], row["least_cost"], row["most_cost"]) == (0.5, 0.25, 0.75)
    assert row["peak_mib"] == 310.0
    assert again.row(by="cpu_seconds")["cost"] == 2.5 / 4
    assert row["share_of_peak"] == pytest.approx(40e9 / 2 / (2 * 0.1e12))
    assert not Measurement(one.case, tmp_path / "batch-4.json", "another").seconds


def test_the_table_and_the_picture(tmp_path):
    rows = [measured(tmp_path, 1, [0.5]).row(), measured(tmp_path, 4, [1.0, 1.2, 1.1]).row(),
            measured(tmp_path, 8, [], fits=False).row()]  # fmt: skip
    header, first, second, third = table("batch", rows).splitlines()
    assert header.split()[:2] == ["batch,", "clips"]
    assert "of peak" not in header
    assert first.split() == ["1", "1", "500.0", "2.00", "1000.0", "1.00", "0%", "40.00", "100",
                             "300"]  # fmt: skip
    assert second.split()[2:6] == ["275.0", "3.64", "550.0", "0.55"]
    assert "does not fit" in third
    drawing.draw({"batch": rows, "remat": []}, tmp_path / "s.png", title="tiny")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def tiny_config(tmp_path):
    """The file of a configuration whose training step compiles in seconds."""
    path = tmp_path / "tiny.py"
    path.write_text(
        "from configs import moving_actors\n"
        "def get_config():\n"
        "    config = moving_actors.get_config()\n"
        "    with config.ignore_type(), config.unlocked():\n"
        f"        config.update_from_flattened_dict({tiny_run.OVERRIDES!r})\n"
        "    return config\n"
    )
    return path


class SmallTraining:
    """In the place of `Training`: one product, summed over devices."""

    def __init__(self, config, described, batch_size, *, initialise):
        assert described["model"]["clip_frames"] == config.model.clip_frames == 4
        self.batch = {"clips": np.ones((batch_size, 3, 8), np.float32)}
        self.variables = jnp.zeros((8, 8))

    def new_state(self):
        return jax.device_put(self.variables, parallel.replicated())

    def device_step(self):
        def step(state, batch, key):
            index = parallel.example_index(len(batch["clips"]))
            weighted = batch["clips"] * (index + 1)[:, None, None]
            added = jnp.einsum("btc,btd->cd", batch["clips"], weighted)
            state = state + parallel.sum_over_devices(added)
            return state, {"sum": state.sum()}

        return step

    def make_step(self):
        return parallel.data_parallel(self.device_step(), donate=True)


def run_worker(monkeypatch, capsys, config, case):
    order = {"config": str(config), "case": case.to_json()}
    monkeypatch.setattr(sys, "argv", ["worker", json.dumps(order)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n2\n"))
    worker.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("wrapper", ["jit", "pmap"])
def test_a_worker_times_what_it_is_told_to(one_device, monkeypatch, capsys, wrapper):
    monkeypatch.setattr(worker, "Training", SmallTraining)
    case = Case("x", 1, 2, wrapper=wrapper, changes={"model.clip_frames": 4})
    described, *answers = run_worker(monkeypatch, capsys, "configs/moving_actors.py", case)
    assert described["fits"]
    assert (described["devices"], described["frames"]) == (1, 3)
    assert described["gflop"] * 1e9 == pytest.approx(2 * (2 * 3 * 8 * 8))
    assert len(answers) == 2
    assert all(answer["seconds"] > 0 < answer["peak_mib"] for answer in answers)


def test_what_does_not_fit_is_told(one_device, monkeypatch, capsys):
    def full(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(worker, "Training", full)
    answers = run_worker(monkeypatch, capsys, "configs/moving_actors.py", Case("x", 1, 2))
    assert answers == [{"fits": False}]


def test_without_devices_is_undone():
    before = parallel.sum_over_devices
    with worker.without_devices():
        assert parallel.sum_over_devices(3) == 3
    assert parallel.sum_over_devices is before


@pytest.mark.slow
def test_a_worker_with_a_training_step(tiny_config, one_device, monkeypatch, capsys):
    plain, wrapped = (
        run_worker(monkeypatch, capsys, tiny_config, Case("x", 1, 2, wrapper=wrapper))[0]
        for wrapper in ("jit", "pmap")
    )
    assert plain["fits"]
    assert wrapped["fits"]
    assert plain["frames"] == 6
    assert plain["gflop"] == pytest.approx(wrapped["gflop"])


@pytest.mark.slow
def test_the_command_and_again_without_work(tiny_config, tmp_path):
    command = [
        sys.executable, "-m", "benchmarks.scaling", "--config", tiny_config, "--rounds", "2",
        "--output", tmp_path / "out", "--sweeps", "devices,accumulate", "--seconds", "0.02",
    ]  # fmt: skip
    texts = []
    for _ in range(2):
        done = subprocess.run(
            list(map(str, command)), cwd=tiny_run.ROOT, check=True, capture_output=True, text=True
        )
        texts.append(done.stdout.splitlines()[1:])
    assert texts[0] == texts[1]
    written = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert [row["devices"] for row in written["rows"]["devices"]] == [1, 1, 2, 4, 8]
    assert all(len(one["seconds"]) == 2 for one in written["measurements"])
    assert (tmp_path / "out" / "scaling.png").exists()
