"""Command-line flags from the fields of an options class, and back."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from typing import Any, TypeVar

Options = TypeVar("Options")


def add_flags(
    parser: argparse.ArgumentParser, options: type, *, title: str, prefix: str = ""
) -> None:
    """A flag `--PREFIXname` for each field of a dataclass, with its type and default.

    A field without a default gives a flag that may be left out: then `options_of` has None.
    """
    group = parser.add_argument_group(title)
    hints = typing.get_type_hints(options)
    for item in dataclasses.fields(options):
        kind = _plain_type(hints[item.name])
        missing = item.default is dataclasses.MISSING
        shown = "none" if missing or item.default is None else item.default
        kwargs: dict[str, Any] = {"default": None if missing else item.default}
        if kind is bool:
            kwargs["action"] = argparse.BooleanOptionalAction
        else:
            kwargs["type"] = kind
        group.add_argument(f"--{prefix}{item.name}", help=f"({shown})", **kwargs)


def options_of(
    arguments: argparse.Namespace, options: type[Options], *, prefix: str = ""
) -> Options | None:
    """The options that the flags of `add_flags` gave; None where one without a default is missing.

    Raises InputError as the class itself.
    """
    values = {f.name: getattr(arguments, prefix + f.name) for f in dataclasses.fields(options)}
    required = [f.name for f in dataclasses.fields(options) if f.default is dataclasses.MISSING]
    if any(values[name] is None for name in required):
        return None
    return options(**values)


def _plain_type(hint: Any) -> type:
    """`float` of `float` and of `float | None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = [one for one in typing.get_args(hint) if one is not type(None)]
    return hint
