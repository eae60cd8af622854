"""Keeps some windows of a tubelet table, as if it had been made with a larger stride.

    python -m benchmarks.claims.thinning --input TUBELETS --stride 25 --output TUBELETS

Detectors of longer windows have more of them at the same stride, and a frame's best score is then
one of more. So thinned, they have as many as others.
"""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import replace

from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.replacing import check_outputs
from step_jax.tubelet_table import TubeletRows, iter_tubelet_videos, read_tubelet_header
from step_jax.tubelet_writer import TubeletWriter


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims.thinning", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--input", type=pathlib.Path, required=True, help="a tubelet table")
    parser.add_argument("--stride", type=int, required=True, help="frames between windows")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the table to make")
    arguments = parser.parse_args()
    check_outputs([arguments.output], inputs=[arguments.input])
    header = read_tubelet_header(arguments.input)
    if arguments.stride < 1 or arguments.stride % header.stride:
        raise InputError(
            f"--stride {arguments.stride}: expected a multiple of the table's, {header.stride}"
        )
    with TubeletWriter(
        arguments.output, **vars(replace(header, stride=arguments.stride))
    ) as writer:
        for rows in iter_tubelet_videos(arguments.input):
            writer.append_rows(thinned(rows, arguments.stride))
    print(arguments.output)


def thinned(rows: TubeletRows, stride: int) -> TubeletRows:
    """One video's tubelets of the windows at multiples of `stride`, and of the last."""
    return rows.take((rows.start % stride == 0) | (rows.start == rows.start.max()))


if __name__ == "__main__":
    run_command(main)
