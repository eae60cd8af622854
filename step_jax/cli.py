"""How a command ends: one clear line and an exit status, never a traceback for bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from absl import flags

from step_jax.errors import InputError

INTERRUPTED = 130  # the shell's convention for SIGINT: 128 + 2


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits: 0 (or what `main` returns), 1 on bad input, 130 on Ctrl-C."""
    try:
        status = main() or 0
    except (InputError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.stdout.flush()
    sys.exit(status)


def run_with_flags(main: Callable[[], int | None]) -> NoReturn:
    """As `run_command`, after parsing the command line by absl's flags and ml_collections."""

    def parse_and_run() -> int | None:
        try:
            flags.FLAGS(sys.argv)
        except (flags.Error, AttributeError, KeyError, TypeError) as error:
            # ml_collections raises Python's own errors for keys that a configuration lacks, and
            # suggests the nearest one.
            text = str(error.args[0] if error.args else error).replace("\\n", " ")
            raise InputError(f"command line: {text} (--helpshort lists the flags)") from error
        return main()

    run_command(parse_and_run)


def _one_line(error: Exception) -> str:
    """An error's text folded into one line, so that logs stay one line per failure."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
