"""Runs a command on one core: python -m benchmarks.claims.pinned CORE COMMAND [ARGUMENT ...].

Before the command starts, so that JAX and tf.data count the cores that it has. A result then does
not depend on what runs beside it, to the last bit.
"""

import os
import sys

if __name__ == "__main__":
    core, *command = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    os.execv(command[0], command)
