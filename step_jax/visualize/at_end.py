"""The page that a training leaves behind, however it stops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etils import epath

from step_jax.errors import InputError


@contextlib.contextmanager
def drawing_summary(workdir: epath.PathLike, *, wanted: bool) -> Iterator[None]:
    """Draws `WORKDIR/summary.png` when the block ends, by an error too, but not by Ctrl-C.

    A page that cannot be drawn is no reason for a training to fail: that is told in one line.
    """
    try:
        yield
    except Exception:
        if wanted:
            _draw(workdir)
        raise
    if wanted:
        _draw(workdir)


def _draw(workdir: epath.PathLike) -> None:
    from step_jax.visualize.training import draw_summary  # matplotlib takes a second to import

    try:
        print(f"summary: {draw_summary(workdir)}", flush=True)
    except (InputError, OSError) as error:
        print(f"no summary: {error}", flush=True)
