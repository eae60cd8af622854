"""Several processes that train or evaluate together: one starts, agrees, writes and ends with all.

On one process every function here does the obvious, so that callers need not ask.

What they say to one another goes through the coordination service of `jax.distributed`, which
process 0 runs: small texts under names. Arrays go over the devices' own network.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from step_jax import parallel
from step_jax.errors import InputError

PyTree = Any

START_SECONDS = 300  # how long processes wait for one another at the start
HEARTBEAT_SECONDS = 60  # without a word a process counts as dead, and ends the others
GRACE_SECONDS = 5  # for a process to end by itself, or to hear why another one does
POLL_SECONDS = 1  # signals are looked at so often while waiting
ELSEWHERE = "a signal at another process"
_LETTERS = "step_jax/letters"
_LOST = ("gloo", "nccl", "coordination service", "heartbeat", "connection closed", "socket closed")


class ProcessLostError(InputError):
    """Another process of the run ended without a word."""


@dataclasses.dataclass
class _Together:
    """What a process of several keeps: its line to the others."""

    client: Any
    watcher: threading.Thread | None = None
    obituary: subprocess.Popen | None = None
    stopping: bool = False
    leaving: bool = False
    uses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


_together: _Together | None = None


def initialise(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    start_seconds: float = START_SECONDS,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Joins the other processes; to be called before anything else of JAX.

    Args:
      coordinator: HOST:PORT of process 0; None: what the cluster says (SLURM, Open MPI, a TPU pod,
        Kubernetes).
      num_processes, process_id: how many processes there are and which is this; given with
        `coordinator`.
      start_seconds: if not all are there after so long, this process ends with an error.
      heartbeat_seconds: a process that was not heard of for so long is lost.

    Raises InputError for arguments that do not fit, and where there is no cluster.
    """
    global _together
    explicit = check_arguments(coordinator, num_processes, process_id)
    # Its handler of SIGTERM would come before that of `StopSignal`.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    with _at_most(start_seconds, process_id, coordinator):
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                cluster_detection_method="deactivate" if explicit else None,
                initialization_timeout=round(start_seconds) + 60,  # `_at_most` is before it
                heartbeat_timeout_seconds=heartbeat_seconds,
            )
        except ValueError as error:
            raise InputError(
                f"--multihost: no cluster is known here ({error}); it is on SLURM, Open MPI, "
                "Kubernetes and TPU pods. Elsewhere give --coordinator HOST:PORT "
                "--num_processes N --process_id I"
            ) from error
        except RuntimeError as error:
            where = coordinator or "the cluster's coordinator"
            raise InputError(f"--multihost: {where} cannot be joined: {error}") from error
        jax.devices()  # the processes exchange what devices they have
    from jax._src import distributed  # its client is public in no other way

    _together = _Together(distributed.global_state.client)


def define_flags() -> None:
    """Those of a command that several processes may run together."""
    flags.DEFINE_boolean("multihost", False, "One of several processes, which the cluster knows.")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no cluster knows it.")
    flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes.")
    flags.DEFINE_integer("process_id", None, "With --coordinator: which one this is, from 0.")


def initialise_from_flags() -> bool:
    """`initialise`, if the command line wants several processes, and whether it does."""
    told = flags.FLAGS
    explicit = check_arguments(told.coordinator, told.num_processes, told.process_id)
    if told.multihost or explicit:
        initialise(
            coordinator=told.coordinator,
            num_processes=told.num_processes,
            process_id=told.process_id,
        )
    return told.multihost or explicit


def check_arguments(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> bool:
    """Whether the processes are given explicitly. Raises InputError for a part of it alone."""
    given = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return False
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: {', '.join(given)} go together")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--coordinator {coordinator!r}: expected HOST:PORT of process 0")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id {process_id} of --num_processes {num_processes}: expected 0 to "
            f"{num_processes - 1}"
        )
    return True


def is_writer() -> bool:
    """Whether this is the process that writes what all have in common, and prints."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints what concerns this process alone, at any of them."""
    if is_writer():
        print(text, flush=True)
    else:
        print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)


