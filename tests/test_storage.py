"""What runs do with files, on a disk and in an object store."""

import argparse
import os
import pathlib

import object_store
import pytest
from object_store import ObjectStore, contents, fails, names

from step_jax import storage
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json, write_text
from step_jax.replacing import replacing
from step_jax.storage import GrowingFolder


@pytest.fixture(params=["disk", "gs", "s3"])
def folder(request, tmp_path, monkeypatch):
    """A folder's path or URL; temporary files must not stay anywhere."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    if request.param == "disk":
        (tmp_path / "run").mkdir()
        yield tmp_path / "run"
    else:
        with object_store.installed():
            yield storage.as_path(f"{request.param}://{object_store.BUCKET}/run")
    assert not os.listdir(tmp_path / "temporary")


# --- what folders there are -----------------------------------------------------------------------


def test_a_folder_that_is_not_there_yet_may_be_named(bucket, tmp_path):
    for path in (f"{bucket}/new/run", bucket, "s3://bucket/run", str(tmp_path / "new")):
        assert str(storage.open_folder(path, flag="--workdir")) == path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ftp://bucket/run", r"^--workdir ftp://bucket/run: expected a folder, or .* gs:// or s3"),
        ("gs://other/run", r"^--workdir gs://other/run: there is no bucket 'other'$"),
        ("s3://", r"^--workdir s3:.*: names no bucket$"),
    ],
)
def test_a_folder_that_cannot_be_is_told_at_once(bucket, path, expected):
    with pytest.raises(InputError, match=expected):
        storage.open_folder(path, flag="--workdir")


def test_a_package_that_is_missing_is_named(bucket, monkeypatch):
    monkeypatch.setattr(storage, "_PACKAGES", {"gs": ("no_such_package", ("gs",))})
    with pytest.raises(InputError, match=r"--workdir gs://.* `pip install no_such_package`"):
        storage.open_folder(f"{bucket}/run", flag="--workdir")


def test_no_right_to_look_is_one_line(bucket, monkeypatch):
    def info(self, path, **options):
        raise object_store.HttpError("Forbidden\nby policy")

    monkeypatch.setattr(ObjectStore, "info", info)
    with pytest.raises(InputError, match=r"^--workdir gs://bucket/run: Forbidden by policy$"):
        storage.open_folder(f"{bucket}/run", flag="--workdir")


def test_where_only_a_disk_will_do():
    storage.check_local("/data/records", what="data.records")
    with pytest.raises(InputError, match=r"data.records gs://b/r: is read from a disk; copy it"):
        storage.check_local("gs://b/r", what="data.records")


def test_an_argument_that_is_a_path_on_a_disk():
    assert storage.local_path("runs/a") == pathlib.Path("runs/a")
    with pytest.raises(argparse.ArgumentTypeError, match="gs://b/r: expected a path on a disk"):
        storage.local_path("gs://b/r")


def test_a_stores_error_ends_a_command_with_one_line(capsys):
    def main():
        raise object_store.HttpError("Forbidden\nby policy")

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == ("error: object store: Forbidden by policy (docs/pods.md)\n")


# --- files ----------------------------------------------------------------------------------------


def test_what_is_written_is_read(folder):
    write_text(folder / "a" / "note.txt", "first ø\n")
    write_text(str(folder / "a" / "note.txt"), "second ø\n")
    write_json(folder / "b.json", [1, 2])
    assert storage.read_text(folder / "a" / "note.txt") == "second ø\n"
    assert (folder / "a" / "note.txt").read_text() == "second ø\n"
    with storage.local_copy(folder / "b.json") as local:
        assert isinstance(local, pathlib.Path)
        assert local.suffix == ".json"
        assert local.read_text() == "[\n 1,\n 2\n]\n"
    assert storage.size(folder / "b.json") == 11
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b.json"]
    with pytest.raises(FileNotFoundError):
        storage.read_text(folder / "none.txt")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(folder, error):
    path = folder / "table.json"
    write_text(path, "old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert storage.read_text(path) == "old"


def test_an_upload_that_fails_is_one_line_and_leaves_the_old_file(bucket):
    write_text(f"{bucket}/note.txt", "old")
    ObjectStore.act = fails("put")
    expected = r"^gs://bucket/note.txt: cannot be written \(Forbidden by policy\); make room there"
    with pytest.raises(InputError, match=expected):
        write_text(f"{bucket}/note.txt", "new")
    assert contents(f"{bucket}/note.txt") == b"old"
    with pytest.raises(InputError, match=r"gs://other/a.txt: cannot be written \(no such bucket\)"):
        write_text("gs://other/a.txt", "")


def test_a_file_is_published_from_a_folder_beside_it(folder):
    with storage.folder_beside(folder / "x", prefix="merging-", suffix="-of-2") as local:
        assert local.name.startswith("merging-")
        assert local.name.endswith("-of-2")
        (local / "x").write_text("done")
        storage.publish(local / "x", folder / "x")
    assert storage.read_text(folder / "x") == "done"
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_folders_are_moved_and_removed(folder):
    for name in ("1/a", "1/b/c", "12/a"):
        write_text(folder / name, name)
    storage.make_folder(folder / "damaged")
    storage.move_folder(folder / "1", folder / "damaged" / "1")
    assert storage.read_text(folder / "damaged" / "1" / "b" / "c") == "1/b/c"
    assert not (folder / "1").exists()
    assert storage.read_text(folder / "12" / "a") == "12/a"
    storage.remove_tree(folder / "damaged")
    storage.remove_tree(folder / "damaged")
    assert not (folder / "damaged").exists()


def test_a_stamp_tells_versions_apart(folder):
    assert storage.stamp(folder / "x") is None
    write_text(folder / "x", "same")
    first = storage.stamp(folder / "x")
    assert storage.stamp(folder / "x") == first
    write_text(folder / "x", "same")
    assert storage.stamp(folder / "x") != first


# --- files that grow ------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(storage.time, "monotonic", lambda: now[0])
    return now


def test_on_a_disk_files_grow_in_place(tmp_path):
    files = GrowingFolder(tmp_path / "run")
    (files.path / "log").write_text("line")
    assert (tmp_path / "run" / "log").read_text() == "line"
    files.grown()
    files.close()


def test_a_grown_file_is_uploaded_now_and_then(bucket, clock):
    files = GrowingFolder(f"{bucket}/run")
    log = files.path / "log"
    log.write_text("1")
    files.grown()
    assert names(bucket) == []
    clock[0] += storage.UPLOAD_SECONDS
    files.grown()
    assert contents(f"{bucket}/run/log") == b"1"
    log.write_text("12")
    files.grown()
    assert contents(f"{bucket}/run/log") == b"1"
    files.put()
    assert contents(f"{bucket}/run/log") == b"12"
    (files.path / "deep").mkdir()
    (files.path / "deep" / "trace").write_text("3")
    files.close()
    assert names(f"{bucket}/run") == ["deep/trace", "log"]
    assert not files.path.exists()


def test_only_what_changed_is_uploaded_and_slow_uploads_are_rare(bucket, clock):
    files, uploaded = GrowingFolder(f"{bucket}/run"), []

    def slow(kind, path):
        uploaded.append((clock[0], path.rpartition("/")[2]))
        clock[0] += 2

    ObjectStore.act = staticmethod(slow)
    (files.path / "a").write_text("1")
    (files.path / "b").write_text("1")
    files.put()
    assert [name for _, name in uploaded] == ["a", "b"]  # 4 seconds: the next is 200 later
    (files.path / "b").write_text("12")
    uploaded.clear()
    for _ in range(300):
        clock[0] += 1
        files.grown()
    assert uploaded == [(1000 + 4 + 200, "b")]
    ObjectStore.act = staticmethod(lambda kind, path: None)
    files.close()


def test_an_upload_that_fails_is_told_and_tried_again(bucket, clock, capsys):
    files = GrowingFolder(f"{bucket}/run")
    (files.path / "log").write_text("1")
    ObjectStore.act = fails("put")
    clock[0] += storage.UPLOAD_SECONDS
    files.grown()
    files.grown()
    told = capsys.readouterr().err
    assert told == "gs://bucket/run: not uploaded, but kept (Forbidden by policy)\n"
    with pytest.raises(OSError, match="Forbidden by policy"):
        files.put()
    ObjectStore.act = staticmethod(lambda kind, path: None)
    clock[0] += storage.UPLOAD_SECONDS
    files.grown()
    assert contents(f"{bucket}/run/log") == b"1"
    files.close()
