"""Where a value that is not finite comes from: the first operation that made one of finite values.

The function is compiled with an eye on every intermediate value. From an output that is not finite
the trace then goes back over inputs that are not, until there are none: so infinities that a mask
takes out again, and that do no harm, are not what is found.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from step_jax.tree_paths import by_path

PACKAGE = pathlib.Path(__file__).parent

# Primitives that are no more than their inner function, by the parameter that holds it.
_INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}

# Primitives that give the values that they are given; there is nothing to see in them.
_MOVES = ("broadcast_in_dim", "copy", "reshape", "rev", "squeeze", "stop_gradient", "transpose")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What made a value that is not finite.

    Attributes:
      value: "nan" or "inf".
      what: an operation, `log` say, or the path of an input that is not finite as it is given.
      where: file, line and function of this package; "" where that is not known, or of an input.
      module: the part of the model that was at work, "" outside.
    """

    value: str
    what: str
    where: str = ""
    module: str = ""

    def __str__(self) -> str:
        if not self.where:
            return f"{self.value} in {self.what}"
        of = f" of {self.module}" if self.module else ""
        return f"{self.value} from {self.what}{of} at {self.where}"


def find_origin(function: Callable, *arguments: Any) -> Origin | None:
    """Of the first output of `function(*arguments)` that is not finite; None where all are.

    Args:
      function: pure; its outputs are looked at in their order as a flattened tree.
      arguments: pytrees of arrays.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    leaves = jax.tree.leaves(arguments)
    walk = _Walk()
    outputs: list[int] = []

    def peaks(*leaves: Any) -> list[Any]:
        walk.clear()
        inputs = [(leaf, walk.add(leaf, None, ())) for leaf in leaves]
        consts = [(const, walk.add(const, None, ())) for const in closed.consts]
        outputs[:] = [node for _, node in walk.run(closed.jaxpr, consts, inputs, scope="")]
        return walk.peaks

    found = np.array([np.float32(peak) for peak in jax.device_get(jax.jit(peaks)(*leaves))])
    names = list(by_path(arguments))
    return _trace_back(walk, outputs, np.isnan(found), np.isinf(found), names=names)


class _Walk:
    """Evaluates a jaxpr and its inner ones, and notes every value as a node of one graph."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        self.made_by: list[tuple[Any, str] | None] = []  # equation and scope; None of what is given
        self.sources: list[Sequence[int]] = []
        self.peaks: list[Any] = []  # the largest absolute value; that of a nan is nan

    def add(self, value: Any, made_by: tuple[Any, str] | None, sources: Sequence[int]) -> int:
        floating = jnp.issubdtype(getattr(value, "dtype", np.int32), jnp.inexact)
        self.peaks.append(jnp.max(jnp.abs(value), initial=0) if floating and value.size else 0.0)
        self.made_by.append(made_by)
        self.sources.append(sources)
        return len(self.sources) - 1

    def add_literal(self, value: Any) -> int:
        """A number that the function itself has."""
        node = self.add(None, None, ())
        self.peaks[node] = np.abs(np.asarray(value, np.float32)).max(initial=0)
        return node

    def run(
        self, jaxpr: Any, consts: Sequence[tuple], inputs: Sequence[tuple], *, scope: str
    ) -> list[tuple]:
        """(value, node) of each output; `scope` is that of the jaxpr's caller."""
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

        def read(atom: Any) -> tuple:
            if isinstance(atom, core.Literal):
                return atom.val, self.add_literal(atom.val)
            return known[atom]

        for equation in jaxpr.eqns:
            inner = f"{scope}/{equation.source_info.name_stack}"
            outputs = self._outputs(jaxpr, equation, read, scope=inner)
            known |= zip(equation.outvars, outputs, strict=True)
        return list(map(read, jaxpr.outvars))

    def _outputs(
        self, jaxpr: Any, equation: Any, read: Callable[[Any], tuple], *, scope: str
    ) -> list[tuple]:
        inputs = list(map(read, equation.invars))
        inner = equation.params.get(_INNER.get(equation.primitive.name, ""))
        if inner is not None:
            closed = isinstance(inner, core.ClosedJaxpr)
            consts = [(each, self.add(each, None, ())) for each in inner.consts] if closed else []
            return self.run(inner.jaxpr if closed else inner, consts, inputs, scope=scope)
        free = [atom for atom in equation.invars if not isinstance(atom, core.Literal)]
        alone = jaxpr.replace(constvars=[], invars=free, outvars=equation.outvars, eqns=[equation])
        values = jax.core.eval_jaxpr(alone, [], *(read(atom)[0] for atom in free))
        sources = [node for _, node in inputs]
        if equation.primitive.name in _MOVES:
            return [(values[0], sources[0])]
        return [(value, self.add(value, (equation, scope), sources)) for value in values]


def _trace_back(
    walk: _Walk, outputs: Sequence[int], has_nan: np.ndarray, has_inf: np.ndarray, *, names: list
) -> Origin | None:
    bad = has_nan | has_inf
    node = next((node for node in outputs if bad[node]), None)
    if node is None:
        return None
    while sources := [each for each in walk.sources[node] if bad[each]]:
        node = next((each for each in sources if has_nan[each]), sources[0])
    value = "nan" if has_nan[node] else "inf"
    if walk.made_by[node] is None:
        return Origin(value, names[node] if node < len(names) else "a constant")
    equation, scope = walk.made_by[node]
    return Origin(value, equation.primitive.name, _place(equation), _module(scope))


def _place(equation: Any) -> str:
    """The line of this package that asked for the operation, or the one it is the gradient of."""
    frames = equation.source_info.traceback.frames if equation.source_info.traceback else []
    for frame in frames:
        path = pathlib.Path(frame.file_name)
        if path.is_relative_to(PACKAGE) and path != pathlib.Path(__file__):
            name = path.relative_to(PACKAGE.parent)
            return f"{name}:{frame.line_num} ({frame.function_name.rpartition('.')[2]})"
    return "an unknown place"


def _module(scope: str) -> str:
    """heads_0/classifier of `vmap(jvp(StepDetector.refine))/heads_0/jit(relu)/classifier`, say."""
    parts = re.sub(r"\w*jit\([^()]*\)|\w+\(|\)", "", scope).split("/")
    return "/".join(part for part in parts if re.fullmatch(r"[a-z]\w*", part))
