"""How commands end: status, one line, no traceback."""

import errno
import logging
import os
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from step_jax.cli import run_command, run_with_flags
from step_jax.errors import InputError


def run(main, capsys, *, runner=run_command):
    """(status, lines on standard output, lines on standard error)."""
    with pytest.raises(SystemExit) as exit_:
        runner(main)
    printed = capsys.readouterr()
    return exit_.value.code, printed.out.splitlines(), printed.err.splitlines()


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (130, 130)])
def test_status(capsys, returned, status):
    assert run(lambda: returned, capsys) == (status, [], [])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.json: key 'x' is 3;\n  expected a text"),
         "error: a.json: key 'x' is 3; expected a text"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "b.json"),
         "error: b.json: No such file or directory"),
        (OSError("the disk broke"), "error: the disk broke"),
        (OSError(), "error: OSError"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(capsys, error, line):
    assert run(raising(error), capsys) == (1, [], [line])


def test_ctrl_c(capsys):
    assert run(raising(KeyboardInterrupt), capsys) == (130, [], ["interrupted"])


def test_mistakes_of_ours_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_chatter_of_libraries_is_off(capsys):
    def main():
        logging.getLogger("absl").error("Traceback: what is raised as well")
        print("result")

    assert run(main, capsys) == (0, ["result"], [])


# --- flags ----------------------------------------------------------------------------------------


@pytest.fixture
def command_line(monkeypatch, capsys, tmp_path):
    """`command_line(*arguments)` runs a command with a configuration; `run`'s result."""
    path = tmp_path / "sample.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'train': {'steps': 10, 'rate': 0.5}})\n"
    )
    config_flags.DEFINE_config_file("sample", lock_config=True)
    flags.DEFINE_string("sample_folder", None, "A folder.")

    def main():
        print(flags.FLAGS.sample.train.steps, flags.FLAGS.sample_folder)

    def run_line(*arguments):
        monkeypatch.setattr(sys, "argv", ["command", f"--sample={path}", *arguments])
        return run(main, capsys, runner=run_with_flags)

    yield run_line
    for name in [name for name in flags.FLAGS if name.startswith("sample")]:
        delattr(flags.FLAGS, name)


def test_flags(command_line):
    line = ["--sample.train.steps=12", "--sample_folder", "x"]
    assert command_line(*line) == (0, ["12 x"], [])


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--sample.train.stepz=3", ["--sample.train.stepz: no such key", '"steps"']),
        ("--sample.trian.steps=3", ["--sample.trian.steps: no such key", '"train"']),
        ("--sample.train.steps=many", ["--sample.train.steps=many", "invalid literal"]),
        ("--sample.train.rate=fast", ["--sample.train.rate=fast", "could not convert"]),
        ("--sample_foldr=x", ["sample_foldr", "Did you mean: sample_folder"]),
        ("sample_folder=x", ["'sample_folder=x': unexpected argument; flags start with --"]),
    ],
)
def test_wrong_flags(command_line, argument, parts):
    status, output, errors = command_line(argument)
    assert (status, output) == (1, [])
    (line,) = errors
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def test_what_a_configuration_file_raises(command_line, tmp_path):
    text = "def get_config():\n    raise ValueError('sample.py:x: there is no such variant')\n"
    (tmp_path / "sample.py").write_text(text)
    line = "error: command line: sample.py:x: there is no such variant (--help lists flags)"
    assert command_line() == (1, [], [line])


def test_output_is_flushed_before_the_end(tmp_path):
    """What was printed must not be lost to a kill right after."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1 << 16)
        try:
            run_command(lambda: print("done"))
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        assert file.read() == "done\n"
