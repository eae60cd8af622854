"""Folders on disks and in object stores (gs://, s3://): what runs do with files, for both.

An object store can neither append to an object nor rename or lock it, and its folders are nothing
but parts of names. But an object appears all at once, when its upload is complete, and everybody
sees it from then on. So files are written on a local disk, in `TMPDIR`, and uploaded when they are
complete; on a disk everything is done in place. Reads and lists need nothing of this: `as_path`
gives a path that can.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from etils import epath

from step_jax.errors import InputError

UPLOAD_SECONDS = 10.0  # between uploads of a file that grows
_MOST_TIME = 50  # an upload's seconds to those between two, where that is more
# By the kind of URL: the package with fsspec's file system for it, and how that calls itself.
_PACKAGES = {"gs": ("gcsfs", ("gs", "gcs")), "s3": ("s3fs", ("s3",))}
_TROUBLE = ("gcsfs", "google", "s3fs", "botocore", "aiobotocore", "aiohttp", "requests")
_TEMPORARY = "step_jax."


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is an object store's URL."""
    return "://" in os.fspath(path)


def as_path(path: epath.PathLike) -> pathlib.Path | epath.Path:
    """A path that can be read and listed: pathlib's of a disk, epath's of an object store.

    Raises InputError for an unknown kind of URL, or where the store's package is not installed.
    """
    if not is_remote(path):
        return pathlib.Path(path)
    scheme = os.fspath(path).partition("://")[0]
    if scheme not in _PACKAGES:
        known = " or ".join(f"{name}://" for name in _PACKAGES)
        raise InputError(f"{path}: expected a folder, or one of an object store: {known}")
    _prepare(scheme)
    return epath.Path(path)


def open_folder(path: epath.PathLike, *, flag: str) -> epath.Path:
    """The folder that a flag names, whether it exists or not.

    Raises InputError as `as_path`, and where the bucket is missing or may not be entered.
    """
    try:
        folder = as_path(path)
        if is_remote(folder):
            _check_bucket(folder)
    except (InputError, OSError) as error:
        reason = str(error) if isinstance(error, InputError) else f"{path}: {_reason(error)}"
        raise InputError(f"{flag} {reason}") from error
    return epath.Path(folder)


def check_local(path: epath.PathLike, *, what: str) -> None:
    """Raises InputError for an object store's URL, where only a disk will do."""
    if is_remote(path):
        raise InputError(
            f"{what} {path}: is read from a disk; copy it there (gcloud storage rsync -r, aws s3 "
            "sync) or mount the bucket, and give that folder (docs/pods.md)"
        )


def local_path(text: str) -> pathlib.Path:
    """The path that an argument gives, for argparse, where only a disk will do."""
    if is_remote(text):
        raise argparse.ArgumentTypeError(f"{text}: expected a path on a disk (docs/pods.md)")
    return pathlib.Path(text)


def make_folder(path: epath.PathLike) -> None:
    """Makes a folder and those above it; an object store needs none."""
    if not is_remote(path):  # where epath would make a bucket that is missing
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def uploading(path: epath.PathLike) -> Iterator[pathlib.Path]:
    """Yields a local file of the same suffix, uploaded when the block ends without an error.

    Raises OSError where that fails; what the object held before stays then.
    """
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as folder:
        file = pathlib.Path(folder) / epath.Path(path).name
        file.touch()
        yield file
        upload({file: path})


@contextlib.contextmanager
def local_copy(path: epath.PathLike) -> Iterator[pathlib.Path]:
    """Yields a file for readers that need a local one: itself, or a copy for the time of the block.

    Raises OSError, FileNotFoundError where there is none.
    """
    if not is_remote(path):
        yield pathlib.Path(path)
        return
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as folder:
        file = pathlib.Path(folder) / epath.Path(path).name
        download({path: file})
        yield file


def read_text(path: epath.PathLike) -> str:
    """A text file. Raises OSError, FileNotFoundError where there is none."""
    with local_copy(path) as file:
        return file.read_text(encoding="utf-8")


@contextlib.contextmanager
def folder_beside(path: epath.PathLike, *, prefix: str, suffix: str = "") -> Iterator[pathlib.Path]:
    """A temporary local folder, in that of `path`; of an object's URL it is somewhere else."""
    beside = None if is_remote(path) else pathlib.Path(path).parent
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(file: pathlib.Path, path: epath.PathLike) -> None:
    """Moves a complete local file to its place: a rename on the disk that it is on, or an upload.

    Raises OSError.
    """
    if is_remote(path):
        upload({file: path})
    else:
        os.replace(file, path)


