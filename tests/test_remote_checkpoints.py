"""Checkpoints in an object store: exact, complete or absent, whatever is killed or fails."""

import contextlib
import json

import object_store
import pytest
from object_store import KilledError, ObjectStore, dies_at, fails, names
from test_checkpoint import DESCRIPTION, assert_same, make_state, opened, save  # noqa: F401

from step_jax import evaluations
from step_jax.checkpoint import DamagedCheckpointError
from step_jax.errors import InputError
from step_jax.remote_checkpoints import COMPLETE


@pytest.fixture
def run(bucket, tmp_path, monkeypatch):
    """The URL of a run's folder; what is temporary lies in tmp_path."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return f"{bucket}/run"


def folders(run):
    """Of checkpoints, complete or not."""
    return sorted({name.partition("/")[0] for name in names(f"{run}/checkpoints")})


def score(run, step, value):
    folder = evaluations.folder(run, split="test", step=step)
    evaluations.write_metrics(folder, {"score": value})


def spoil(run, step):
    """The description's bytes change."""
    (name,) = (path for path in ObjectStore.store if path.endswith(f"{step}/description/metadata"))
    text = ObjectStore.store[name].getvalue().replace(b"walk", b"wolk")
    ObjectStore.store.pop(name)
    ObjectStore().pipe_file(name, text)


def test_a_fresh_process_gets_back_what_was_saved(opened, run):  # noqa: F811
    save(opened(run), 7)
    checkpoints = opened(run, read_only=True)
    assert checkpoints.steps() == [7]
    assert_same(checkpoints.restore_state(7, like=make_state(0, seed=9)), make_state(7))
    assert checkpoints.describe(7) == {"version": 1, **DESCRIPTION}
    assert_same(opened(run).restore_latest(like=make_state()), make_state(7))


def test_a_folder_without_any(opened, run):  # noqa: F811
    with pytest.raises(InputError, match=r"gs://bucket/run/checkpoints: no checkpoints there"):
        opened(run, read_only=True)
    assert opened(run).latest_step() is None


def test_the_last_and_the_best_are_kept_and_the_disk_holds_one(opened, run, tmp_path):  # noqa: F811
    checkpoints = opened(run, keep=2)
    save(checkpoints, 1, 2)
    score(run, 1, 9.0)
    score(run, 2, 8.0)
    save(checkpoints, 3, 4, 5)
    assert checkpoints.steps() == [1, 4, 5]
    assert folders(run) == ["1", "4", "5"]
    assert checkpoints.find("best") == 1
    for step in (1, 5):
        checkpoints.describe(step)
        assert [path.name for path in tmp_path.glob("*/[0-9]*")] == [str(step)]


def test_of_a_step_there_is_one(opened, run):  # noqa: F811
    checkpoints = opened(run)
    save(checkpoints, 3)
    for step in (2, 3):
        with pytest.raises(InputError, match=rf"checkpoints/{step} could not be written: one of"):
            save(checkpoints, step)


def test_what_was_fetched_is_read_once(opened, run):  # noqa: F811
    save(opened(run), 1)
    checkpoints, fetched = opened(run), []
    ObjectStore.act = staticmethod(lambda kind, path: fetched.append(path))
    checkpoints.restore_state(1, like=make_state())
    assert len([path for path in fetched if not path.endswith(COMPLETE)]) == len(names(run)) - 1


# --- killed ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def killed(act):
    """Dies before a change if `act` does."""
    ObjectStore.act = act
    try:
        with contextlib.suppress(KilledError):
            yield
    finally:
        ObjectStore.act = staticmethod(lambda kind, path: None)


