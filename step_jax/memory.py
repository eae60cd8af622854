"""How much memory a program holds, on its devices and on the host."""

from __future__ import annotations

import pathlib
import platform
import resource

import jax

_MIB = 2**20
_STATM = pathlib.Path("/proc/self/statm")


def memory_mib() -> dict[str, float]:
    """Memory of this process in MiB, now and at its highest.

    `host_mib` and `host_peak_mib` are resident pages, all that there is to tell on CPUs;
    `host_mib` is missing where the system has no /proc. `device_mib` and `device_peak_mib` are the
    most that any local device's allocator has given away, missing where the backend keeps no count.
    """
    found = {"host_peak_mib": _peak_bytes() / _MIB}
    if _STATM.exists():
        found["host_mib"] = int(_STATM.read_text().split()[1]) * resource.getpagesize() / _MIB
    devices = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    for name, key in (("device_mib", "bytes_in_use"), ("device_peak_mib", "peak_bytes_in_use")):
        values = [stats[key] for stats in devices if key in stats]
        if values:
            found[name] = max(values) / _MIB
    return found


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak
