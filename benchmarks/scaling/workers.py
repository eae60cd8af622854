"""The processes that time training steps, side by side and in turn."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from benchmarks.scaling.cases import Case, Hardware
from step_jax.errors import InputError

_ENDS_WITHIN_SECONDS = 20
_HARDWARE = (
    "import json, jax; from benchmarks import machine; "
    "print(json.dumps({'platform': jax.default_backend(), 'described': machine.describe()}))"
)


class Worker:
    """A started process with one case ready; use `start_worker`."""

    def __init__(self, case: Case, process: subprocess.Popen, log: pathlib.Path):
        self.case, self._process, self._log = case, process, log
        self.described = self._answer()

    def run(self, steps: int) -> dict[str, Any]:
        """{"seconds": of one step, "peak_mib": ...}, or {"fits": False}."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            lines = self._log.read_text().split("\n")
            said = next((one for one in reversed(lines) if one.strip()), "it said nothing")
            raise InputError(f"{self.case.name}: ended with status {status}: {said} ({self._log})")
        return json.loads(line)


@contextlib.contextmanager
def start_worker(
    case: Case, spec: str, *, hardware: Hardware, output: pathlib.Path
) -> Iterator[Worker]:
    """A worker that is ready, and ends with the block. Raises InputError if it fails.

    Args:
      spec: the configuration, FILE or FILE:VARIANT.
      output: folder that gets its log and keeps compiled programs.
    """
    path = output / "logs" / f"{case.name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    order = json.dumps({"case": case.to_json(), "config": spec})
    with path.open("w") as log:
        process = _start(
            "-m", "benchmarks.scaling.worker", order,
            environment=environment(case, hardware, output / "compiled"), log=log,
        )  # fmt: skip
        try:
            yield Worker(case, process, path)
        finally:
            end(process)


def environment(case: Case, hardware: Hardware, cache: pathlib.Path) -> dict[str, str]:
    """Of a case's process: how many devices it sees."""
    values = dict(os.environ)
    values.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.absolute()))
    if hardware.is_cpu:
        values["JAX_NUM_CPU_DEVICES"] = str(case.devices)
    elif hardware.platform == "gpu" and case.devices:
        allowed = values.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(hardware.devices)))
        values["CUDA_VISIBLE_DEVICES"] = ",".join(allowed.split(",")[: case.devices])
        values.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")  # JAX would take 3/4
    return values


def find_hardware() -> tuple[Hardware, dict[str, Any]]:
    """The hardware and `machine.describe`, by a process that then lets go of the devices."""
    process = _start("-c", _HARDWARE, environment=dict(os.environ), log=None)
    output, _ = process.communicate()
    if process.returncode:
        raise InputError("JAX finds no devices; what it says is above")
    told = json.loads(output.splitlines()[-1])
    described = told["described"]
    return Hardware(told["platform"], described["devices"]), described


def end(process: subprocess.Popen) -> None:
    """No more orders; and if that is not enough, the end."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_ENDS_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        raise


def _start(*arguments: str, environment: dict[str, str], log: TextIO | None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
