"""What is measured: sweeps, each a list of training steps that differ in one thing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import ucf101_24
from step_jax.errors import InputError
from step_jax.models.factory import PRECISIONS
from step_jax.models.remat import REMATS

Changes = Mapping[str, Any]  # key of the configuration -> value

VIRTUAL_DEVICES = (1, 2, 4, 8)
PROPOSALS = (11, 34, 109)
STEPS = (1, 2, 3, 4)
BATCHES = (1, 2, 4, 8, 16)
PLAIN = "plain jit"


class Hardware(NamedTuple):
    """Where it is measured. platform: JAX's name; devices: how many there are."""

    platform: str
    devices: int

    @property
    def is_cpu(self) -> bool:
        return self.platform == "cpu"


@dataclasses.dataclass(frozen=True)
class Case:
    """One training step to be timed.

    Attributes:
      sweep: what it belongs to.
      value: its place on the sweep's axis.
      batch: clips of a step, over all devices.
      series: the line of the picture that it is a point of.
      devices: virtual ones of a CPU, or real ones; 0: all there are.
      wrapper: "pmap", `parallel.data_parallel`; "jit", the same step without devices in mind.
      changes: to the configuration.
    """

    sweep: str
    value: float
    batch: int
    series: str = ""
    devices: int = 1
    wrapper: str = "pmap"
    changes: Changes = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its file, its own among all cases."""
        series = self.series.replace(",", "").replace(" ", "_")
        return "-".join(part for part in (self.sweep, series, f"{self.value:g}") if part)

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Case:
        return cls(**{**values, "changes": _with_tuples(values["changes"])})


def digest(config: ConfigDict, case: Case) -> str:
    """Of everything that decides what is measured, but for the code and the machine."""
    told = [config.to_json_best_effort(sort_keys=True), case.to_json()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def sweeps(config: ConfigDict, hardware: Hardware, wanted: Sequence[str]) -> dict[str, list[Case]]:
    """The cases of the sweeps that are `wanted` (none: all), without those that have none.

    Raises InputError for a sweep that there is not.
    """
    for name in wanted:
        if name not in SWEEPS:
            raise InputError(f"--sweeps {name}: expected some of {','.join(SWEEPS)}")
    planned = {name: SWEEPS[name](config, hardware) for name in wanted or SWEEPS}
    return {name: cases for name, cases in planned.items() if cases}


def _devices(config: ConfigDict, hardware: Hardware) -> list[Case]:
    """The same global batch on more and more devices; real ones also with the same share each."""
    counts = VIRTUAL_DEVICES
    if not hardware.is_cpu:
        counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= hardware.devices]
    each = config.train.batch_size
    batch = -(-each // counts[-1]) * counts[-1]
    cases = [Case("devices", 1, batch, series=PLAIN, wrapper="jit")]
    cases += [Case("devices", n, batch, devices=n) for n in counts]
    if not hardware.is_cpu:
        cases += [Case("devices", n, each * n, series="batch of each", devices=n) for n in counts]
    return cases


def _proposals(config: ConfigDict, hardware: Hardware) -> list[Case]:
    del hardware
    return [
        Case("proposals", number, config.train.batch_size, changes={"proposals": number})
        for number in PROPOSALS
    ]


def _steps(config: ConfigDict, hardware: Hardware) -> list[Case]:
    """S steps of the target clip's frames, or extended before every step but the first."""
    del hardware
    batch = config.train.batch_size
    return [
        Case("steps", number, batch, series, changes=ucf101_24.steps(number, extension=extension))
        for series, extension in (("not extended", "none"), ("extended", "anticipate"))
        for number in STEPS
    ]


def _window(config: ConfigDict, hardware: Hardware) -> list[Case]:
    """K, frames of the target clip, in thirds of the configuration's."""
    del hardware
    third = config.model.clip_frames // 3
    return [
        Case("window", frames, config.train.batch_size, changes={"model.clip_frames": frames})
        for frames in range(third, 5 * third + 1, third)
    ]


def _batch(config: ConfigDict, hardware: Hardware) -> list[Case]:
    del config, hardware
    return [Case("batch", batch, batch) for batch in BATCHES]


def _accumulate(config: ConfigDict, hardware: Hardware) -> list[Case]:
    """One batch in more and more parts."""
    del hardware
    batch = max(8, config.train.batch_size)
    return [
        Case("accumulate", parts, batch, changes={"train.accumulate": parts})
        for parts in (1, 2, 4, 8)
        if batch % parts == 0
    ]


def _remat(config: ConfigDict, hardware: Hardware) -> list[Case]:
    del hardware
    return [
        Case("remat", number, config.train.batch_size, name, changes={"model.remat": name})
        for number, name in enumerate(REMATS)
    ]


def _largest(config: ConfigDict, hardware: Hardware) -> list[Case]:
    """Batch 1 of every precision, with and without remat; `largest.py` goes on from there."""
    if hardware.is_cpu:
        return []  # which would swap, and then be killed, rather than say that it is full
    return [
        Case("largest", 1, 1, f"{precision}, {told}", changes={
            "model.precision": precision, "model.remat": remat})
        for precision in PRECISIONS
        for remat, told in (("none", "kept"), ("all", "computed again"))
    ]  # fmt: skip


SWEEPS: dict[str, Callable[[ConfigDict, Hardware], list[Case]]] = {
    "devices": _devices,
    "proposals": _proposals,
    "steps": _steps,
    "window": _window,
    "batch": _batch,
    "accumulate": _accumulate,
    "remat": _remat,
    "largest": _largest,
}


def _with_tuples(value: Any) -> Any:
    """What JSON made of tuples, undone."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
