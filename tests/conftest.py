"""What every test file shares: four virtual CPU devices, and where the test data lies."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)  # has an effect only before the first array is made


@pytest.fixture(scope="session")
def data_dir():
    """The folder of the small reference files, `tests/data`."""
    return Path(__file__).parent / "data"
