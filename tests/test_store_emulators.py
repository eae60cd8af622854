"""A run in an object store, by the stores' own protocols: stopped, killed, continued, evaluated.

The emulators come with `make test-stores`.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import fsspec
import pods
import pytest
import tiny_run

from step_jax.training_log import read_log

BUCKET = "step-jax-test"
START_SECONDS = 60
# The client's and the emulator's package, and the emulator's command.
STORES = {
    "gs": ("gcsfs", "gcp_storage_emulator", "start", "--in-memory", f"--default-bucket={BUCKET}"),
    "s3": ("s3fs", "moto.server"),
}


def environment(scheme, port):
    """Where the clients find the emulators, and what they take for credentials."""
    url = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        found = {"STORAGE_EMULATOR_HOST": url, "FSSPEC_GCS_TOKEN": "anon"}
        return found | {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # asks Google about buckets
    found = {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}
    return found | {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


@pytest.fixture(params=STORES)
def store(request, monkeypatch):
    """An emulator's scheme; it serves an empty BUCKET."""
    client, server, *arguments = STORES[request.param]
    for package in (client, server.partition(".")[0]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make test-stores)")
    port = pods.free_port()
    for name, value in environment(request.param, port).items():
        monkeypatch.setenv(name, value)
    address = ["--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", server, *arguments, *address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        # Of this port, and without what the package found in the environment before.
        monkeypatch.setattr(fsspec.config, "conf", {})
        fsspec.config.set_conf_env(fsspec.config.conf)
        files = fsspec.filesystem(request.param, skip_instance_cache=True)
        if not files.exists(BUCKET):
            files.mkdir(BUCKET)
        yield request.param, files
    finally:
        process.terminate()
        process.wait()


def wait_for(port):
    for _ in range(START_SECONDS * 10):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no emulator at port {port}")


def signalled(process, number, *, at):
    """Sends a signal once a line of the output begins so; the exit status."""
    for line in process.stdout:
        if line.startswith(at):
            process.send_signal(number)
            break
    process.communicate()
    return process.returncode


def results(workdir):
    folder = workdir / "eval" / "test" / str(tiny_run.STEPS)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("seconds")
    return (folder / "detections.parquet").read_bytes(), metrics


def download(files, url, folder):
    root = url.partition("://")[2]
    for name in files.find(url):
        target = folder / name.removeprefix(f"{root}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, os.fspath(target))


@pytest.mark.slow
def test_a_run_is_that_of_a_disk(store, squares, finished_run, compilation_cache, tmp_path):
    scheme, files = store
    url = f"{scheme}://{BUCKET}/runs/one"

    def start(program, *flags):
        return tiny_run.start(program, *flags, cache=compilation_cache)

    training = tiny_run.flags(squares, workdir=url)
    assert signalled(start("train.py", *training), signal.SIGTERM, at="step 4/") == 0
    assert signalled(start("train.py", *training), signal.SIGKILL, at="step 8/") == -signal.SIGKILL
    process = start("train.py", *training)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "continuing from checkpoint" in output
    for number in (2, 1):
        process = start("evaluate.py", f"--workdir={url}", f"--shard={number}/2")
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    shutil.copytree(finished_run, tmp_path / "disk")
    process = start("evaluate.py", f"--workdir={tmp_path / 'disk'}")
    _, errors = process.communicate()
    assert process.returncode == 0, errors

    download(files, url, tmp_path / "store")
    tiny_run.assert_same_checkpoint(finished_run, tmp_path / "store", tiny_run.STEPS)
    assert [line["step"] for line in read_log(tmp_path / "store")] == list(
        range(1, tiny_run.STEPS + 1)
    )
    assert results(tmp_path / "store") == results(tmp_path / "disk")


@pytest.mark.slow
def test_a_bucket_that_is_missing_is_one_line(store, squares, compilation_cache):
    scheme, files = store
    flags = tiny_run.flags(squares, workdir=f"{scheme}://another-bucket/run")
    process = tiny_run.start("train.py", *flags, cache=compilation_cache)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.splitlines()[-1].endswith("/run: there is no bucket 'another-bucket'")
    assert "Traceback" not in errors
    assert not files.exists("another-bucket")
