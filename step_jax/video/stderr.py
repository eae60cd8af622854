"""What OpenCV and FFmpeg print on their own, held back until we know whether it is news.

They write to the file descriptor, out of Python's sight: a file that cannot be opened would give
their line and then ours, and every WebM writer complains about a tag that WebM does not have.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

_STDERR = 2
_lock = threading.RLock()


class Held:
    """The lines held back; set `drop` to a prefix of those to forget ("" forgets all of them)."""

    drop: str | None = None

    def keeps(self, line: bytes) -> bool:
        return self.drop is None or not line.startswith(self.drop.encode())


@contextlib.contextmanager
def held_stderr() -> Iterator[Held]:
    """Holds back what is written to standard error; afterwards passes on what is not dropped.

    For the moment of opening a file, not for decoding it: other threads' lines are delayed too.
    """
    held = Held()
    with _lock, tempfile.TemporaryFile() as file:
        try:
            with _redirected(to=file.fileno()):
                yield held
        finally:
            file.seek(0)
            for line in filter(held.keeps, file):
                os.write(_STDERR, line)


@contextlib.contextmanager
def _redirected(*, to: int):
    if sys.stderr:
        sys.stderr.flush()
    original = os.dup(_STDERR)
    os.dup2(to, _STDERR)
    try:
        yield
    finally:
        if sys.stderr:
            sys.stderr.flush()
        os.dup2(original, _STDERR)
        os.close(original)
