"""Checks a folder of clip records whole: every file, every record, every picture.

    python -m input_pipeline.check_records --records DIR

For use after a copy. Prints one line for each damaged record; the exit status is 1 if there is any.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import tqdm

from input_pipeline import records
from input_pipeline.accelerators import hide_accelerators
from step_jax.cli import run_command
from step_jax.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}; expected 1 or more")
    info = records.load_info(arguments.records)  # fail before TensorFlow's seconds
    splits = [arguments.split] if arguments.split else list(info.splits)
    hide_accelerators()
    damaged = 0
    for split in splits:
        texts = check_split(arguments.records, split, workers=arguments.workers)
        for text in texts:
            tqdm.tqdm.write(text)
            damaged += 1
    print(f"{arguments.records}: damaged: {damaged}")
    return 1 if damaged else 0


def check_split(records_dir: str, split: str, *, workers: int) -> Iterator[str]:
    """A line for each damaged record, file by file.

    Args:
      records_dir, split: as everywhere.
      workers: threads, of which each reads a file.

    Raises InputError where the folder is not one of complete records.
    """
    from input_pipeline.damage import name_of  # TensorFlow
    from input_pipeline.examination import Examination
    from input_pipeline.identity import Identity
    from input_pipeline.salvage import Salvage

    info, index = records.load_info(records_dir), records.load_index(records_dir, split)
    shards = records.shard_paths(records_dir, split, allow_missing=True)
    examination = Examination(info, Identity(index, info))
    with tqdm.tqdm(desc=split, unit="record", total=index.num_records) as progress:

        def check(path: str, first: int, count: int) -> list[str]:
            salvage, texts = Salvage(), []
            for record, data in salvage.read(path.encode(), first, first + count, 0, True):
                reason = salvage.reasons.get(record) or examination.find(record, data)
                if reason:
                    texts.append(f"{name_of(record, index, shards)}: {reason}")
                progress.update()
            surplus = salvage.surplus.get(path, 0)
            return texts + ([f"{path}: holds {surplus} records too many"] if surplus else [])

        jobs, before = [], 0
        for path, count in shards:
            jobs.append((path, before, count))
            before += count
        with ThreadPoolExecutor(workers) as pool:
            for texts in pool.map(check, *zip(*jobs, strict=True)):
                yield from texts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.check_records", description="Check clip records whole."
    )
    parser.add_argument("--records", required=True, help="folder of clip records")
    parser.add_argument("--split", help="one of its splits; all, if left out")
    parser.add_argument("--workers", type=int, default=4, help="threads (default: 4)")
    return parser


if __name__ == "__main__":
    run_command(main)
