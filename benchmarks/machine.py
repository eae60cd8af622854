"""What a measurement ran on, and how much memory it took."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import resource

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def describe() -> dict:
    """Device, versions and load, JSON-ready."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def summary(described: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    return (
        f"{described['devices']} x {described['device']} ({described['processor']}, "
        f"{described['cores']} cores, load {described['load']:.1f}); "
        f"Python {described['python']}, {versions}"
    )


def _processor() -> str:
    """Its name, where Linux tells it."""
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_mib() -> float:
    """The most memory taken so far: of an accelerator, or on a CPU of this process."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return statistics["peak_bytes_in_use"] / 2**20
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def forget_peak() -> bool:
    """Lets `peak_mib` of a CPU start anew, so that compilation does not count; if that is possible.

    Linux alone can; an accelerator's peak does not contain compilation.
    """
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
