"""`python -m input_pipeline.moving_actors --output DIR`: renders the embedded benchmark.

Interrupted or repeated, it renders only what is missing. With the defaults: 384 videos of 96 to 120
frames, about 130 MB.
"""

from __future__ import annotations

import argparse
import pathlib

from input_pipeline.moving_actors import VERSION
from input_pipeline.moving_actors.dataset import MIN_SIZE, build
from step_jax.cli import run_command


def main():
    arguments = _parse()
    counts = {"train": arguments.train_videos, "test": arguments.test_videos}
    rendered = build(
        arguments.output,
        seed=arguments.seed,
        size=arguments.size,
        counts=counts,
        workers=arguments.workers,
    )
    done = f"rendered {rendered} videos" if rendered else "up to date, nothing to render"
    print(f"{arguments.output / 'annotations.json'}: {done} ({sum(counts.values())} in all)")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.moving_actors",
        description=f"Renders the moving_actors benchmark, version {VERSION}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder, new or resumed")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="of everything random")
    parser.add_argument("--train_videos", type=_at_least(0), default=320, help="multiple of 16")
    parser.add_argument("--test_videos", type=_at_least(0), default=64, help="multiple of 16")
    parser.add_argument("--size", type=_at_least(MIN_SIZE), default=96, help="frame side, pixels")
    parser.add_argument("--workers", type=_at_least(1), default=2, help="processes")
    return parser.parse_args()


def _at_least(lowest: int):
    def integer(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is too small; expected {lowest} or more")
        return value

    return integer


if __name__ == "__main__":
    run_command(main)
