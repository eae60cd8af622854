"""One run at a time in a folder of results."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator

from step_jax.errors import InputError

LOCK = ".lock"


@contextlib.contextmanager
def locked_folder(output: pathlib.Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it. Fails before hours of work, not after.

    The lock is the operating system's: it goes with the process, however that ends. Raises
    InputError where the folder cannot be written or another run is in it.
    """
    lock = output / LOCK
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{output}: cannot be written ({reason}); choose another one") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{output}: another run is writing there; wait for it") from error
        try:
            yield
        finally:
            lock.unlink()
