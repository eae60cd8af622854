"""The benchmark's videos, flow and records, made by the commands that users have."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from benchmarks.claims.matrix import FLOW_FRAMES, Scale
from benchmarks.claims.runs import Data
from input_pipeline import records
from step_jax.errors import InputError

ANNOTATIONS = pathlib.Path("moving_actors", "annotations.json")  # in the folder of the data

# So that the longest window of all rows lies in a record: 30 frames that start in its core, and 18
# before and 23 after those of a fourth extension.
_HALO_BEFORE, _HALO_AFTER = 18, 29


def prepare(scale: Scale, folder: pathlib.Path) -> Data:
    """Makes what is missing.

    Raises InputError where a command fails, after what it says, or the data are of another scale.
    """
    annotations, flow, made = folder / ANNOTATIONS, folder / "flow", folder / "records"
    videos = annotations.parent
    train, test = scale.videos
    if not (made / "records.json").exists():
        _call(
            "input_pipeline.moving_actors", "--output", videos, "--size", scale.size,
            "--train_videos", train, "--test_videos", test,
        )  # fmt: skip
        _call("step_jax.flow", "--method", "dis", "--input", videos / "videos", "--output", flow)
        _call(
            "input_pipeline.prepare", "--annotations", annotations, "--flow", flow,
            "--flow_frames", FLOW_FRAMES, "--halo_before", _HALO_BEFORE,
            "--halo_after", _HALO_AFTER, "--output", made,
        )  # fmt: skip
    info = records.load_info(made)
    found = tuple(info.splits[split].num_videos for split in ("train", "test"))
    if found != scale.videos:
        raise InputError(
            f"{folder}: holds {found} training and test videos; the scale {scale.name!r} has "
            f"{scale.videos}; give it a folder of its own"
        )
    return Data(annotations, made, info.digest)


def _call(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print(f"\n== python {' '.join(command[1:])}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise InputError(f"{module} ended with exit status {status}; the same command continues")
