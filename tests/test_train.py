"""Training as a program: what it leaves behind, how it stops, and that it continues exactly.

Where the detector does not matter it is replaced by a few parameters, and the training step by one
that compiles in no time. It still depends on the parameters, the batch, the key and the step, so
that any deviation shows.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import minute
import numpy as np
import pytest
import tiny_run

import train
from programs import training_config
from step_jax import evaluations, failures, parallel, run_folder
from step_jax.cli import INTERRUPTED
from step_jax.errors import InputError
from step_jax.training_log import read_log


def make_cheap_step(detector, optimizer, **ignored):
    """What `train_step.make_train_step` would, but cheap."""
    del detector, ignored

    def step(state, batch, key):
        noise = jax.random.normal(jax.random.fold_in(key, state.step))
        seen = batch["clips"].astype(jnp.float32).mean() + batch["boxes"].mean()
        seen = parallel.sum_over_devices(seen) / parallel.axis_size()
        gradients = jax.tree.map(lambda leaf: 0.1 * leaf + noise * seen, state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        metrics = {
            "loss": (seen, jnp.float32(1)),
            "classification_1": (seen, jnp.float32(1)),
            "localization_1": (seen, jnp.float32(2)),
            "gradient_norm": seen,
        }
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return step


@pytest.fixture
def cheap(monkeypatch):
    """Trains with the cheap step."""
    make_cheap(monkeypatch)


def make_cheap(patch, make_step=make_cheap_step):
    patch.setattr(train, "make_train_step", make_step)
    patch.setattr(train, "init_variables", tiny_run.cheap_variables)


@pytest.fixture(scope="module")
def cheap_run(squares, tmp_path_factory):
    """A run with the cheap step that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("cheap") / "run"
    with pytest.MonkeyPatch.context() as patch:
        make_cheap(patch)
        assert train.train(tiny_run.config(squares), workdir) == 0
    return workdir


@pytest.fixture
def at_step(monkeypatch):
    """`at_step(n, act)`: act() once, while step n of this process's training is dispatched."""
    return acts_at_steps(monkeypatch).__setitem__


def acts_at_steps(patch):
    """{n: act}, to be filled, see `at_step`."""
    acts, counter = {}, iter(range(1, 10**6))

    def data_parallel(step, *, wrap=parallel.data_parallel, **options):
        wrapped = wrap(step, **options)

        def counting(*arguments):
            acts.pop(next(counter), lambda: None)()
            return wrapped(*arguments)

        return counting

    patch.setattr(train.parallel, "data_parallel", data_parallel)
    return acts


def send(number):
    return lambda: os.kill(os.getpid(), number)


# --- a run from beginning to end ------------------------------------------------------------------


def test_what_a_run_leaves_behind(squares, finished_run):
    config = json.loads((finished_run / "config.json").read_text())
    assert config == json.loads(json.dumps(tiny_run.config(squares).to_dict()))
    parameters = (finished_run / "parameters.txt").read_text().splitlines()
    assert parameters[-1].split()[0] == "total"
    counts = [int(line.split()[-1].replace(",", "")) for line in parameters]
    assert sum(counts[:-1]) == counts[-1] > 1000
    assert [line["step"] for line in read_log(finished_run)] == list(range(1, tiny_run.STEPS + 1))
    assert list((finished_run / "tensorboard").glob("events.out.tfevents.*"))
    assert json.loads((finished_run / "finished.json").read_text()) == {"step": tiny_run.STEPS}
    assert sorted(os.listdir(finished_run / "checkpoints")) == ["12", "9"]


def test_configuration_and_parameters_are_written_first(squares, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise KeyboardInterrupt

    make_cheap(monkeypatch)
    monkeypatch.setattr(train, "training_batches", fails)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny_run.config(squares), tmp_path)
    assert {"config.json", "parameters.txt"} <= {path.name for path in tmp_path.iterdir()}


def test_a_finished_run_is_left_as_it_is(squares, cheap, cheap_run, tmp_path, capsys):
    shutil.copytree(cheap_run, tmp_path / "run")
    assert train.train(tiny_run.config(squares), tmp_path / "run") == 0
    assert f"trained {tiny_run.STEPS} steps" in capsys.readouterr().out
    tiny_run.assert_same_checkpoint(cheap_run, tmp_path / "run", tiny_run.STEPS)
    assert run_folder.finished_step(tmp_path / "run") == tiny_run.STEPS
    assert read_log(tmp_path / "run") == read_log(cheap_run)


