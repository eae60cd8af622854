"""What the time until the first step is told to be."""

import time

import jax
import jax.numpy as jnp
import pytest

from step_jax.startup import Startup, process_seconds


def test_programs_are_counted_until_the_start_has_ended(tmp_path):
    startup = Startup(import_seconds=2.0)

    def compile_anew(number):
        jax.jit(lambda value: value * number + 17)(jnp.zeros(3))

    compile_anew(0.125)
    found = startup.programs
    assert found >= 1
    assert startup.from_cache == 0
    startup.end()
    compile_anew(0.25)
    assert startup.programs == found


def test_phases_follow_one_another():
    startup = Startup(import_seconds=2.0)
    time.sleep(0.02)
    startup.done("parameters")
    time.sleep(0.05)
    startup.skip(0.05)
    startup.done("first batch")
    startup.end()
    report = startup.report()
    assert list(report["phases"]) == ["import", "parameters", "first batch"]
    assert 0.02 <= report["phases"]["parameters"] < 5
    assert report["phases"]["first batch"] < 0.05
    assert report["seconds"] == pytest.approx(sum(report["phases"].values()))
    assert startup.text().startswith("first step after 2.0 s: import 2.0, parameters 0.0, first")


def test_age_of_the_process():
    age = process_seconds()
    assert age is None or 0 < age < 24 * 3600
    time.sleep(0.05)
    assert age is None or 0.04 <= process_seconds() - age < 5
