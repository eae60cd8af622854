"""A process that has one training step ready and times it when it is told to.

    python -m benchmarks.scaling.worker JSON

Its parent (`benchmarks.scaling.workers`) has one for each case, because the number of devices is
settled once a process and a peak of memory belongs to one, and lets them run in turn. Lines of JSON
go both ways: first what is known before a step, then for each number of steps that comes in the
seconds of one and the memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import arithmetic, configuration, machine
from benchmarks.scaling.cases import Case
from benchmarks.training import Training
from step_jax import parallel
from step_jax.models.step import StepDetector
from step_jax.train_state import init_variables

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
PyTree = Any


def main() -> None:
    order = json.loads(sys.argv[1])
    case = Case.from_json(order["case"])
    try:
        with without_devices() if case.wrapper == "jit" else contextlib.nullcontext():
            timed = TimedStep(order["config"], case)
            tell(timed.describe())
            for line in sys.stdin:
                tell(timed.run(int(line)))
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        tell({"fits": False})


def tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


class TimedStep:
    """A case's training step, compiled, and the state that it goes on from."""

    def __init__(self, spec: str, case: Case):
        config = configuration.changed(configuration.load_config(spec), case.changes)
        parallel.check_batch_size(case.batch, accumulate=config.train.accumulate)
        described = configuration.describe(spec, config)
        self._training = training = Training(
            config, described, case.batch, initialise=quick_variables
        )
        self._is_plain = case.wrapper == "jit"
        self._step = plain_step(training) if self._is_plain else training.make_step()
        # Where train.py has a batch before its step begins.
        put = jax.device_put if self._is_plain else parallel.on_devices
        self._batch = put(training.batch)
        self._key = jax.random.key(0)
        self._state = training.new_state()
        training.variables = None  # copied; two steps' worth of memory otherwise
        start = time.perf_counter()
        arguments = (self._state, self._batch, self._key)
        memory = self._step.lower(*arguments).compile().memory_analysis()
        self._one_step()
        self._first_seconds = time.perf_counter() - start
        self._temporary_bytes = None if memory is None else memory.temp_size_in_bytes

    def describe(self) -> dict[str, Any]:
        """What is known before it is timed; of all devices together."""
        devices, shapes = jax.local_device_count(), jax.eval_shape(lambda: self._state)
        flops = arithmetic.plain_flops(
            plain_step(self._training) if self._is_plain else self._training.make_step(),
            shapes, self._batch, self._key,
        )  # fmt: skip
        temporary = self._temporary_bytes
        give_back_freed_memory()
        machine.forget_peak()
        return {
            "fits": True,
            "devices": devices,
            "frames": self._training.batch["clips"].shape[1],
            "first_call_seconds": self._first_seconds,
            "gflop": flops * devices / 1e9,
            "temporary_mib": None if temporary is None else temporary * devices / 2**20,
            "before_mib": machine.peak_mib(),
        }

    def run(self, steps: int) -> dict[str, float]:
        """Seconds of one of `steps` steps, the processor's, and the most memory so far."""
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self._one_step()
        return {
            "seconds": (time.perf_counter() - start) / steps,
            "cpu_seconds": (time.process_time() - cpu_start) / steps,
            "peak_mib": machine.peak_mib(),
        }

    def _one_step(self) -> None:
        self._state, metrics = self._step(self._state, self._batch, self._key)
        jax.block_until_ready((self._state, metrics))


def quick_variables(detector: StepDetector, **options: Any) -> PyTree:
    """As `init_variables`, without compiling it: time depends on shapes alone."""
    shapes = jax.eval_shape(lambda: init_variables(detector, **options))
    random = np.random.default_rng(0)

    def leaf(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(shape.shape) < 2:
            return np.ones(shape.shape, shape.dtype)
        spread = np.prod(shape.shape[:-1]) ** -0.5
        return random.normal(0, spread, shape.shape).astype(shape.dtype)

    return jax.tree.map(leaf, shapes)


def plain_step(training: Training) -> Callable:
    """The step under `jax.jit` alone; to be traced inside `without_devices`."""
    return jax.jit(training.device_step(), donate_argnums=0)


@contextlib.contextmanager
def without_devices() -> Iterator[None]:
    """`parallel`'s functions as they would be if there were one device and no axis of devices."""
    alone = {
        "sum_over_devices": lambda tree: tree,
        "axis_size": lambda: jnp.int32(1),
        "example_index": jnp.arange,
    }
    before = {name: getattr(parallel, name) for name in alone}
    try:
        for name, function in alone.items():
            setattr(parallel, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(parallel, name, function)


def give_back_freed_memory() -> None:
    """So that what compilation has freed is not counted as the step's; on Linux alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


if __name__ == "__main__":
    main()