def gather(name: str, value: Any) -> list[Any]:
    """The JSON-ready values of all processes, in their order, at every one of them.

    All have to call it, under the same names in the same order. While it waits signals are heard.
    """
    if _together is None:
        return [value]
    _together.uses[name] += 1
    key = f"step_jax/{name}/{_together.uses[name]}"
    client = _together.client
    client.key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    if not is_writer():
        return json.loads(_wait_for(client, f"{key}/all"))
    values = [_wait_for(client, f"{key}/{index}") for index in range(jax.process_count())]
    client.key_value_set(f"{key}/all", f"[{','.join(values)}]")
    return [json.loads(one) for one in values]


def barrier(name: str) -> None:
    """Returns when all processes have called it."""
    gather(name, None)


def any_process(name: str, flag: bool) -> bool:
    """Whether the flag is set at any process."""
    return any(gather(name, bool(flag)))


def writers(name: str, value: Any) -> Any:
    """The writer's JSON-ready value, at every process."""
    return gather(name, value if is_writer() else None)[0]


def check_same(name: str, values: Mapping[str, Any], *, may_differ: tuple[str, ...] = ()) -> None:
    """Raises InputError, at all processes, where one's flat `values` are not the writer's."""
    own = json.loads(json.dumps({k: v for k, v in values.items() if k not in may_differ}))
    told = writers(name, own)
    different = [
        f"{key} is {own.get(key, 'absent')} there and {told.get(key, 'absent')} at process 0"
        for key in sorted(own.keys() | told.keys())
        if key not in own or key not in told or own[key] != told[key]
    ]
    for index, found in enumerate(gather(f"differences of {name}", different)):
        if found:
            raise InputError(
                f"process {index} has another {name} ({'; '.join(found)}); start all processes "
                "with the same command"
            )


def broadcast(tree: PyTree) -> PyTree:
    """The writer's arrays at every process, bit for bit; shapes and dtypes are alike everywhere."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    # They are summed up with zeros, and -0.0 + 0.0 is 0.0: so the bits are, as whole numbers.
    bits = [np.atleast_1d(array).view(f"u{array.itemsize}") for array in arrays]
    sent = multihost_utils.broadcast_one_to_all(bits)
    told = [
        np.asarray(one).view(array.dtype).reshape(array.shape)
        for one, array in zip(sent, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, told)


class StopVote:
    """Why to stop, so that all processes do so after the same step.

    `vote(requested)` after each step, with the name of the signal that came to this process, if
    any. On one process that is the answer; on several it is of the call before, so that no step
    waits for it.
    """

    def __init__(self):
        self._before: jax.Array | None = None

    def __call__(self, requested: str | None) -> str | None:
        if jax.process_count() == 1:
            return requested
        before, self._before = self._before, _most(bool(requested))
        if before is None or not bool(before):
            return None
        return requested or ELSEWHERE


def _most(flag: bool) -> jax.Array:
    """The highest flag of all processes, as soon as the devices come to it."""
    flags = np.full(jax.local_device_count(), bool(flag), np.int32)
    return _maximum()(jax.make_array_from_process_local_data(parallel.split(), flags))


@functools.cache
def _maximum():
    return jax.jit(jnp.max, out_shardings=parallel.replicated())


def any_stops(requested: str | None) -> str | None:
    """The same at once, where all processes are between two pieces of work."""
    if _together is None:
        return requested
    if not any_process("stop", bool(requested)):
        return None
    _together.stopping = True
    return requested or ELSEWHERE


def interrupt_others() -> None:
    """Sends them the signal that interrupted this process in the middle of a long piece of work."""
    _tell({"stop": jax.process_index()})


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around the work of a process: an error in it ends the others, and one of theirs ends it.

    Only the writer's standard output is seen. Raises ProcessLostError where another process ended
    without a word.
    """
    if _together is None:
        yield
        return
    _together.obituary = _write_obituary()
    _together.watcher = threading.Thread(target=_watch, args=(_together.client,), daemon=True)
    _together.watcher.start()
    with _only_the_writer_prints():
        try:
            yield
            barrier("end")
        except BaseException as error:
            _leave_without_others(error)
            if _is_lost(error):
                raise ProcessLostError(_lost_line(error)) from error
            raise
    if is_writer():
        _tell({"end": True})
    _together.watcher.join(timeout=GRACE_SECONDS)
    _throw_obituary_away()


