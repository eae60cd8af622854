import numpy as np
import pytest

from step_jax import memory


def test_a_large_array_shows():
    before = memory.memory_mib()
    if "host_mib" not in before:
        pytest.skip("no /proc here")
    array = np.ones(64 * 2**20, np.uint8)
    after = memory.memory_mib()
    assert after["host_mib"] - before["host_mib"] == pytest.approx(64, abs=8)
    assert after["host_peak_mib"] >= after["host_mib"] - 8 > 0
    assert array[-1] == 1


def test_the_fullest_device_counts(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    mib = 2**20
    devices = [
        Device({"bytes_in_use": 10 * mib, "peak_bytes_in_use": 30 * mib}),
        Device({"bytes_in_use": 20 * mib, "peak_bytes_in_use": 25 * mib}),
        Device(None),
    ]
    monkeypatch.setattr(memory.jax, "local_devices", lambda: devices)
    found = memory.memory_mib()
    assert (found["device_mib"], found["device_peak_mib"]) == (20, 30)
    monkeypatch.setattr(memory.jax, "local_devices", lambda: devices[2:])
    assert not {"device_mib", "device_peak_mib"} & memory.memory_mib().keys()
