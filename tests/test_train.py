"""Training as a program: what it leaves behind, how it stops, and that it continues exactly.

Where the detector does not matter it is replaced by a few parameters, and the training step by one
that compiles in no time. It still depends on the parameters, the batch, the key and the step, so
that any deviation shows.
"""

import json
import os
import random
import shutil
import signal
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

import train
from step_jax import evaluations, parallel, run_folder
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
    acts = {}
    split_batch, counter = parallel.split_batch, iter(range(1, 10**6))

    def counting(batch):
        acts.pop(next(counter), lambda: None)()
        return split_batch(batch)

    monkeypatch.setattr(train.parallel, "split_batch", counting)
    return acts.__setitem__


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


def kill_after_first_checkpoint(flags, workdir, cache, *, patience_s):
    """Starts a training and kills it some time after its first checkpoint."""
    process = tiny_run.start("train.py", *flags, cache=cache)
    while not list((workdir / "checkpoints").glob("[0-9]")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(patience_s)
    process.kill()
    output, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"not killed in time: {output}{errors}"
    assert not (workdir / "finished.json").exists()


def continue_to_the_end(flags, cache):
    process = tiny_run.start("train.py", *flags, cache=cache)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "continuing from checkpoint" in output


def test_killed_run_continues_bit_identically(squares, finished_run, compilation_cache, tmp_path):
    workdir = tmp_path / "run"
    flags = tiny_run.flags(squares, workdir=workdir, train__checkpoint_every_steps=1)
    kill_after_first_checkpoint(flags, workdir, compilation_cache, patience_s=0.0)
    # What a kill in the middle of a later write leaves: a temporary folder.
    partial = workdir / "checkpoints" / f"{tiny_run.STEPS}.orbax-checkpoint-tmp"
    (partial / "model").mkdir(parents=True)
    (partial / "model" / "_METADATA").write_text('{"half')
    continue_to_the_end(flags, compilation_cache)
    tiny_run.assert_same_checkpoint(finished_run, workdir, tiny_run.STEPS)
    assert [line["step"] for line in read_log(workdir)] == list(range(1, tiny_run.STEPS + 1))
    assert not partial.exists()


@pytest.mark.slow
def test_killed_at_any_moment(squares, compilation_cache, tmp_path):
    """Many checkpoints, so that most kills hit the writing or deleting of one."""
    changes = {"train__steps": 60, "train__checkpoint_every_steps": 1}
    straight = tmp_path / "straight"
    flags = tiny_run.flags(squares, workdir=straight, **changes)
    process = tiny_run.start("train.py", *flags, cache=compilation_cache)
    assert process.wait() == 0, process.stderr.read()
    moments = random.Random(0)
    workdir = tmp_path / "killed"
    flags = tiny_run.flags(squares, workdir=workdir, **changes)
    for _ in range(5):
        before = len(read_log(workdir))
        process = tiny_run.start("train.py", *flags, cache=compilation_cache)
        while process.poll() is None and len(read_log(workdir)) < before + 3:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.communicate()
    continue_to_the_end(flags, compilation_cache)
    tiny_run.assert_same_checkpoint(straight, workdir, 60)
    assert [line["step"] for line in read_log(workdir)] == list(range(1, 61))


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


def test_second_ctrl_c_does_not_wait(squares, cheap, at_step, tmp_path):
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell started us in the background

    def twice():
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    at_step(2, twice)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny_run.config(squares), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_saving_is_answered_after_the_next_step(
    squares, cheap, tmp_path, monkeypatch
):
    save = train.Checkpoints.save

    def save_and_stop(self, state, description):
        save(self, state, description)
        if int(state.step) == 3:
            send(signal.SIGTERM)()

    monkeypatch.setattr(train.Checkpoints, "save", save_and_stop)
    assert train.train(tiny_run.config(squares), tmp_path) == 0
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "4"]


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

    monkeypatch.setattr(train.inference, "restore_predictor", lambda checkpoints, step: step)
    monkeypatch.setattr(train.evaluate, "evaluate_checkpoint", evaluate_checkpoint)
    return told


def test_evaluates_when_due_and_keeps_the_best(squares, cheap, evaluated, tmp_path):
    config = tiny_run.config(squares, train__eval_every_steps=4, train__steps=10)
    assert train.train(config, tmp_path) == 0
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

        def break_at_5(state, batch, key):
            bad = jnp.where(state.step + 1 >= 5, jnp.nan, 0.0)
            state, metrics = step(state, batch, key)
            if broken == "loss":
                return state, metrics | {"loss": (metrics["loss"][0] + bad, jnp.float32(1))}
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
        train.check_config(config)


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
