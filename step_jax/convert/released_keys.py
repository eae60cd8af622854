"""The released checkpoints' keys beside our paths, in their order."""

from __future__ import annotations

import dataclasses

from step_jax.convert.layouts import CONV2D, CONV3D, Flattened
from step_jax.convert.mapping import Entry, biased_entries, mixed_entries, unit_entries

GLOBAL_FEATURES = 256
CONTEXT_FEATURES = 1024

# Their layers are numbered; 1, 4 and 7 are poolings.
_BACKBONE_UNITS = {0: "conv_1a", 2: "conv_2b", 3: "conv_2c"}
_BACKBONE_MIXED = {
    5: "mixed_3b",
    6: "mixed_3c",
    8: "mixed_4b",
    9: "mixed_4c",
    10: "mixed_4d",
    11: "mixed_4e",
    12: "mixed_4f",
}
_FIRST_BLOCK = {"conv1": "shortcut", "conv2": "reduce", "conv3": "conv", "conv4": "expand"}
_LATER_BLOCK = {"conv1": "reduce", "conv2": "conv", "conv3": "expand"}
_REGRESSORS = {"local_reg": "box", "neighbor_reg1": "box_before", "neighbor_reg2": "box_after"}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What differs between released checkpoints.

    Attributes:
      steps: S; there is a `det_net` for each.
      context: whether there is a `context_net`.
      local: whether heads have the local branch; the classification pre-training's has not.
    """

    steps: int
    context: bool = True
    local: bool = True

    def entries(self) -> list[Entry]:
        """Of all nets, the keys as NET/KEY."""
        nets = {"base_net": _backbone()}
        if self.context:
            nets["context_net"] = _context()
        for step in range(self.steps):
            nets[f"det_net{step}"] = self._head(f"heads_{step}")
        return [
            entry._replace(key=f"{net}/{entry.key}")
            for net, entries in nets.items()
            for entry in entries
        ]

    def _head(self, path: str) -> list[Entry]:
        classifier = Flattened(
            GLOBAL_FEATURES, unit_axes=3, context=CONTEXT_FEATURES if self.context else 0
        )
        return [
            *mixed_entries("i3d_conv.0", f"{path}/mixed_5b"),
            *mixed_entries("i3d_conv.1", f"{path}/mixed_5c"),
            *biased_entries("downsample", f"{path}/squeeze", CONV3D),
            *biased_entries("global_cls", f"{path}/classifier", classifier),
            *(_local(path) if self.local else []),
        ]


def _backbone() -> list[Entry]:
    return [
        entry
        for layers, entries in ((_BACKBONE_UNITS, unit_entries), (_BACKBONE_MIXED, mixed_entries))
        for number, name in layers.items()
        for entry in entries(f"module.base_model.{number}", f"backbone/{name}")
    ]


def _context() -> list[Entry]:
    return [
        *mixed_entries("module.i3d_conv_context.1", "scene_context/mixed_5b"),
        *mixed_entries("module.i3d_conv_context.2", "scene_context/mixed_5c"),
    ]


def _local(path: str) -> list[Entry]:
    convolutions = [
        Entry(f"local_conv.{block}.{theirs}.weight", f"{path}/local_{block}/{ours}/kernel", CONV2D)
        for block, names in enumerate((_FIRST_BLOCK, _LATER_BLOCK, _LATER_BLOCK))
        for theirs, ours in names.items()
    ]
    regressors = [
        entry
        for theirs, ours in _REGRESSORS.items()
        for entry in biased_entries(theirs, f"{path}/{ours}", Flattened(GLOBAL_FEATURES))
    ]
    squeeze = biased_entries("downsample2", f"{path}/local_squeeze", CONV2D)
    return [*convolutions, *squeeze, *regressors]
