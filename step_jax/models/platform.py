"""Which platform a computation is traced for: where formulations differ, it decides."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_assumed: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def is_cpu() -> bool:
    """Whether the CPU's formulations are to be used; else the plain ones, an accelerator's."""
    return (_assumed.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def assumed(platform: str) -> Iterator[None]:
    """Traces inside as on `platform` ("cpu", "gpu", "tpu"), e.g. to count the plain operations.

    What `jax.jit` has traced before for the same arguments is not traced anew: wrap another one.
    """
    token = _assumed.set(platform)
    try:
        yield
    finally:
        _assumed.reset(token)