# --- killed ---------------------------------------------------------------------------------------


KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
import jax, pytest
jax.config.update("jax_num_cpu_devices", 4)
import test_train, tiny_run, train, types

rename = os.rename

def die(source, target, **options):
    if str(target).endswith("/checkpoints/6"):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target, **options)

os.rename = os.replace = die
test_train.make_cheap(pytest.MonkeyPatch())
records, annotations, workdir = sys.argv[1:]
squares = types.SimpleNamespace(records=records, annotations=annotations)
train.train(tiny_run.config(squares), pathlib.Path(workdir))
"""


def test_killed_run_continues_bit_identically(squares, cheap, cheap_run, tmp_path):
    """Killed where the sixth step's checkpoint has all of its files and not yet its name."""
    arguments = [squares.records, squares.annotations, tmp_path]
    process = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{tiny_run.ROOT}:{tiny_run.ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    names = os.listdir(tmp_path / "checkpoints")
    assert "3" in names
    assert len(names) == 2
    assert train.train(tiny_run.config(squares), tmp_path) == 0
    tiny_run.assert_same_checkpoint(cheap_run, tmp_path, tiny_run.STEPS)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, tiny_run.STEPS + 1))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["12", "9"]


def test_a_damaged_checkpoint_is_made_again(squares, cheap, cheap_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(cheap_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "12" / "training")
    assert train.train(tiny_run.config(squares), workdir) == 0
    lines = capsys.readouterr().out.splitlines()
    moved = next(line for line in lines if "checkpoints/12 is damaged" in line)
    assert moved.endswith(f": moved to {workdir / 'checkpoints' / 'damaged' / '12'}")
    assert "continuing from checkpoint 9" in lines
    tiny_run.assert_same_checkpoint(cheap_run, workdir, tiny_run.STEPS)
    assert [line["step"] for line in read_log(workdir)] == list(range(1, tiny_run.STEPS + 1))


@pytest.mark.parametrize(("size", "file"), [(300, "config.json"), (5000, "train_log.jsonl")])
def test_a_full_disk_ends_the_run_and_harms_nothing(
    squares, cheap, cheap_run, tmp_path, small_files_only, size, file
):
    """Before anything is written, and in the middle of the run; then there is room again."""
    config = tiny_run.config(squares)
    with small_files_only(size), pytest.raises(InputError, match="make room there") as error:
        train.train(config, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / file}")
    assert run_folder.finished_step(tmp_path) is None
    assert train.train(config, tmp_path) == 0
    tiny_run.assert_same_checkpoint(cheap_run, tmp_path, tiny_run.STEPS)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, tiny_run.STEPS + 1))


# --- asked to stop --------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, INTERRUPTED)])
def test_stops_with_a_checkpoint(
    squares, cheap, cheap_run, at_step, tmp_path, capfd, number, status
):
    at_step(5, send(number))
    config = tiny_run.config(squares)
    assert train.train(config, tmp_path) == status
    assert "saved checkpoint 5; the same command continues" in capfd.readouterr().out
    assert run_folder.finished_step(tmp_path) is None
    assert train.train(config, tmp_path) == 0
    assert "continuing from checkpoint 5" in capfd.readouterr().out
    tiny_run.assert_same_checkpoint(cheap_run, tmp_path, tiny_run.STEPS)
    steps = [line["step"] for line in read_log(tmp_path)]
    assert steps == list(range(1, tiny_run.STEPS + 1))


def test_one_program_serves_a_run(squares, cheap, evaluated, monkeypatch, tmp_path):
    """Its own output, what was restored of a checkpoint, and each batch are fed to the same one."""
    config = tiny_run.config(squares, train__eval_every_steps=5, train__checkpoint_every_steps=3)
    for run, stop in enumerate((send(signal.SIGTERM), lambda: None)):
        with monkeypatch.context() as patch, minute.compilations() as compiled:
            counts, at = [], acts_at_steps(patch)
            for number in range(1, 7):
                at[number] = lambda counts=counts, compiled=compiled: counts.append(len(compiled))
            at[7] = stop
            assert train.train(config, tmp_path) == 0
        first, second, third, *others = counts
        assert (second, third) == (first + 1, first + 1), run
        # Only the programs that look at a state before it is saved come later, and once.
        assert len(set(others)) == 1, run
    assert evaluated.steps == [5, 10, 12]


