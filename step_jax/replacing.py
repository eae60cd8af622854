"""Writing a file completely or not at all, and never over what it is made of.

On a disk by a rename, in an object store by an upload.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterable, Iterator

from step_jax import storage
from step_jax.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary name beside `path`, renamed to it when the block ends without an error.

    On an error the temporary file is removed and what `path` held before stays. The temporary name
    keeps the suffix, by which some writers choose their format. Raises InputError where the folder
    is missing or cannot be written. Of an object store's URL the temporary file is elsewhere, and
    an OSError is raised where the upload fails.
    """
    if storage.is_remote(path):
        with storage.uploading(path) as temporary:
            yield temporary
        return
    path = pathlib.Path(path)
    # Processes of several machines, which may have one number, write into shared folders.
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.stem}.{own}.tmp{path.suffix}")
    try:
        temporary.touch()
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_outputs(
    outputs: Iterable[str | os.PathLike | None], *, inputs: Iterable[str | os.PathLike | None]
) -> None:
    """Raises InputError for an output that is an input, or another output; None is no file."""
    read = {pathlib.Path(path).resolve() for path in inputs if path is not None}
    written = set()
    for output in outputs:
        if output is None:
            continue
        path = pathlib.Path(output).resolve()
        if path in read:
            raise InputError(f"{output}: is one of the inputs; choose another name for the output")
        if path in written:
            raise InputError(f"{output}: is given for two outputs; choose another name for one")
        written.add(path)
