"""Checkpoints: exact, complete or absent, and errors that say what to do."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from step_jax import evaluations, parallel
from step_jax.checkpoint import Checkpoints, DamagedCheckpointError
from step_jax.errors import InputError
from step_jax.train_state import TrainState

DESCRIPTION = {"model": {"depth": 3}, "classes": ["walk", "run"], "proposals": 11}


def make_state(step=0, *, width=4, extra=False, seed=0):
    """All kinds of leaves: float32, bfloat16, integers, scalars, a second collection."""
    keys = iter(jax.random.split(jax.random.key(seed + step), 4))
    params = {
        "backbone": {"kernel": jax.random.normal(next(keys), (3, width))},
        "heads_0": {"half": jax.random.normal(next(keys), (5,), jnp.bfloat16)},
    }
    if extra:
        params["heads_0"]["surplus"] = jnp.zeros(2)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    opt_state = optimizer.init(params)
    for _ in range(2):
        _, opt_state = optimizer.update(params, opt_state, params)
    return TrainState(
        step=jnp.int32(step),
        params=params,
        model_state={"statistics": {"mean": jax.random.normal(next(keys), (2,))}},
        opt_state=opt_state,
    )


@pytest.fixture
def opened():
    """Opens checkpoints and closes them in the end."""
    stack = []

    def open_checkpoints(workdir, **options):
        stack.append(Checkpoints(workdir, **options))
        return stack[-1]

    yield open_checkpoints
    for checkpoints in stack:
        checkpoints.close()


def save(checkpoints, *steps, **changes):
    for step in steps:
        checkpoints.save(make_state(step, **changes), DESCRIPTION)
        checkpoints.wait()


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


# --- what comes back ------------------------------------------------------------------------------


def test_a_fresh_process_gets_back_what_was_saved(opened, tmp_path):
    save(opened(tmp_path), 7)
    checkpoints = opened(tmp_path)  # knows only the disk
    assert checkpoints.latest_step() == 7
    assert_same(checkpoints.restore_state(7, like=make_state(0, seed=9)), make_state(7))
    assert checkpoints.describe(7) == {"version": 1, **DESCRIPTION}


def test_evaluation_restores_the_model_alone(opened, tmp_path):
    save(opened(tmp_path), 3)
    shutil.rmtree(tmp_path / "checkpoints" / "3" / "training")
    checkpoints = opened(tmp_path, read_only=True)
    shapes = jax.eval_shape(lambda: make_state().variables)
    assert_same(checkpoints.restore_variables(3, shapes), make_state(3).variables)


def test_restored_arrays_lie_where_steps_leave_them(opened, tmp_path):
    """On all devices, though they were saved on one: else the step is compiled twice."""
    save(opened(tmp_path), 1)
    state = opened(tmp_path).restore_state(1, like=make_state())
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {parallel.replicated()}


def test_saved_on_four_devices_restored_on_one(opened, tmp_path, monkeypatch):
    checkpoints = opened(tmp_path)
    checkpoints.save(jax.device_put(make_state(1), parallel.replicated()), DESCRIPTION)
    checkpoints.wait()
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    monkeypatch.setattr(parallel, "replicated_here", lambda: alone)
    state = opened(tmp_path).restore_state(1, like=make_state())
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {alone}
    assert_same(state, make_state(1))


# --- which are kept and found ---------------------------------------------------------------------


def evaluate(workdir, step, score, *, split="test"):
    evaluations.write_metrics(evaluations.folder(workdir, split=split, step=step), {"score": score})


def test_keeps_the_latest_and_the_best(opened, tmp_path):
    checkpoints = opened(tmp_path, keep=2)
    for step, score in [(1, 10.0), (2, 30.0), (3, 20.0), (4, None), (5, 25.0), (6, 1.0)]:
        save(checkpoints, step)
        evaluate(tmp_path, step, score)
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.find("latest") == 6
    assert checkpoints.find("best") == 2
    assert checkpoints.find("5") == 5
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "5", "6"]


def test_a_better_one_replaces_the_best(opened, tmp_path):
    checkpoints = opened(tmp_path, keep=1)
    save(checkpoints, 1)
    evaluate(tmp_path, 1, 10.0)
    save(checkpoints, 2)
    evaluate(tmp_path, 2, 20.0)
    save(checkpoints, 3)
    assert checkpoints.steps() == [2, 3]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("4", "'4': expected 'latest', 'best' or one of the steps \\[1, 2\\]"),
        ("last", "'last': expected 'latest', 'best' or one of"),
        ("-1", "'-1': expected"),
        ("best", "no checkpoint of \\[1, 2\\] was evaluated.*run evaluate.py first"),
    ],
)
def test_asking_for_one_that_is_not_there(opened, tmp_path, which, message):
    checkpoints = opened(tmp_path)
    save(checkpoints, 1, 2)
    with pytest.raises(InputError, match=message):
        checkpoints.find(which)


def test_a_folder_without_checkpoints(opened, tmp_path):
    with pytest.raises(InputError, match="give the --workdir of a training run"):
        opened(tmp_path / "typo", read_only=True)
    assert not (tmp_path / "typo").exists()
    checkpoints = opened(tmp_path)
    assert checkpoints.latest_step() is None
    with pytest.raises(InputError, match="no complete checkpoint there yet"):
        checkpoints.find("latest")


def test_another_process_sees_new_ones(opened, tmp_path):
    writer = opened(tmp_path, keep=1)
    save(writer, 1)
    reader = opened(tmp_path, read_only=True)
    assert reader.steps() == [1]
    save(writer, 2)
    assert reader.steps() == [2]
    assert reader.describe(2) == {"version": 1, **DESCRIPTION}


def test_reading_changes_nothing(opened, tmp_path):
    save(opened(tmp_path, keep=3), 1, 2)
    partial = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    partial.mkdir()
    assert opened(tmp_path, read_only=True, keep=1).steps() == [1, 2]
    assert partial.exists()  # another process may be writing it
    save(opened(tmp_path, keep=1), 4)
    assert os.listdir(tmp_path / "checkpoints") == ["4"]


# --- what does not fit ----------------------------------------------------------------------------


def test_another_architecture_lists_both_sets_of_keys(opened, tmp_path):
    save(opened(tmp_path), 2, extra=True)
    other = make_state(width=6)
    other.params["heads_1"] = {"kernel": jnp.zeros(3)}
    checkpoints = opened(tmp_path)
    with pytest.raises(InputError) as error:
        checkpoints.restore_state(2, like=other)
    text = str(error.value)
    assert str(tmp_path / "checkpoints" / "2") in text
    assert "missing params/heads_1/kernel" in text
    assert "surplus params/heads_0/surplus" in text
    assert "params/backbone/kernel ((3, 4), 'float32') instead of ((3, 6), 'float32')" in text
    assert "use the configuration that it was trained with" in text
    with pytest.raises(InputError, match="missing params/heads_1/kernel"):
        checkpoints.restore_variables(2, like=other.variables)


def test_another_dtype_is_not_cast(opened, tmp_path):
    save(opened(tmp_path), 2)
    other = make_state()
    other.params["heads_0"]["half"] = jnp.zeros(5, jnp.float32)
    with pytest.raises(InputError, match=r"half .*'bfloat16'.* instead of .*'float32'"):
        opened(tmp_path).restore_variables(2, like=other.variables)


def test_another_optimizer(opened, tmp_path):
    save(opened(tmp_path), 2)
    state = make_state()
    other = state.replace(opt_state=optax.sgd(0.1, momentum=0.9).init(state.params))
    with pytest.raises(InputError, match=r"training: another architecture .*missing opt_state"):
        opened(tmp_path).restore_state(2, like=other)


def test_a_long_list_of_keys_is_cut():
    from step_jax import checkpoint

    keys = {f"layer_{index:02}": ((1,), "float32") for index in range(20)}
    text = checkpoint._difference({}, keys)
    assert "layer_07 and 12 more" in text


def flip_bit(path, *, at=None):
    """Of a file or the largest in a folder: in its middle, or in the middle of the bytes `at`."""
    if path.is_dir():
        path = max((each for each in path.rglob("*") if each.is_file()), key=os.path.getsize)
    data = bytearray(path.read_bytes())
    data[data.index(at) + len(at) // 2 if at else len(data) // 2] ^= 1
    path.write_bytes(data)


def forget_an_array(path):
    metadata = json.loads(path.read_text())
    metadata["tree_metadata"].popitem()
    path.write_text(json.dumps(metadata))


def cut_in_half(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_another(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)


DAMAGES = {
    "metadata": (lambda at: (at / "model" / "_METADATA").write_text("{"), "JSONDecodeError"),
    "truncated": (lambda at: cut_in_half(at / "model"), "Error"),
    "emptied": (lambda at: cut_in_half(at / "training" / "d"), "Error"),
    "model missing": (lambda at: shutil.rmtree(at / "model"), "Error"),
    "description": (lambda at: (at / "description" / "metadata").write_text("{"), "JSONDecode"),
    "description missing": (lambda at: shutil.rmtree(at / "description"), "Error"),
    "bit of the model": (
        lambda at: flip_bit(at / "model" / "ocdbt.process_0" / "d"),
        r"1 of \d+ arrays are not what was written: model/params/backbone/kernel",
    ),
    "bit of the optimizer": (
        lambda at: flip_bit(at / "training" / "ocdbt.process_0" / "d"),
        r"1 of \d+ arrays are not what was written: training/opt_state/",
    ),
    "bit of a class's name": (
        lambda at: flip_bit(at / "description", at=b"walk"),
        "its description is not what was written",
    ),
    "bit of a checksum": (
        lambda at: flip_bit(at / "description", at=b"float32"),
        "its description is not what was written",
    ),
    "bit of an array's name": (
        lambda at: flip_bit(at / "model" / "_METADATA", at=b'"kernel"'),
        "NOT_FOUND",
    ),
    "an array less": (
        lambda at: forget_an_array(at / "model" / "_METADATA"),
        "model's list of arrays is not what was written",
    ),
    "another's files": (replace_by_another, "it holds step 1"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint(opened, tmp_path, how):
    """Asked for it is an error; training reports it, sets it aside and goes on from before it."""
    save(opened(tmp_path, keep=3), 1, 4, width=200)
    folder = tmp_path / "checkpoints"
    damage, reason = DAMAGES[how]
    damage(folder / "4")
    like = make_state(seed=9, width=200)
    message = rf"^checkpoint {folder / '4'} is damaged \(.*{reason}.*\); ask for another one \(tra"
    with pytest.raises(DamagedCheckpointError, match=message):
        opened(tmp_path, read_only=True).restore_state(4, like=like)
    assert (folder / "4").exists()

    checkpoints = opened(tmp_path, keep=3)
    assert_same(checkpoints.restore_latest(like=like), make_state(1, width=200))
    assert sorted(os.listdir(folder)) == ["1", "damaged"]
    assert os.listdir(folder / "damaged") == ["4"]
    assert opened(tmp_path, read_only=True).steps() == [1]
    save(checkpoints, 4, width=200)  # made again
    assert_same(checkpoints.restore_latest(like=like), make_state(4, width=200))


def test_it_is_said_what_is_damaged_and_where_it_is_now(opened, tmp_path, capsys):
    save(opened(tmp_path, keep=4), 1, 2, 3, 4)
    folder = tmp_path / "checkpoints"
    (folder / "damaged" / "4").mkdir(parents=True)  # of another time
    for step in (2, 4):
        cut_in_half(folder / str(step) / "model")
    shutil.rmtree(folder / "3" / "training")
    opened(tmp_path).restore_latest(like=make_state())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        f"checkpoint {folder / step} is damaged" for step in "432"
    ]
    assert [line.rpartition(": ")[2] for line in lines] == [
        f"moved to {folder / 'damaged' / name}" for name in ("4_2", "3", "2")
    ]
    assert (folder / "damaged" / "3" / "model" / "_METADATA").exists()


def test_where_all_are_damaged_they_are_left_as_they_are(opened, tmp_path):
    save(opened(tmp_path), 1, 2)
    folder = tmp_path / "checkpoints"
    for step in ("1", "2"):
        cut_in_half(folder / step / "training")
    with pytest.raises(InputError) as error:
        opened(tmp_path).restore_latest(like=make_state())
    text = str(error.value)
    assert text.startswith(f"{folder}: no checkpoint can be used, nothing was changed there: ")
    assert text.index(f"{folder / '2'} is damaged") < text.index(f"{folder / '1'} is damaged")
    assert "choose another --workdir to begin again" in text
    assert sorted(os.listdir(folder)) == ["1", "2"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "denied"), MemoryError(), ValueError("UNAVAILABLE: network")]
)
def test_what_may_pass_is_no_damage(opened, tmp_path, monkeypatch, error):
    def fails(*arguments, **options):
        raise error

    save(opened(tmp_path), 1, 2)
    checkpoints = opened(tmp_path)
    monkeypatch.setattr(checkpoints._manager, "restore", fails)
    with pytest.raises(InputError, match=r"checkpoints/2 cannot be read now \("):
        checkpoints.restore_latest(like=make_state())
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_another_architecture_is_no_damage(opened, tmp_path):
    save(opened(tmp_path), 1, 2)
    with pytest.raises(InputError, match="another architecture"):
        opened(tmp_path).restore_latest(like=make_state(width=6))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def test_a_checkpoint_of_before_there_were_checksums(opened, tmp_path):
    save(opened(tmp_path), 4)
    path = tmp_path / "checkpoints" / "4" / "description" / "metadata"
    described = json.loads(path.read_text())
    assert len(described.pop("checksums")["arrays"]) == len(jax.tree.leaves(make_state()))
    path.write_text(json.dumps(described))
    checkpoints = opened(tmp_path)
    assert checkpoints.describe(4) == {"version": 1, **DESCRIPTION}
    assert_same(checkpoints.restore_latest(like=make_state()), make_state(4))


def test_another_version(opened, tmp_path):
    save(opened(tmp_path), 4)
    path = tmp_path / "checkpoints" / "4" / "description" / "metadata"
    path.write_text(json.dumps({"version": 2, **DESCRIPTION}))
    with pytest.raises(InputError, match="checkpoints/4: format version 2, this code reads 1"):
        opened(tmp_path).describe(4)


# --- writing --------------------------------------------------------------------------------------


def test_a_step_is_saved_once(opened, tmp_path):
    checkpoints = opened(tmp_path)
    save(checkpoints, 3)
    with pytest.raises(InputError, match="checkpoints/3 could not be written: one of that or of a"):
        checkpoints.save(make_state(3), DESCRIPTION)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_saved(opened, tmp_path, bad):
    checkpoints = opened(tmp_path)
    save(checkpoints, 1)
    state = make_state(2)
    state.params["heads_0"]["half"] = state.params["heads_0"]["half"].at[1].set(bad)
    with pytest.raises(InputError, match="step 2: params/heads_0/half is not finite"):
        checkpoints.save(state, DESCRIPTION)
    assert checkpoints.steps() == [1]


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("how", ["file size", "no space"])
def test_a_full_disk(opened, tmp_path, monkeypatch, small_files_only, how):
    """Orbax writes from threads of its own: what they meet arrives as one error."""
    checkpoints = opened(tmp_path)
    save(checkpoints, 1)
    with contextlib.ExitStack() as full:
        if how == "no space":
            patch = full.enter_context(monkeypatch.context())
            patch.setattr("os.rename", no_space)
            patch.setattr("os.replace", no_space)
            patch.setattr(pathlib.Path, "mkdir", no_space)
        else:
            full.enter_context(small_files_only(1000))
        with pytest.raises(InputError) as error:
            save(checkpoints, 2, width=10_000)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'checkpoints'}: a checkpoint could not be written (")
    assert ("No space left" if how == "no space" else "File too large") in text
    assert "make room there and run the same command again" in text
    assert os.listdir(tmp_path / "checkpoints") == ["1"]
    assert_same(opened(tmp_path).restore_state(1, like=make_state()), make_state(1))


def test_an_old_one_is_never_half_deleted(opened, tmp_path, monkeypatch):
    """A reader meets it whole or not at all: it is renamed before it is emptied."""
    checkpoints = opened(tmp_path, keep=1)
    seen = []
    remove = shutil.rmtree

    def rmtree(path, **options):
        seen.append(pathlib.Path(path).relative_to(tmp_path / "checkpoints").parts[0])
        remove(path, **options)

    monkeypatch.setattr("step_jax.storage.shutil", types.SimpleNamespace(rmtree=rmtree))
    save(checkpoints, 1, 2)
    assert checkpoints.steps() == [2]
    assert set(seen) == {"deleted"}


def test_what_a_kill_left_of_a_deletion_is_removed(opened, tmp_path):
    save(opened(tmp_path), 2)
    (tmp_path / "checkpoints" / "deleted" / "1" / "model").mkdir(parents=True)
    assert opened(tmp_path).steps() == [2]
    assert os.listdir(tmp_path / "checkpoints") == ["2"]


def test_a_relative_folder_will_do(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    checkpoints = opened("run")
    save(checkpoints, 1)
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()
    assert opened("run", read_only=True).steps() == [1]
