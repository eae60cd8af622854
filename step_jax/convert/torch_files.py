"""Reading and writing PyTorch's files without running anything that a file says.

PyTorch is needed here alone, and imported when a file is read or written.
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from step_jax.errors import InputError
from step_jax.replacing import replacing

# What a file may hold beside tensors, containers, numbers and text.
ALLOWED = (argparse.Namespace,)

_ZIP = b"PK\x03\x04"
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_REFUSED = re.compile(r"GLOBAL (\S+)")
_NUMPY_NUMBERS = re.compile(r"numpy(\.|\._)core\.multiarray\.scalar|numpy\.dtype")


def read_torch(path: str | pathlib.Path) -> Any:
    """What `torch.save` wrote, in the container of 2019 or today's.

    Tensors in dicts become arrays: float32, or int64 of whole numbers; those that numpy has no form
    for stay what they are.

    Raises:
      InputError: PyTorch is not installed; the file cannot be read, is not one of PyTorch's, is
        damaged, or names a class or function other than those in ALLOWED, none of which is run.
    """
    torch, path = _import_torch(), pathlib.Path(path)
    start = _first_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old storage classes and pickle protocols
            return _with_arrays(torch, _load(torch, path))
    except Exception as error:  # a damaged file raises anything at all
        raise InputError(f"{path}: {_reason(start, error)}") from error


def write_torch(path: str | pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes `value`, whose dicts of arrays become state dicts, in the container of 2019.

    PyTorch of any version reads that one, also the one that the public STEP code ran on.
    """
    torch = _import_torch()
    content = {key: _with_tensors(torch, item) for key, item in value.items()}
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary, _use_new_zipfile_serialization=False)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be written ({reason}); make room there") from error


def _import_torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is missing, which reads and writes .pth files: pip install 'torch>=2.6' "
            "(its CPU version will do)"
        ) from error
    return torch


def _load(torch: ModuleType, path: pathlib.Path) -> Any:
    try:
        with torch.serialization.safe_globals([*ALLOWED]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        refused = _REFUSED.search(str(error))
        if not (refused and _NUMPY_NUMBERS.fullmatch(refused.group(1))):
            raise
    # A mean that numpy computed was saved as one of its numbers.
    with torch.serialization.safe_globals([*ALLOWED, *_number_stand_ins()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _number_stand_ins() -> Iterator[tuple[Any, str]]:
    """What answers instead of numpy's functions, by their names: they make Python's numbers."""
    yield _NumberType, "numpy.dtype"
    for module in ("numpy.core", "numpy._core"):
        yield _number, f"{module}.multiarray.scalar"


class _NumberType:
    """`numpy.dtype`, of plain numbers only."""

    def __init__(self, name: str, *align_and_copy: Any):
        if not re.fullmatch(r"[?]|[biuf][0-9]+", name):
            raise ValueError(f"a number of type {name!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        self.value = self.value.newbyteorder(state[1])


def _number(dtype: _NumberType, data: bytes) -> int | float | bool:
    return np.frombuffer(data, dtype.value, count=1)[0].item()


def _first_bytes(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not start:
        raise InputError(f"{path}: is empty; download or copy it again")
    return start


def _reason(start: bytes, error: Exception) -> str:
    refused = _REFUSED.search(str(error))
    if refused:
        return (
            f"refused: it asks for {refused.group(1)}, and nothing of it was run; a checkpoint "
            "holds tensors, containers, numbers, text and one argparse.Namespace"
        )
    if start.startswith((_ZIP, _LEGACY)):
        return (
            f"is truncated or damaged ({_first_sentence(error)}); download or copy it again, and "
            "compare its size"
        )
    return f"is not a PyTorch checkpoint (it starts with {start[:8]!r})"


def _first_sentence(error: Exception) -> str:
    text = re.split(r"\.\s", str(error))[0].strip()[:120]
    return text or type(error).__name__


def _with_arrays(torch: ModuleType, item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        return _array(torch, item)
    if isinstance(item, Mapping):
        return {key: _with_arrays(torch, value) for key, value in item.items()}
    return item


def _array(torch: ModuleType, tensor: Any) -> Any:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        return tensor
    dtype = torch.float32 if tensor.is_floating_point() else torch.int64
    return tensor.detach().to(dtype).numpy()


def _with_tensors(torch: ModuleType, item: Any) -> Any:
    if isinstance(item, Mapping) and all(isinstance(value, np.ndarray) for value in item.values()):
        return OrderedDict((key, torch.from_numpy(np.array(value))) for key, value in item.items())
    return item
