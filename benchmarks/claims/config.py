"""A row of the matrix as a configuration, for `train.py`.

    python train.py --config=benchmarks/claims/config.py:small/fig5_anticipate --workdir=DIR \
        --config.data.records=DIR --config.data.annotations=FILE
"""

from __future__ import annotations

from ml_collections import ConfigDict

from benchmarks import configuration
from benchmarks.claims import matrix
from configs import moving_actors


def get_config(name: str) -> ConfigDict:
    """That of "SCALE/ROW".

    Raises:
      ValueError: there is no such scale or row.
    """
    scale, _, row = name.partition("/")
    if scale not in matrix.SCALES or row not in matrix.ROWS:
        raise ValueError(
            f"{name!r}: expected SCALE/ROW, one of {', '.join(matrix.SCALES)} and one of "
            f"{', '.join(matrix.ROWS)}"
        )
    return configuration.changed(moving_actors.get_config(), matrix.SCALES[scale].changes_of(row))
