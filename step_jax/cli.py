"""How a command ends: one clear line and an exit status, never a traceback for bad input."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags

from step_jax import storage
from step_jax.errors import InputError

INTERRUPTED = 130  # the shell's convention for SIGINT: 128 + 2


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits: 0 (or what `main` returns), 1 on bad input, 130 on Ctrl-C."""
    # Orbax, TFDS and gcsfs log what they also raise, with tracebacks, and remarks that no user can
    # use.
    for name in ("absl", "asyncio", "gcsfs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        status = main() or 0
    except (InputError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        status = 1
    except Exception as error:
        if not storage.is_trouble(error):
            raise
        print(f"error: object store: {_one_line(error)} (docs/pods.md)", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.stdout.flush()
    sys.exit(status)


def run_with_flags(
    main: Callable[[], int | None], *, define: Callable[[], None] = lambda: None
) -> NoReturn:
    """As `run_command`, after parsing the command line by absl's flags and ml_collections.

    `define` declares the flags; those of a configuration that is there already are parsed by that.
    """

    def parse_and_run() -> int | None:
        app.define_help_flags()
        try:
            define()
            surplus = flags.FLAGS(sys.argv)[1:]
        except (flags.Error, AttributeError, KeyError, TypeError) as error:
            # ml_collections raises Python's own errors for keys that a configuration lacks.
            raise InputError(f"{_flag_error(error, sys.argv[1:])} (--help lists flags)") from error
        if surplus:
            raise InputError(f"{surplus[0]!r}: unexpected argument; flags start with --")
        return main()

    run_command(parse_and_run)


def _flag_error(error: Exception, arguments: Sequence[str]) -> str:
    """The error's text behind the argument that it is about.

    ml_collections names the last part of a key alone, and suggests the nearest one.
    """
    text = str(error.args[0] if error.args else error)
    if "Traceback" in text:  # a configuration file raised, of an unknown variant say
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = text.replace("\\n", " ").replace("\\", "")
    unknown = re.search(r"'(\w+)'\s+(Did you mean.*?)'?$", text)
    if not unknown:
        return f"command line: {text}"
    key, suggestion = unknown.groups()
    names = (argument.partition("=")[0] for argument in arguments)
    culprit = next((name for name in names if key in name.split(".")), key)
    return f"{culprit}: no such key. {suggestion}"


def _one_line(error: Exception) -> str:
    """An error's text folded into one line, so that logs stay one line per failure."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__
