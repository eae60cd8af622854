"""What was measured of each case, a file for each, which a later run goes on from."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.scaling.cases import Case
from step_jax.files import write_json


class Measurement:
    """One case's numbers so far.

    Attributes:
      case: what is measured.
      seconds: of a step, one number a round.
      cpu_seconds: the processor's, of all cores together, likewise.
      told: what the process said of itself: `fits`, `devices`, `frames`, `gflop`, `temporary_mib`,
        `peak_mib`, `before_mib`, `first_call_seconds`; memory and operations of all devices.
    """

    def __init__(self, case: Case, path: pathlib.Path, digest: str):
        self.case, self._path, self._digest = case, path, digest
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.told: dict[str, Any] = {}
        if path.exists():
            saved = json.loads(path.read_text())
            if saved["digest"] == digest:
                self.seconds, self.cpu_seconds = saved["seconds"], saved["cpu_seconds"]
                self.told = saved["told"]

    def is_complete(self, rounds: int) -> bool:
        return len(self.seconds) >= rounds or not self.fits

    @property
    def fits(self) -> bool:
        return self.told.get("fits", True)

    def tell(self, told: Mapping[str, Any]) -> None:
        self.told |= told
        self._save()

    def add(self, answer: Mapping[str, Any]) -> None:
        """One round's."""
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])
        self.tell({"peak_mib": answer["peak_mib"]})

    def _save(self) -> None:
        write_json(self._path, {"digest": self._digest, **self.to_json()})

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case.to_json(),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "told": self.told,
        }

    def row(self, *, by: str = "seconds", peak_tflops: float | None = None) -> dict[str, Any]:
        """The numbers of the table and the picture.

        `cost` is that of a clip, with its least and its most of all rounds: by "seconds", or by
        "cpu_seconds", which other programs on the same cores hardly change.
        """
        case = self.case
        row = {"name": case.name, "sweep": case.sweep, "series": case.series, "value": case.value,
               "batch": case.batch, "fits": self.fits}  # fmt: skip
        if not self.fits or not self.seconds:
            return row
        row |= {
            "devices": self.told["devices"],
            "seconds": (seconds := statistics.median(self.seconds)),
            "cpu_seconds": statistics.median(self.cpu_seconds),
            "cost": statistics.median(costs := [one / case.batch for one in getattr(self, by)]),
            "least_cost": min(costs),
            "most_cost": max(costs),
            "clips_per_second": case.batch / seconds,
            "gflop_per_clip": self.told["gflop"] / case.batch,
            "temporary_mib": self.told["temporary_mib"],
            "peak_mib": self.told["peak_mib"],
        }
        if peak_tflops:
            peak = peak_tflops * 1e12 * self.told["devices"]
            row["share_of_peak"] = self.told["gflop"] * 1e9 / seconds / peak
        return row