def test_second_ctrl_c_does_not_wait(squares, cheap, at_step, tmp_path):
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell started us in the background

    def twice():
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    at_step(2, twice)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny_run.config(squares), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_saving_ends_the_run_there(squares, cheap, tmp_path, monkeypatch):
    save = train.Checkpoints.save

    def save_and_stop(self, state, description):
        save(self, state, description)
        send(signal.SIGTERM)()
        send(signal.SIGTERM)()

    monkeypatch.setattr(train.Checkpoints, "save", save_and_stop)
    assert train.train(tiny_run.config(squares), tmp_path) == 0
    assert os.listdir(tmp_path / "checkpoints") == ["3"]


@pytest.mark.parametrize("moment", ["init_variables", "training_batches", "restore_latest"])
def test_a_signal_while_starting(squares, cheap, cheap_run, tmp_path, monkeypatch, capsys, moment):
    """Nothing is new, so nothing is saved; restoring, too, is a part of starting."""
    owner = train.Checkpoints if moment == "restore_latest" else train
    act = getattr(owner, moment)

    def act_and_stop(*arguments, **options):
        send(signal.SIGTERM)()
        return act(*arguments, **options)

    if moment == "restore_latest":
        shutil.copytree(cheap_run, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(tiny_run.STEPS))
    config = tiny_run.config(squares)
    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, act_and_stop)
        assert train.train(config, tmp_path / "run") == 0
    saved = "saved checkpoint 9" if moment == "restore_latest" else "nothing to save yet"
    assert f"SIGTERM: {saved}; the same command continues" in capsys.readouterr().out
    assert run_folder.finished_step(tmp_path / "run") is None


# --- evaluations between the steps ----------------------------------------------------------------


@pytest.fixture
def evaluated(monkeypatch, squares):
    """Replaces evaluation; the list of the steps that were evaluated. `.act` runs in the middle."""
    steps = []
    told = types.SimpleNamespace(steps=steps, act=lambda: None)

    def evaluate_checkpoint(config, workdir, step):
        told.act()
        steps.append(step)
        report = {"score": 50.0 - step, "steps": [{"step": 1, "mean": 5.0}]}
        folder = evaluations.folder(workdir, split=config.data.eval_split, step=step)
        evaluations.write_metrics(folder, report)
        return report

    monkeypatch.setattr(train.inference, "predictor_of", lambda *model, step: step)
    monkeypatch.setattr(train.evaluate, "evaluate_checkpoint", evaluate_checkpoint)
    return told


def test_evaluates_when_due_and_keeps_the_best(squares, cheap, evaluated, tmp_path):
    changes = {"train__eval_every_steps": 4, "train__steps": 10, "train__summary": True}
    config = tiny_run.config(squares, **changes)
    assert train.train(config, tmp_path) == 0
    assert (tmp_path / "summary.png").exists()
    assert evaluated.steps == [4, 8, 10]
    # Checkpoints at 3, 4, 6, 8, 9, 10: the two latest and the best.
    assert sorted(map(int, os.listdir(tmp_path / "checkpoints"))) == [4, 9, 10]


def test_a_signal_ends_an_evaluation_and_it_is_made_up_for(squares, cheap, evaluated, tmp_path):
    config = tiny_run.config(squares, train__eval_every_steps=6)
    evaluated.act = send(signal.SIGTERM)
    assert train.train(config, tmp_path) == 0
    assert evaluated.steps == []
    evaluated.act = lambda: None
    assert train.train(config, tmp_path) == 0
    assert evaluated.steps == [6, 12]


