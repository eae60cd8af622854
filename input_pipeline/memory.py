"""How the input pipeline's memory grows with the data set: the same records again and again.

python -m input_pipeline.memory --records DIR --split train [--times 1 4 16] [--num_windows 1000]

Every size is measured in a process of its own, which makes training batches of a folder whose
record files are links to those of DIR, each of them several times.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.records import RecordsIndex
from step_jax import cli


def repeat_records(records_dir: str | os.PathLike, split: str, output: pathlib.Path, *, times: int):
    """Makes a folder of records whose one split has those of another folder `times` times."""
    info, index = records.load_info(records_dir), records.load_index(records_dir, split)
    (output / "clip_records").mkdir(parents=True)
    shards = []
    for time in range(times):
        for number, (path, count) in enumerate(records.shard_paths(records_dir, split)):
            name = f"clip_records/{time}-{number}.tfrecord"
            (output / name).symlink_to(pathlib.Path(path).resolve())
            shards.append((name, count))
    own = dataclasses.replace(
        info.splits[split],
        num_videos=times * info.splits[split].num_videos,
        num_records=times * info.splits[split].num_records,
        num_frames=times * info.splits[split].num_frames,
        num_tubes=times * info.splits[split].num_tubes,
        num_bytes=times * info.splits[split].num_bytes,
        shards=tuple(shards),
    )
    records.write_index(output, {split: repeat_index(index, times)})
    records.write_info(output, dataclasses.replace(info, splits={split: own}))


def repeat_index(index: RecordsIndex, times: int) -> RecordsIndex:
    """The index of the same records several times, those of each time of videos of their own."""
    columns = {
        name: np.concatenate([column] * times)
        for name, column in vars(index).items()
        if isinstance(column, np.ndarray)
    }
    num_videos = len(index.video_ids)
    time = np.repeat(np.arange(times), len(index.record_video))
    columns["record_video"] = columns["record_video"] + (num_videos * time).astype(np.int32)
    columns["runs"] = columns["runs"].copy()
    columns["runs"][:, 0] += num_videos * np.repeat(np.arange(times), len(index.runs))
    return RecordsIndex(**columns)


def index_bytes(index: RecordsIndex) -> int:
    """What the index takes in memory."""
    columns = [getattr(index, column.name) for column in dataclasses.fields(index)]
    return sum(column.nbytes for column in columns)


def measure(records_dir: str | os.PathLike, split: str, *, times: int, options: list[str]) -> dict:
    """Records, bytes of the index and the peak memory of a process that makes training batches."""
    with tempfile.TemporaryDirectory() as folder:
        repeated, result = pathlib.Path(folder) / "records", pathlib.Path(folder) / "result.json"
        repeat_records(records_dir, split, repeated, times=times)
        command = [sys.executable, "-m", "input_pipeline.throughput", "--records", str(repeated)]
        subprocess.run(
            [*command, "--split", split, "--json", str(result), *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        index = records.load_index(repeated, split)
        peak = json.loads(result.read_text())["peak_memory_mb"]
    return {"records": index.num_records, "index_bytes": index_bytes(index), "peak_mb": peak}


def main(argv: Sequence[str] | None = None):
    """The command; options that it does not know are those of `input_pipeline.throughput`."""
    parser = argparse.ArgumentParser(prog="python -m input_pipeline.memory")
    parser.add_argument("--records", required=True, help="folder of clip records")
    parser.add_argument("--split", default="train")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    arguments, options = parser.parse_known_args(argv)
    print("records    index, bytes a record    peak memory, MB")
    for times in arguments.times:
        row = measure(arguments.records, arguments.split, times=times, options=options)
        bytes_a_record = row["index_bytes"] / row["records"]
        print(f"{row['records']:7d}{bytes_a_record:26.0f}{row['peak_mb']:20d}", flush=True)


if __name__ == "__main__":
    cli.run_command(main)
