"""AVA's label maps: which actions count, their names and kinds.

Two dialects of the same text form: `item { name: "stand" id: 12 }`, of the 60 classes that the
benchmark counts, and `label { name: "stand" label_id: 12 label_type: PERSON_MOVEMENT }`, of all 80.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from step_jax.annotations.ava_csv import NUM_ACTIONS
from step_jax.errors import InputError

KINDS = ("pose", "object interaction", "person interaction")
_KIND_OF_TYPE = dict(
    zip(("PERSON_MOVEMENT", "OBJECT_MANIPULATION", "PERSON_INTERACTION"), KINDS, strict=True)
)
_LAST_POSE, _LAST_OBJECT = 14, 63  # ids; persons follow

_TOKEN = re.compile(
    r"(?P<space>\s+|#[^\n]*)|(?P<number>-?\d+)|(?P<word>[A-Za-z_]\w*)|(?P<mark>[{}:;,])"
    r"|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
)


@dataclass(frozen=True)
class LabelMap:
    """The C classes of a label map, by ascending id: class c of a model is `ids[c]`.

    kinds: of each class one of KINDS.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def classes(self, action_id: np.ndarray) -> np.ndarray:
        """Action ids to classes: int16 [...], -1 for an action that the map lacks."""
        table = np.full(NUM_ACTIONS + 1, -1, np.int16)
        table[list(self.ids)] = np.arange(len(self.ids))
        return table[action_id]


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def read_label_map(path: str | os.PathLike) -> LabelMap:
    """Reads a label map of either dialect.

    Raises InputError with the line for what is not of that form, an entry without name or id, an
    id that is no action of AVA's or occurs twice.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read as a label map: {reason}") from error
    found: dict[int, tuple[str, str]] = {}
    for line, entry in _entries(path, text):
        action, name = _action_id(path, line, entry), entry.get("name")
        if not name:
            raise InputError(f"{path}:{line}: the entry of id {action} has no name")
        if action in found:
            raise InputError(f"{path}:{line}: id {action} occurs twice; expected each id once")
        found[action] = (name, _kind(path, line, action, entry.get("label_type")))
    if not found:
        raise InputError(f"{path}: has no entries; expected item {{ name: ... id: ... }}")
    ids = tuple(sorted(found))
    return LabelMap(ids, tuple(found[i][0] for i in ids), tuple(found[i][1] for i in ids))


def _action_id(path: pathlib.Path, line: int, entry: dict[str, str]) -> int:
    text = entry.get("id", entry.get("label_id"))
    if text is None:
        name = f" {entry['name']!r}" if "name" in entry else ""
        raise InputError(
            f"{path}:{line}: entry{name} has no id; expected id: or label_id: in every entry"
        )
    if not text.isdecimal() or not 1 <= int(text) <= NUM_ACTIONS:
        raise InputError(f"{path}:{line}: id is {text}; expected 1 to {NUM_ACTIONS}")
    return int(text)


def _kind(path: pathlib.Path, line: int, action: int, label_type: str | None) -> str:
    if label_type is None:
        return KINDS[(action > _LAST_POSE) + (action > _LAST_OBJECT)]
    if label_type not in _KIND_OF_TYPE:
        raise InputError(
            f"{path}:{line}: label_type is {label_type}; expected one of {', '.join(_KIND_OF_TYPE)}"
        )
    return _KIND_OF_TYPE[label_type]


def _entries(path: pathlib.Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The line and the fields of every `item { ... }` or `label { ... }`."""
    tokens = _tokens(path, text)
    while (token := next(tokens)).kind != "end":
        if token.text in (";", ","):
            continue
        _expect(path, token, ("item", "label"))
        _expect(path, next(tokens), ("{",))
        yield token.line, _fields(path, tokens)


def _fields(path: pathlib.Path, tokens: Iterator[_Token]) -> dict[str, str]:
    """What stands up to the closing brace, as texts."""
    entry: dict[str, str] = {}
    while (key := next(tokens)).text != "}":
        if key.text in (";", ","):
            continue
        if key.kind != "word":
            _expect(path, key, ("a field's name", "}"))
        _expect(path, next(tokens), (":",))
        value = next(tokens)
        if value.kind not in ("number", "word", "text"):
            _expect(path, value, ("a value",))
        if key.text in entry:
            raise InputError(f"{path}:{key.line}: {key.text} occurs twice in one entry")
        entry[key.text] = value.text
    return entry


def _tokens(path: pathlib.Path, text: str) -> Iterator[_Token]:
    """The tokens without spaces and comments, and then again and again the end."""
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:].splitlines()[0]
            raise InputError(f"{path}:{line}: {rest[:40]!r} is no label map's text")
        kind, found = match.lastgroup, match.group()
        if kind == "text":
            yield _Token(kind, re.sub(r"\\(.)", r"\1", found[1:-1]), line)
        elif kind != "space":
            yield _Token(kind, found, line)
        line += found.count("\n")
        position = match.end()
    while True:
        yield _Token("end", "the end of the file", line)


def _expect(path: pathlib.Path, token: _Token, expected: tuple[str, ...]) -> None:
    if token.kind == "text" or token.text not in expected:
        raise InputError(
            f"{path}:{token.line}: found {token.text!r}; expected {' or '.join(expected)}"
        )