@contextlib.contextmanager
def _only_the_writer_prints() -> Iterator[None]:
    if is_writer():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _leave_without_others(error: BaseException) -> None:
    """Tells the others why, and sees to it that the end of the program does not wait for them."""
    if _is_lost(error):
        time.sleep(2 * GRACE_SECONDS)  # `_watch` ends this process if the lost one said why
    _together.leaving = True
    if not _is_lost(error):
        _tell({"error": _reason(error), "process": jax.process_index()})
        if is_writer():
            time.sleep(2 * GRACE_SECONDS)  # the service that tells it ends with this process
    # JAX's own end waits for all processes. Registered last, this comes first.
    atexit.register(_exit_now, 130 if isinstance(error, KeyboardInterrupt) else 1)


def _exit_now(status: int) -> None:
    _throw_obituary_away()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _write_obituary() -> subprocess.Popen:
    """A shell that tells in one line if this process ends without a word of its own.

    It may be killed, or aborted by JAX, which does that where the coordinator is lost, or no
    heartbeat comes from another process, and in words that tell little.
    """
    line = (
        f"error: process {jax.process_index()} of {jax.process_count()} ended in the middle of the "
        "run: it was killed, or another process was lost and JAX ended this one, in the words "
        f"above; {_CONTINUE}"
    )
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read word || echo "$0" >&2', line],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # signals to this process's group are not for it
    )


def _throw_obituary_away() -> None:
    _together.obituary.communicate(b"alive\n")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_lost(error: BaseException) -> bool:
    """Whether JAX says that another process is not there any more."""
    text = str(error).lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and any(one in text for one in _LOST)


def _lost_line(error: BaseException) -> str:
    return (
        f"process {jax.process_index()} of {jax.process_count()}: another process was lost "
        f"({_reason(error)[:200]}); {_CONTINUE}"
    )


_CONTINUE = "the same command, at all processes, goes on from the last checkpoint"


def _watch(client: Any) -> None:
    """Reads what the others tell, until the end."""
    for number in itertools.count():
        try:
            letter = json.loads(_wait_for(client, f"{_LETTERS}/{number}"))
        except jax.errors.JaxRuntimeError:
            return  # the coordinator is gone: JAX ends this process
        if "end" in letter:
            return
        if "stop" in letter and letter["stop"] != jax.process_index() and _may_be_stopped():
            os.kill(os.getpid(), signal.SIGTERM)
        if "error" in letter and letter["process"] != jax.process_index():
            _end_after(letter)


def _end_after(letter: Mapping[str, Any]) -> None:
    """Ends this process because another one has, unless it is about to for a reason of its own."""
    time.sleep(GRACE_SECONDS)
    if _together.leaving:
        return
    told = f"error: process {letter['process']} ended: {letter['error']}; {_CONTINUE}\n"
    os.write(2, told.encode())
    _throw_obituary_away()
    os._exit(1)


def _may_be_stopped() -> bool:
    """Whether this process does not know yet, and would end in an orderly way."""
    handled = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN, None)
    return handled and not _together.stopping


def _tell(letter: Mapping[str, Any]) -> None:
    """Puts a letter into the first free place of those that all watch."""
    if _together is None:
        return
    for number in itertools.count():
        try:
            _together.client.key_value_set(f"{_LETTERS}/{number}", json.dumps(letter))
            return
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                return  # the coordinator is gone


def _wait_for(client: Any, key: str) -> str:
    """The text under a key, once it is there."""
    while True:
        try:
            return client.blocking_key_value_get(key, POLL_SECONDS * 1000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


@contextlib.contextmanager
def _at_most(seconds: float, process_id: int | None, coordinator: str | None) -> Iterator[None]:
    """Ends the process with one line if the block takes longer; JAX would abort it."""
    where = f" at {coordinator}" if coordinator else ""
    own = "this process" if process_id is None else f"process {process_id}"
    line = (
        f"error: --multihost: {own} waited {seconds:g} s{where} for the others; start all "
        "processes, each with its own --process_id, and check that they reach the coordinator\n"
    )

    def give_up() -> None:
        os.write(2, line.encode())
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
