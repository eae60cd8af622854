import os
import signal
import subprocess
import sys
import time

import pytest

from step_jax.errors import InputError
from step_jax.flow import __main__ as command

PATHS = ["--input", "in", "--output", "out"]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "step_jax.flow", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def choose(*arguments):
    return command.choose(command.parse_arguments([*arguments, *PATHS]))


def test_parameters_of_brox():
    options, workers = choose("--method", "brox", "--alpha", "0.5", "--batch", "3")
    assert options.parameters == {"alpha": 0.5}
    assert (options.batch, workers) == (3, 1)


def test_opencv_uses_all_cores():
    assert choose("--method", "dis")[1] == len(os.sched_getaffinity(0))
    options, workers = choose("--method", "dis", "--workers", "3", "--preset", "fast", "--png")
    assert workers == 3
    assert options.parameters == {"preset": "fast"}
    assert options.image_format.png


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dis", "--alpha", "1"), "--alpha: means nothing for --method dis"),
        (("dis", "--batch", "2"), "--batch: means nothing"),
        (("brox", "--workers", "2"), "--workers: means nothing for --method brox"),
        (("tvl1", "--preset", "fast"), "--preset: means nothing"),
        (("dis", "--workers", "0"), "--workers 0: expected at least 1"),
        (("dis", "--short_side", "-1"), "--short_side -1"),
        (("dis", "--jpeg_quality", "101"), "--jpeg_quality 101"),
    ],
)
def test_flags_that_mean_nothing(arguments, message):
    with pytest.raises(InputError, match=message):
        choose("--method", *arguments)


def test_the_whole_program(tmp_path, frame_folder):
    frame_folder(tmp_path / "in" / "good", 3)
    frame_folder(tmp_path / "in" / "bad", 2)
    (tmp_path / "in/bad/00002.png").write_bytes(b"no image")
    flags = ["--method", "dis", "--input", tmp_path / "in", "--output", tmp_path / "out"]
    program = start(*flags, "--workers", 1)
    output, errors = program.communicate()
    assert program.returncode == 1
    assert "wrote 3 flow images of 1 videos" in output
    assert "bad/00002.png: cannot be decoded" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["flow.json", "good"]


def test_interrupted(tmp_path, frame_folder):
    for name in ("a", "b"):
        frame_folder(tmp_path / "in" / name, 150, height=200, width=300)
    flags = ["--method", "dis", "--input", tmp_path / "in", "--output", tmp_path / "out"]
    program = start(*flags, "--workers", 2)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".?.incomplete/00003.jpg")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "interrupted"
    assert not list((tmp_path / "out").glob("[ab]"))