def moments(begin, work):
    """For `dies_at`: the first and last changes that `work` makes, and those where it turns."""
    changes, checkpoints = [], begin()
    ObjectStore.act = staticmethod(lambda kind, path: changes.append(kind) if kind != "get" else 0)
    work(checkpoints)
    ObjectStore.act = staticmethod(lambda kind, path: None)
    turns = [n for n in range(1, len(changes)) if changes[n] != changes[n - 1]]
    around = {n + more for n in turns for more in (0, 1, 2)}
    return sorted({1, len(changes) // 4, len(changes)} | around)


def test_killed_at_any_change(opened, run):  # noqa: F811
    """The one before is there until the new one is, and the rest of the new one is removed."""

    def begin():
        ObjectStore.store.clear()
        checkpoints = opened(run, keep=1)
        save(checkpoints, 1)
        return checkpoints

    found = set()
    for count in moments(begin, lambda checkpoints: save(checkpoints, 2)):
        checkpoints = begin()
        with killed(dies_at(count)):
            save(checkpoints, 2)
        after = opened(run, keep=1)
        latest = after.latest_step()
        assert folders(run) == [str(step) for step in after.steps()], count
        assert_same(after.restore_latest(like=make_state()), make_state(latest))
        if latest == 1:
            save(after, 2)
        assert_same(opened(run).restore_latest(like=make_state()), make_state(2))
        found.add(latest)
    assert found == {1, 2}


def test_killed_while_it_is_set_aside(opened, run):  # noqa: F811
    def begin():
        ObjectStore.store.clear()
        save(opened(run), 1, 2)
        spoil(run, 2)
        return opened(run)

    def restore(checkpoints):
        return checkpoints.restore_latest(like=make_state())

    for count in moments(begin, restore):
        checkpoints = begin()
        with killed(dies_at(count)):
            restore(checkpoints)
        assert_same(opened(run).restore_latest(like=make_state()), make_state(1))


# --- damaged, deleted, not to be reached ----------------------------------------------------------


def test_a_damaged_one_is_set_aside(opened, run, capsys):  # noqa: F811
    save(opened(run), 1, 2)
    before = names(f"{run}/checkpoints/2")
    spoil(run, 2)
    checkpoints = opened(run)
    assert_same(checkpoints.restore_latest(like=make_state()), make_state(1))
    told = capsys.readouterr().out
    assert "checkpoint gs://bucket/run/checkpoints/2 is damaged (its description is not" in told
    assert told.endswith(": moved to gs://bucket/run/checkpoints/damaged/2\n")
    assert names(f"{run}/checkpoints/damaged/2") == [name for name in before if name != COMPLETE]
    assert checkpoints.steps() == [1]
    save(checkpoints, 2)
    assert_same(opened(run).restore_latest(like=make_state()), make_state(2))


def test_a_missing_object_is_damage(opened, run):  # noqa: F811
    save(opened(run), 1)
    told = json.loads(object_store.contents(f"{run}/checkpoints/1/{COMPLETE}"))
    lost = next(name for name in told["files"] if "/d/" in name)
    ObjectStore.store.pop(f"/bucket/run/checkpoints/1/{lost}")
    checkpoints = opened(run, read_only=True)
    with pytest.raises(DamagedCheckpointError, match="FileNotFoundError"):
        checkpoints.restore_state(1, like=make_state())


def test_no_connection_is_no_damage(opened, run):  # noqa: F811
    save(opened(run), 1)
    checkpoints = opened(run)
    ObjectStore.act = fails("get")
    with pytest.raises(InputError, match=r"cannot be read now \(.*Forbidden by policy") as error:
        checkpoints.restore_latest(like=make_state())
    assert not isinstance(error.value, DamagedCheckpointError)
    assert folders(run) == ["1"]


def test_an_upload_that_fails_is_one_line(opened, run):  # noqa: F811
    checkpoints = opened(run)
    save(checkpoints, 1)
    ObjectStore.act = fails("put")
    expected = r"^gs://.*: a checkpoint could not be written \(Forbidden by policy\); make room"
    with pytest.raises(InputError, match=expected):
        save(checkpoints, 2)
    ObjectStore.act = staticmethod(lambda kind, path: None)
    assert_same(opened(run).restore_latest(like=make_state()), make_state(1))


def test_one_that_is_removed_meanwhile_is_gone_and_not_damaged(opened, run):  # noqa: F811
    """As `step_jax.watching` tells these apart."""
    writer, reader = opened(run, keep=1), None
    save(writer, 1)
    reader = opened(run, read_only=True)
    first = reader.written(1)
    assert first == reader.written(1)

    def removed_meanwhile(kind, path):
        if kind == "get" and not path.endswith(COMPLETE):
            ObjectStore.act = staticmethod(lambda kind, path: None)
            save(writer, 2)

    ObjectStore.act = staticmethod(removed_meanwhile)
    with pytest.raises(DamagedCheckpointError):
        reader.restore_state(1, like=make_state())
    assert reader.written(1) is None
    assert reader.steps() == [2]


def test_one_that_is_written_again_is_fetched_again(opened, run):  # noqa: F811
    save(opened(run), 1, 2)
    reader = opened(run, read_only=True)
    assert_same(reader.restore_state(2, like=make_state()), make_state(2))
    first = reader.written(2)
    spoil(run, 2)
    writer = opened(run)
    writer.restore_latest(like=make_state())
    save(writer, 2, seed=5)
    assert reader.written(2) != first
    assert_same(reader.restore_state(2, like=make_state()), make_state(2, seed=5))
