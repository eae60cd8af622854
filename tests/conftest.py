"""What every test file shares: four virtual CPU devices, where the test data lies, a tiny run."""

import contextlib
import os
import resource
import signal
import types
from pathlib import Path

# Read once, when TensorFlow is imported, which some test may do before a program says how quiet it
# should be; JAX would set it, too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import object_store
import pytest
import tiny_run

# A shell that starts a program in the background makes it ignore Ctrl-C, and its children with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_num_cpu_devices", 4)  # has an effect only before the first array is made


@pytest.fixture(scope="session")
def data_dir():
    """The folder of the small reference files, `tests/data`."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """The tiny data set, prepared: `.annotations`, a file, and `.records`, a folder."""
    folder = tmp_path_factory.mktemp("squares")
    annotations = tiny_run.write_dataset(folder)
    tiny_run.prepare_records(annotations, folder / "records")
    return types.SimpleNamespace(annotations=annotations, records=folder / "records")


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory):
    """Where all processes of the tests keep compiled programs."""
    return tmp_path_factory.mktemp("compilation_cache")


@pytest.fixture(scope="session")
def finished_run(squares, compilation_cache, tmp_path_factory):
    """The folder of a run of `tiny_run.STEPS` steps that nothing interrupted, on one device."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    process = tiny_run.start(
        "train.py", *tiny_run.flags(squares, workdir=workdir), cache=compilation_cache
    )
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"trained {tiny_run.STEPS} steps" in output
    return workdir


@pytest.fixture
def run_program(monkeypatch, capfd):
    """`run_program("train", *arguments)`, in this process: (status, output, lines of errors)."""

    def run(name, *arguments):
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            tiny_run.run(name)
        printed = capfd.readouterr()
        return exit_.value.code, printed.out, printed.err.splitlines()

    return run


@pytest.fixture
def small_files_only():
    """`with small_files_only(size):` as on a full disk: every write beyond so many bytes fails."""

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def bucket():
    """The URL of an empty bucket, of a store in memory; `object_store.ObjectStore` is its class."""
    with object_store.installed():
        yield f"gs://{object_store.BUCKET}"


@pytest.fixture
def one_device(monkeypatch):
    """As if there were no other, for the time of a test."""
    first = jax.devices()[:1]
    for name in ("device_count", "local_device_count"):
        monkeypatch.setattr(jax, name, lambda: 1)
    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, lambda: first)
