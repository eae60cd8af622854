"""Whole runs on any number of devices, in any number of parts: the same losses and parameters."""

import jax
import numpy as np
import pytest
import tiny_run

from step_jax.inference import load_predictor
from step_jax.training_log import read_log

STEPS, BATCH = 20, 8


def trained(squares, workdir, cache, *, devices, **changes):
    """(losses of all steps, parameters after the last) of a run of `train.py`."""
    changes = {"train__batch_size": BATCH, "train__steps": STEPS, **changes}
    flags = tiny_run.flags(squares, workdir=workdir, train__checkpoint_every_steps=STEPS, **changes)
    process = tiny_run.start("train.py", *flags, cache=cache, devices=devices)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    variables = load_predictor(workdir).variables  # on four devices, whatever saved them
    parameters = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(variables)]
    return np.array([line["loss"] for line in read_log(workdir)]), np.concatenate(parameters)


@pytest.mark.slow
def test_devices_parts_and_recomputation_make_no_difference(squares, compilation_cache, tmp_path):
    """Beside the devices, what shares the batch or the memory in another way."""
    ways = {
        "one": {"devices": 1},
        "two": {"devices": 2},
        "four": {"devices": 4},
        "eight": {"devices": 8},
        "parts": {"devices": 1, "train__accumulate": 4},
        "both": {"devices": 2, "train__accumulate": 2, "model__remat": "all"},
    }
    results = {
        name: trained(squares, tmp_path / name, compilation_cache, **way)
        for name, way in ways.items()
    }
    losses, parameters = results.pop("one")
    assert len(losses) == STEPS
    assert losses[-3:].mean() < losses[:3].mean()
    for name, (others, found) in results.items():
        np.testing.assert_allclose(others, losses, rtol=1e-3, err_msg=name)
        difference = np.linalg.norm(found - parameters) / np.linalg.norm(parameters)
        assert difference < 1e-3, name
