"""Reading a pickle from someone else: containers, numbers, text and plain numpy arrays, no code.

`pickle.load` runs whatever the file names. Here the names in a pickle never reach the real
functions: the few admitted ones are answered by the stand-ins below, which rebuild arrays of plain
numbers and text from their bytes, and any other name is an error. The stand-ins are slotted
instances instead of classes or functions, so that a pickle can neither subclass nor change them.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import re
from typing import Any

import numpy as np

from step_jax.errors import InputError

_PLAIN_DTYPE = re.compile(r"[<>|=]?([?]|[biufSU][0-9]+)")


def load_restricted(path: str | os.PathLike) -> Any:
    """Reads a pickle of data, also one that Python 2 wrote (its strings are taken as latin-1).

    Numpy scalars come back as Python numbers and text. Raises InputError for a pickle that names
    anything else than arrays and containers, has object arrays, or is damaged.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin-1").load()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except _RefusedError as error:
        raise InputError(f"{path}: refused: {error}") from error
    except Exception as error:  # a damaged pickle raises anything at all
        raise InputError(f"{path}: is not a pickle, or a damaged one: {error!r}") from error


class _RefusedError(Exception):
    """A sound pickle that asks for what is not admitted."""


class _Unpickler(pickle._Unpickler):
    """The unpickler in Python: the one in C allocates whatever sizes a damaged file states."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (module, name) not in _ADMITTED:
            raise _RefusedError(
                f"it asks for {module}.{name}; expected only containers, numbers, text and numpy "
                "arrays. Open such a file only if you trust it, and save its data plainly "
                "(pickle protocol 4 or lower)"
            )
        return _ADMITTED[module, name]


class _StandIn:
    __slots__ = ()

    def __setstate__(self, state: Any):
        raise _RefusedError(f"it tries to change {type(self).__name__}")


class _NdarrayName(_StandIn):
    """`numpy.ndarray`, which pickles only hand to `_reconstruct`."""

    __slots__ = ()


class _Dtype:
    """`numpy.dtype(name, ...)`, kept as text until its state has told the byte order."""

    __slots__ = ("value",)

    def __init__(self, name: Any):
        if not (isinstance(name, str) and _PLAIN_DTYPE.fullmatch(name)):
            raise _RefusedError(f"it has an array of type {name!r}; expected plain numbers or text")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any):
        """The second entry is the byte order; the others tell of structure, which is ignored."""
        self.value = self.value.newbyteorder(state[1])


class _DtypeName(_StandIn):
    __slots__ = ()

    def __call__(self, name: Any, *align_and_copy: Any) -> _Dtype:
        return _Dtype(name)


class _Array(np.ndarray):
    """An array still without its state, which pickle gives it next."""

    def __setstate__(self, state: Any):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise _RefusedError("it has an array without a proper type")
        super().__setstate__((1, shape, dtype.value, fortran, _as_bytes(data)))


class _Reconstruct(_StandIn):
    __slots__ = ()

    def __call__(self, kind: Any, *shape_and_type: Any) -> _Array:
        return np.ndarray.__new__(_Array, (0,))


class _Scalar(_StandIn):
    __slots__ = ()

    def __call__(self, dtype: Any, data: Any) -> Any:
        if not isinstance(dtype, _Dtype):
            raise _RefusedError("it has a number without a proper type")
        return np.frombuffer(_as_bytes(data), dtype.value, count=1)[0].item()


class _Encode(_StandIn):
    """`_codecs.encode`, by which Python 3 writes bytes in the protocols of Python 2."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        return _as_bytes(text)


class _EmptyBytes(_StandIn):
    """`bytes()`: no bytes, in the protocols of Python 2. With a number it would fill the memory."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


def _as_bytes(data: Any) -> bytes:
    """The bytes of an array; what was bytes in Python 2 arrives as latin-1 text."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes):
        raise _RefusedError(f"it has an array of {type(data).__name__}; expected bytes")
    return data


_ADMITTED = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytes"): _EmptyBytes(),
    ("numpy", "ndarray"): _NdarrayName(),
    ("numpy", "dtype"): _DtypeName(),
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy.core.multiarray", "scalar"): _Scalar(),
    ("_codecs", "encode"): _Encode(),
}