def test_wrong_evaluation_is_noticed_before_training(squares, tmp_path):
    config = tiny_run.config(squares, train__eval_every_steps=6, data__eval_split="val")
    with pytest.raises(InputError, match="no split 'val'"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- diverging ------------------------------------------------------------------------------------


def breaking_step(broken):
    """A step whose `broken` ("loss" or "params") is not finite from step 5 on."""

    def make(*arguments, **options):
        step = make_cheap_step(*arguments, **options)

        def break_at_5(before, batch, key):
            bad = jnp.where(before.step + 1 >= 5, jnp.nan, 0.0)
            state, metrics = step(before, batch, key)
            if broken == "loss":
                guarded = jax.tree.map(lambda *both: jnp.where(bad == 0, *both), state, before)
                return guarded, metrics | {"loss": (metrics["loss"][0] + bad, jnp.float32(1))}
            params = jax.tree.map(lambda leaf: leaf + bad, state.params)
            return state.replace(params=params), metrics

        return break_at_5

    return make


@pytest.mark.parametrize(
    ("broken", "message"),
    [("loss", "step 5: the loss is nan"), ("params", "step 6: params/.* is not finite")],
)
def test_a_run_that_diverges_stops(squares, tmp_path, monkeypatch, broken, message):
    make_cheap(monkeypatch, breaking_step(broken))
    with pytest.raises(InputError, match=message) as error:
        train.train(tiny_run.config(squares), tmp_path)
    assert "Lower optimizer.learning_rate" in str(error.value)
    assert os.listdir(tmp_path / "checkpoints") == ["3"]
    arrays = tiny_run.saved_arrays(tmp_path, 3)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert [line["step"] for line in read_log(tmp_path)][:4] == [1, 2, 3, 4]
    assert (tmp_path / "failures" / "step_00000005.npz").exists() == (broken == "loss")


def test_what_failed_is_kept_for_replay(squares, tmp_path, monkeypatch):
    """The batch of the step that failed, not of the one after it, and the state from before."""
    seen = {}
    split_batch = parallel.split_batch

    def look(batch):
        seen[int(batch["number"][0])] = batch
        return split_batch(batch)

    make_cheap(monkeypatch, breaking_step("loss"))
    monkeypatch.setattr(train.parallel, "split_batch", look)
    with pytest.raises(InputError, match=r"Its batch is in .*step_00000005\.npz .* --replay="):
        train.train(tiny_run.config(squares, train__checkpoint_every_steps=4), tmp_path)
    failure = failures.load(tmp_path / "failures" / "step_00000005.npz")
    assert set(failure.batch["video"]) <= {"a", "b"}
    for name in seen[5].keys() - {"number"}:
        value = seen[5][name]
        np.testing.assert_array_equal(failure.batch[name], value)
    assert not np.array_equal(seen[5]["clips"], seen[6]["clips"])
    arrays = tiny_run.saved_arrays(tmp_path, 4)
    np.testing.assert_array_equal(
        failure.state["params/kernel"], arrays["model['params']['kernel']"]
    )


@pytest.mark.slow
def test_absurd_learning_rate(squares, compilation_cache, tmp_path):
    flags = tiny_run.flags(
        squares, workdir=tmp_path, optimizer__learning_rate=1e30, train__checkpoint_every_steps=1
    )
    process = tiny_run.start("train.py", *flags, cache=compilation_cache)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: step ")

    (saved,) = (tmp_path / "failures").iterdir()
    process = tiny_run.start(
        "train.py", f"--workdir={tmp_path}", f"--replay={saved}", cache=compilation_cache
    )
    output, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "Traceback" not in errors  # XLA says there where it compiles slowly
    *_, first, last = output.splitlines()
    assert re.fullmatch(r"first: (inf|nan) from \w+ of (backbone|heads_).* at step_jax/.*", first)
    assert re.fullmatch(r"step \d+: the .* is (nan|inf), and again", last)


# --- another run's parameters ---------------------------------------------------------------------


def make_idle_step(*arguments, **ignored):
    """A step that leaves the parameters as they are."""
    del arguments, ignored

    def step(state, batch, key):
        seen = batch["clips"].astype(jnp.float32).mean() + 0 * jax.random.uniform(key)
        metrics = {"loss": (parallel.sum_over_devices(seen), jnp.float32(1))}
        return state.replace(step=state.step + 1), metrics

    return step


def model_of(run):
    """The parameters of a run's last checkpoint, by path."""
    arrays = tiny_run.saved_arrays(run, max(map(int, os.listdir(run / "checkpoints"))))
    return {path: array for path, array in arrays.items() if path.startswith("model")}


@pytest.mark.slow
def test_a_run_starts_from_anothers_parameters(
    squares, finished_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train, "make_train_step", make_idle_step)
    changes = {"train__init_from": str(finished_run), "train__steps": 1, "seed": 5}
    config = tiny_run.config(squares, **changes, train__init_skip=("classifier",))
    assert train.train(config, tmp_path / "run") == 0
    assert "arrays taken, no difference" in capsys.readouterr().out
    found, theirs = model_of(tmp_path / "run"), model_of(finished_run)
    assert found.keys() == theirs.keys()
    equal = {path: np.array_equal(found[path], theirs[path]) for path in found}
    kernels = {path: same for path, same in equal.items() if "kernel" in path}
    assert {path for path, same in kernels.items() if not same} == {
        path for path in kernels if "classifier" in path
    }
    assert len(kernels) > 8

    assert train.train(config, tmp_path / "run") == 0
    assert "is not read: the run continues from its own checkpoint" in capsys.readouterr().out
    other = tiny_run.config(squares, **changes | {"train__init_from": "elsewhere"})
    with pytest.raises(InputError, match=r"train\.init_from was"):
        train.train(other, tmp_path / "run")


def test_parameters_that_are_not_there_keep_their_values(squares, finished_run, capsys):
    config = tiny_run.config(squares, train__init_from=str(finished_run))
    variables = {"params": {"backbone": {"new": {"kernel": np.full((2, 3), 7.0, np.float32)}}}}
    with pytest.raises(InputError, match="nothing of that model fits"):
        train.initialised_from(config, variables, continues=False)
    source = train.inference.load_predictor(finished_run).variables
    wanted = {"params": source["params"] | variables["params"]}
    wanted["params"]["heads_0"] = jax.tree.map(
        lambda leaf: leaf[..., None], source["params"]["heads_0"]
    )
    capsys.readouterr()
    found = train.initialised_from(config, wanted, continues=False)
    lines = capsys.readouterr().out
    assert "init_from: missing: backbone/new/kernel" in lines
    assert "init_from: surplus: backbone/" in lines
    assert "init_from: misshapen: heads_0/box/kernel" in lines
    assert found["params"]["backbone"]["new"]["kernel"][0, 0] == 7
    np.testing.assert_array_equal(
        found["params"]["heads_1"]["box"]["kernel"], source["params"]["heads_1"]["box"]["kernel"]
    )


def test_a_part_to_skip_that_is_nowhere(squares, finished_run):
    config = tiny_run.config(
        squares, train__init_from=str(finished_run), train__init_skip=("clasifier",)
    )
    with pytest.raises(InputError, match="init_skip: 'clasifier' is in no parameter's path"):
        train.initialised_from(config, {"params": {"classifier": np.zeros(1)}}, continues=False)


def test_a_folder_without_a_run(squares, cheap, tmp_path):
    config = tiny_run.config(squares, train__init_from=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="nothing/checkpoints: no checkpoints there"):
        train.train(config, tmp_path / "run")


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["steps", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"]
)
def test_numbers_that_mean_nothing(squares, key):
    config = tiny_run.config(squares, **{f"train__{key}": 0})
    with pytest.raises(InputError, match=f"train.{key} is 0; expected 1 or more"):
        training_config.check_config(config)


@pytest.mark.parametrize(
    ("fps", "told"), [(0.0, False), (25.0, False), (24.6, False), (30.0, True)]
)
def test_a_frame_rate_that_the_videos_have_not_is_told(squares, capsys, fps, told):
    training_config.check_config(tiny_run.config(squares, data__fps=fps, train__eval_every_steps=2))
    line = f"data.fps is {fps:g}, but the videos have 25 frames a second: "
    assert capsys.readouterr().out.startswith(line) == told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("early", r"the records hold no flow.*'early': build them with --flow"),
        ("both", r"data\.modality is 'both'; expected one of rgb, flow, early"),
    ],
)
def test_a_modality_without_its_records_is_noticed_before_training(
    squares, tmp_path, name, message
):
    with pytest.raises(InputError, match=message):
        train.train(tiny_run.config(squares, data__modality=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_backbone_of_other_channels_is_noticed_before_training(squares, tmp_path):
    config = tiny_run.config(squares, model__backbone="vgg16")
    with config.unlocked():
        config.model.backbone_options = {"channels": 18}
    with pytest.raises(InputError, match="'rgb' gives clips of 3 channels, the backbone reads 18"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_groups_are_noticed_before_training(squares, cheap, tmp_path):
    config = tiny_run.config(squares, optimizer__groups=(("kernel", 0.5), ("box*", 1.0)))
    with pytest.raises(InputError, match="'bias' is in none of them"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rates_of_groups_are_printed(squares, cheap, tmp_path, capsys):
    groups = (("kernel", 0.5), ("*", 2.0))
    config = tiny_run.config(
        squares, optimizer__groups=groups, optimizer__learning_rate=0.25, train__steps=1
    )
    assert train.train(config, tmp_path) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kernel", "rate", "0.125", "12"] in printed
    assert ["*", "rate", "0.5", "4"] in printed
