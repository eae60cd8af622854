"""Compiled programs kept on disk, for the next start of a command."""

from __future__ import annotations

import os

import jax
from etils import epath

from step_jax.errors import InputError
from step_jax.storage import make_folder, open_folder

HELP = "Folder that keeps compiled programs, so that the next start need not compile them."
_LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def keep_programs(folder: epath.PathLike | None) -> None:
    """Keeps all programs compiled from now on in `folder`; None or "" changes nothing.

    Small ones too, which JAX leaves out by default: a training start has dozens of them, each a
    few kilobytes, and they take seconds together. The environment's
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS has the last word. A file of another version of JAX
    or for another device is never taken, so that a folder may serve many.

    Raises InputError where the folder cannot be made.
    """
    if not folder:
        return
    try:
        make_folder(open_folder(folder, flag="--compilation_cache"))
    except OSError as error:
        raise InputError(
            f"--compilation_cache {folder}: cannot be made ({error.strerror or error}); choose "
            "another folder"
        ) from error
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    if _LEAST_SECONDS.upper() not in os.environ:
        jax.config.update(_LEAST_SECONDS, 0.0)
