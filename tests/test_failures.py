"""Failed steps: saved once they happen, read back as they were, and made again."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import failures
from step_jax.errors import InputError
from step_jax.failures import FailureRecorder
from step_jax.replay import replay
from step_jax.train_state import TrainState
from step_jax.training_log import NonFiniteLossError

KEY = jax.random.key(3)
ERROR = NonFiniteLossError("step 5: the loss is nan; lower the rate", step=5)


def make_state(step=4):
    params = {
        "backbone": {"kernel": jnp.arange(6.0)},
        "heads_0": {"bias": jnp.ones(2, jnp.bfloat16)},
    }
    return TrainState(jnp.int32(step), params, {"statistics": {"mean": jnp.zeros(3)}}, opt_state=())


def make_batch(value=1.0):
    return {
        "clips": np.full((4, 2, 3), 7, np.uint8),
        "boxes": np.array([value, 2, 3, 4], np.float32),
        "video": np.array(["a", "b", "b", "a"], object),
    }


def save(workdir, *, batch=None, state=None):
    return failures.save(
        workdir,
        step=5,
        state=state or make_state(),
        batch=batch or make_batch(),
        key=KEY,
        classes=24,
        reason="the loss is nan",
    )


# --- on disk --------------------------------------------------------------------------------------


def test_comes_back_as_it_was(tmp_path):
    path = save(tmp_path)
    assert path == tmp_path / "failures" / "step_00000005.npz"
    assert os.listdir(path.parent) == [path.name]
    failure = failures.load(path)
    assert (failure.step, failure.classes, failure.reason) == (5, 24, "the loss is nan")
    expected = make_state()
    assert failure.state.keys() == {
        "step", "params/backbone/kernel", "params/heads_0/bias", "statistics/mean"
    }  # fmt: skip
    for path, leaf in (
        ("params/backbone/kernel", expected.params["backbone"]["kernel"]),
        ("params/heads_0/bias", expected.params["heads_0"]["bias"]),
    ):
        assert failure.state[path].dtype == leaf.dtype
        np.testing.assert_array_equal(failure.state[path], leaf)
    for name, value in make_batch().items():
        np.testing.assert_array_equal(failure.batch[name], value)
    np.testing.assert_array_equal(failure.key, jax.random.key_data(KEY))


def test_of_several_processes(tmp_path, monkeypatch):
    """Each saves its share of the batch, the first one the state."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    first = save(tmp_path, batch=make_batch(1.0))
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    second = save(tmp_path, batch=make_batch(9.0))
    assert second.name == "step_00000005_p1.npz"
    batch = failures.load(first).batch
    np.testing.assert_array_equal(batch["boxes"], [1, 2, 3, 4, 9, 2, 3, 4])
    assert batch["clips"].shape == (8, 2, 3)
    with pytest.raises(InputError, match=r"_p1\.npz: holds no state; give the first process's"):
        failures.load(second)
    second.unlink()
    with pytest.raises(InputError, match=r"_p1\.npz: cannot be read \(No such file"):
        failures.load(first)


def spoiled(path, **changes):
    """The file with other arrays; None leaves one out."""
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[data.index(bytes(7 for _ in range(24))) + 5] ^= 1
    path.write_bytes(data)


def other_version(path):
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
    spoiled(path, about=np.array(json.dumps(about | {"version": 2})))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "cannot be read .No such file"),
        (lambda path: path.write_text("text"), "not a failed step"),
        (truncated, "not a failed step"),
        (flipped, "not a failed step .Bad CRC-32"),
        (lambda path: spoiled(path, about=None), "not a failed step .'about'"),
        (lambda path: spoiled(path, about=np.array("{")), "not a failed step"),
        (lambda path: spoiled(path, more=np.zeros(2)), "not a failed step .'more'"),
        (lambda path: spoiled(path, key=np.array([None])), "not a failed step .Object arrays"),
        (other_version, "format version 2, this code reads 1"),
    ],
)
def test_what_is_no_such_file(tmp_path, spoil, message):
    path = save(tmp_path)
    spoil(path)
    with pytest.raises(InputError, match=message) as error:
        failures.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


# --- when it happens ------------------------------------------------------------------------------


