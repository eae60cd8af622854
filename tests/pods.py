"""Several processes of a program on this machine, as the hosts of a cluster are."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import tiny_run


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    output: str
    errors: str


def start(program, arguments, *, count=2, devices=2, cache, only=None, each=lambda index: ()):
    """Processes 0 to count - 1, or `only` some of them; `each(index)` are further arguments."""
    coordinator = f"localhost:{free_port()}"
    environment = {
        **os.environ,
        **tiny_run.environment(cache),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": f"{tiny_run.ROOT}{os.pathsep}{tiny_run.ROOT / 'tests'}",
    }
    return [
        subprocess.Popen(
            [
                sys.executable,
                str(tiny_run.ROOT / program),
                *map(str, arguments),
                *map(str, each(index)),
                f"--coordinator={coordinator}",
                f"--num_processes={count}",
                f"--process_id={index}",
            ],
            cwd=tiny_run.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (range(count) if only is None else only)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def ended(processes, *, seconds=300) -> list[Ended]:
    """Waits for all; kills what has not ended by then, which then fails."""
    stop = time.monotonic() + seconds
    found = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=max(1, stop - time.monotonic()))
            found.append(Ended(process.returncode, output, errors))
    finally:
        for process in processes:
            process.kill()
    return found


def wait_for(path: pathlib.Path, processes, *, pattern="*") -> None:
    """Until something is there, while all processes run."""
    while not list(path.glob(pattern)):
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def run_python(script: str, *arguments: object) -> Ended:
    """A script that imports ours, outside of any cluster."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI"))
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=tiny_run.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
