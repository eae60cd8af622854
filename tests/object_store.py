"""An object store in memory, with what makes stores different, in the place of gs:// and s3://."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

import fsspec
import pytest
from etils.epath import backend, gpath
from fsspec.implementations.memory import MemoryFileSystem

from step_jax import storage

BUCKET = "bucket"
SCHEMES = {"gs": ("gs", "gcs"), "s3": ("s3",)}


class KilledError(BaseException):
    """In place of SIGKILL: nothing handles it."""


class ObjectStore(MemoryFileSystem):
    """Objects appear whole, folders are nothing but names, nothing is appended to or renamed.

    `act(kind, path)` is called before every change, kind "put", "copy" or "remove", and every
    "get"; it may raise.
    """

    protocol = ("gs", "gcs", "s3")
    store: dict = {}  # noqa: RUF012 (of the base class: of all instances)
    pseudo_dirs: list = ["", f"/{BUCKET}"]  # noqa: RUF012
    act = staticmethod(lambda kind, path: None)

    @classmethod
    def _strip_protocol(cls, path):
        path = os.fspath(path).partition("://")[2] or os.fspath(path)
        return "/" + path.strip("/") if path.strip("/") else ""

    def put_file(self, lpath, rpath, **options):
        self.pipe_file(rpath, pathlib.Path(lpath).read_bytes())

    def pipe_file(self, path, value, mode="overwrite", **options):
        path = self._strip_protocol(path)
        if not path.startswith(f"/{BUCKET}/"):
            raise FileNotFoundError("The specified bucket does not exist")
        ObjectStore.act("put", path)
        super().pipe_file(path, value)

    def get_file(self, rpath, lpath, **options):
        ObjectStore.act("get", self._strip_protocol(rpath))
        super().get_file(rpath, lpath, **options)

    def cp_file(self, path1, path2, **options):
        ObjectStore.act("copy", self._strip_protocol(path1))
        super().cp_file(path1, path2, **options)

    def rm_file(self, path):
        ObjectStore.act("remove", self._strip_protocol(path))
        super().rm_file(path)

    def open(self, path, mode="rb", **options):
        assert "a" not in mode, f"{path}: object stores do not append"
        return super().open(path, mode, **options)

    def makedirs(self, path, exist_ok=False):
        raise AssertionError(f"{path}: would make a bucket that is missing")

    mkdir = mkdirs = makedirs

    def mv(self, path1, path2, **options):
        raise AssertionError(f"{path1}: object stores do not rename")

    rename = move = mv


def names(path) -> list[str]:
    """All objects below a URL, without it."""
    prefix = ObjectStore._strip_protocol(path) + "/"
    found = sorted(ObjectStore.store)
    return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]


def contents(path) -> bytes:
    return ObjectStore.store[ObjectStore._strip_protocol(path)].getvalue()


@contextlib.contextmanager
def installed() -> Iterator[type[ObjectStore]]:
    """As if gcsfs and s3fs were, with one bucket, BUCKET, that is empty."""
    registry = sys.modules["fsspec.registry"]._registry
    with pytest.MonkeyPatch.context() as patch:
        for names_ in SCHEMES.values():
            for name in names_:
                patch.setitem(registry, name, ObjectStore)
        patch.setattr(ObjectStore, "store", {})
        patch.setattr(ObjectStore, "act", staticmethod(lambda kind, path: None))
        packages = {scheme: ("fsspec", names_) for scheme, names_ in SCHEMES.items()}
        patch.setattr(storage, "_PACKAGES", packages)
        patch.setenv("EPATH_USE_TF", os.environ.get("EPATH_USE_TF", "true"))
        forget()
        yield ObjectStore
    forget()


def forget() -> None:
    """What was found out about the packages."""
    storage._prepare.cache_clear()
    gpath._is_tf_installed.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    ObjectStore.clear_instance_cache()
    fsspec.config.conf.pop("gs", None)


def dies_at(count: int, *, kinds: tuple[str, ...] = ("put", "copy", "remove")):
    """For `ObjectStore.act`: KilledError before the count-th change, and at all after it."""
    left = iter(range(count - 1, -1, -1))

    def act(kind: str, path: str) -> None:
        if kind in kinds and next(left, 0) == 0:
            raise KilledError

    return staticmethod(act)


def fails(*kinds: str):
    """For `ObjectStore.act`: no right to do it, told as packages do, by errors of their own."""

    def act(kind: str, path: str) -> None:
        if kind in kinds:
            raise HttpError("Forbidden\nby policy")

    return staticmethod(act)


class HttpError(Exception):
    """As gcsfs's."""

    __module__ = "gcsfs.retry"