def fail_at(recorder, *, step, started):
    """The loss of a step turns out not to be finite when `started` steps have been started."""
    with recorder:
        for each in range(1, started + 1):
            recorder.remember(each, make_batch(each), make_state(min(each, step - 1)))
        raise NonFiniteLossError(f"step {step}: the loss is nan; lower the rate", step=step)


@pytest.mark.parametrize("started", [5, 6])
def test_the_batch_of_the_step_that_failed_is_saved(tmp_path, started):
    with pytest.raises(NonFiniteLossError) as error:
        fail_at(FailureRecorder(tmp_path, key=KEY, classes=24), step=5, started=started)
    path = tmp_path / "failures" / "step_00000005.npz"
    assert str(error.value).startswith(
        f"step 5: the loss is nan; lower the rate. Its batch is in {path} (0.0 MB"
    )
    assert str(error.value).endswith(f"train.py --workdir={tmp_path} --replay={path} tells more")
    assert error.value.step == 5
    failure = failures.load(path)
    assert failure.batch["boxes"][0] == 5
    assert failure.reason == "step 5: the loss is nan"


def test_only_two_batches_are_held(tmp_path):
    recorder = FailureRecorder(tmp_path, key=KEY, classes=24)
    with pytest.raises(NonFiniteLossError, match=r"^step 5: the loss is nan; lower the rate$"):
        fail_at(recorder, step=5, started=7)


def test_other_errors_pass(tmp_path):
    with pytest.raises(ZeroDivisionError), FailureRecorder(tmp_path, key=KEY, classes=24):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_full_disk_does_not_hide_why_training_ended(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(NonFiniteLossError) as error:
        fail_at(FailureRecorder(tmp_path, key=KEY, classes=24), step=5, started=5)
    text = str(error.value)
    assert text.startswith("step 5: the loss is nan; lower the rate. Its batch is not saved: ")
    assert "No space left on device" in text
    assert os.listdir(tmp_path / "failures") == []


# --- again ----------------------------------------------------------------------------------------


def gradient_of(state, batch, key):
    """Not finite where a box is 0, and then in the loss and in the backbone alone."""
    del key
    kernel, boxes = state.params["backbone"]["kernel"], batch["boxes"]

    def loss(kernel):
        return (jnp.log(boxes) * kernel.sum()).sum()

    value, gradient = jax.value_and_grad(loss)(kernel)
    gradients = {"backbone": {"kernel": gradient}, "heads_0": {"bias": jnp.zeros(2)}}
    metrics = {"loss": (value, 1.0), "classification_2": (value, 4.0), "positives_1": (1.0, 4.0)}
    return gradients, metrics


def replay_of(tmp_path, value, **changes):
    path = save(tmp_path, batch=make_batch(value), **changes)
    shapes = jax.eval_shape(lambda: make_state().variables)
    return replay(failures.load(path), variables=shapes, gradient_of=gradient_of)


def test_a_failure_is_found_again(tmp_path):
    found = replay_of(tmp_path, 0.0)
    assert found.is_reproduced
    *lines, first = found.lines()
    assert lines == [
        "losses that are not finite: classification_2 -inf, loss -inf",
        "gradients that are not finite: backbone, 1 of 1",
        "videos: a, b",
    ]
    assert first.startswith("first: inf from log at ")


def test_nothing_is_wrong_this_time(tmp_path):
    found = replay_of(tmp_path, 1.0)
    assert not found.is_reproduced
    assert found.lines() == []


def test_a_step_of_another_model(tmp_path):
    state = make_state()
    state.params["heads_0"]["bias"] = jnp.zeros(2)
    with pytest.raises(InputError, match=r"of another model .*\(shapes alone different\)"):
        replay_of(tmp_path, 1.0, state=state)
    state.params["heads_1"] = {"bias": jnp.zeros(2)}
    with pytest.raises(InputError, match=r"of another model .*\(params/heads_1/bias different\)"):
        replay_of(tmp_path, 1.0, state=state)


def test_a_batch_that_does_not_divide(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(InputError, match="batch size 4 does not divide over 3 devices"):
        replay_of(tmp_path, 1.0)