def remove_tree(path: epath.PathLike) -> None:
    """Removes a folder and all that is in it; what cannot be removed is left without a word."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError), _told(path):
        _filesystem(path).rm(os.fspath(path), recursive=True)


def move_folder(path: epath.PathLike, target: epath.PathLike) -> None:
    """Renames a folder; in an object store, which cannot, its objects are copied, then removed."""
    if not is_remote(path):
        os.rename(path, target)
        return
    source, copy = os.fspath(path), os.fspath(target)
    with _told(path):
        filesystem = _filesystem(path)
        prefix = filesystem._strip_protocol(source)
        for name in filesystem.find(source):
            filesystem.cp_file(name, copy + name.removeprefix(prefix))
    remove_tree(path)


def stamp(path: epath.PathLike) -> Hashable | None:
    """What tells one version of a file, or of a folder on a disk, from another; None without one.

    Raises OSError.
    """
    try:
        if not is_remote(path):
            told = os.stat(path)
            return told.st_ino, told.st_mtime_ns
        with _told(path):
            return _filesystem(path).ukey(os.fspath(path))
    except FileNotFoundError:
        return None


def size(path: epath.PathLike) -> int:
    """Bytes of a file. Raises OSError."""
    if not is_remote(path):
        return os.stat(path).st_size
    with _told(path):
        return _filesystem(path).size(os.fspath(path))


def upload(files: Mapping[pathlib.Path, epath.PathLike]) -> None:
    """Uploads local files to objects of one store. Raises OSError."""
    if files:
        targets = [os.fspath(target) for target in files.values()]
        with _told(targets[0], missing="no such bucket"):
            _filesystem(targets[0]).put([os.fspath(file) for file in files], targets)


def download(files: Mapping[epath.PathLike, pathlib.Path]) -> None:
    """Downloads objects of one store to local files. Raises OSError."""
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    if files:
        sources = [os.fspath(source) for source in files]
        with _told(sources[0]):
            _filesystem(sources[0]).get(sources, [os.fspath(file) for file in files.values()])


class GrowingFolder:
    """A folder of files that are appended to: that itself, or a local one that is uploaded.

    An object store takes whole files alone. They are uploaded by `put`, and by `grown` at most
    every `UPLOAD_SECONDS`, and so seldom that it takes no more than 2 % of the time. What was
    appended since is lost where the process is killed.

    Attributes:
      path: the local folder, which exists.
      is_uploaded: whether that is another one.
    """

    def __init__(self, folder: epath.PathLike):
        """Raises OSError where the folder cannot be made."""
        make_folder(folder)
        self._target = as_path(folder)
        self._temporary = None
        if is_remote(folder):
            self._temporary = tempfile.TemporaryDirectory(prefix=_TEMPORARY)
        self.path = pathlib.Path(self._temporary.name if self._temporary else folder)
        self.is_uploaded = self._temporary is not None
        self._uploaded: dict[pathlib.Path, Hashable] = {}
        self._due = time.monotonic() + UPLOAD_SECONDS

    def grown(self) -> None:
        """To be called when a file has grown. An upload that fails is told, and tried again."""
        if self._temporary is None or time.monotonic() < self._due:
            return
        try:
            self.put()
        except OSError as error:
            print(f"{self._target}: not uploaded, but kept ({_reason(error)})", file=sys.stderr)
            self._due = time.monotonic() + UPLOAD_SECONDS

    def put(self) -> None:
        """Uploads what has changed, now. Raises OSError."""
        if self._temporary is None:
            return
        began = time.monotonic()
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        found = {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
        changed = [file for file in files if self._uploaded.get(file) != found[file]]
        upload({file: self._target / file.relative_to(self.path).as_posix() for file in changed})
        self._uploaded = found
        now = time.monotonic()
        self._due = now + max(UPLOAD_SECONDS, _MOST_TIME * (now - began))

    def close(self) -> None:
        """Uploads what is left. Raises OSError."""
        try:
            self.put()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None


def is_trouble(error: BaseException) -> bool:
    """Whether an error comes from a store's package: no credentials, no connection, no right."""
    return type(error).__module__.partition(".")[0] in _TROUBLE


@functools.cache
def _prepare(scheme: str) -> None:
    """Makes ready the package for a store's URLs."""
    package, names = _PACKAGES[scheme]
    if not all(map(importlib.util.find_spec, ("fsspec", package))):
        raise InputError(
            f"{scheme}://...: the package {package} is not installed; `pip install {package}` "
            "(docs/pods.md)"
        )
    import fsspec

    # Lists are kept otherwise: what another process has written since would never be seen.
    for name in names:
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    # With TensorFlow installed epath would take its file systems: they know no s3://, keep what
    # they have listed, and raise errors of their own. What epath found out before is forgotten.
    os.environ["EPATH_USE_TF"] = "false"
    from etils.epath import gpath

    if found := getattr(gpath, "_is_tf_installed", None):
        found.cache_clear()


def _filesystem(path: epath.PathLike) -> Any:
    """fsspec's, of a URL."""
    import fsspec

    scheme = os.fspath(path).partition("://")[0]
    _prepare(scheme)
    return fsspec.filesystem(scheme)


def _check_bucket(folder: epath.Path) -> None:
    """Raises InputError or OSError where it cannot be listed."""
    filesystem, bucket = _filesystem(folder), folder.parts[2] if len(folder.parts) > 2 else ""
    if not bucket:
        raise InputError(f"{folder}: names no bucket")
    try:
        with _told(folder):
            try:
                filesystem.info(bucket)
            except FileNotFoundError:  # an empty one, too, if one may see no more than objects
                filesystem.ls(bucket)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: there is no bucket {bucket!r}") from error


@contextlib.contextmanager
def _told(path: epath.PathLike, *, missing: str = "") -> Iterator[None]:
    """Turns whatever a store's package raises into an OSError that names the path.

    A missing object is a FileNotFoundError, or, where `missing` says what that means, trouble too.
    """
    try:
        yield
    except FileNotFoundError as error:
        if not missing:
            raise
        raise OSError(errno.EREMOTEIO, missing, os.fspath(path)) from error
    except Exception as error:
        if not isinstance(error, OSError) and not is_trouble(error):
            raise
        # No EIO, which of a disk means damage: this may pass.
        raise OSError(errno.EREMOTEIO, _reason(error), os.fspath(path)) from error


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]
