"""From nothing to a drawn video: renders, prepares, trains, evaluates, detects; `make demo`.

Each phase is a command of its own, printed before it runs, so that this file also shows how the
commands go together. A phase that was finished with the same command and configuration is not run
again; one that was interrupted continues, because the commands do.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import time

from configs import moving_actors
from step_jax import evaluations, run_folder
from step_jax.annotations import read_native
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json

CONFIG = "configs/moving_actors.py"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "tensorflow", "tensorflow-datasets")
SPLIT = "test"


@dataclasses.dataclass(frozen=True)
class Phase:
    """One command of the demo.

    Attributes:
      name: of its stamp and its row in the report.
      command: what is run.
      output: what it leaves; a stamp without it counts for nothing.
    """

    name: str
    command: tuple[str, ...]
    output: pathlib.Path


def main() -> None:
    arguments = parse_arguments()
    workdir = arguments.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    config = moving_actors.get_config().to_json(sort_keys=True)
    digest = hashlib.sha256(config.encode())
    timings = {}
    for phase in data_phases(arguments) + training_phases(arguments):
        timings[phase.name] = run_phase(phase, workdir, digest.hexdigest())
    video = held_out_video(arguments)
    for phase in detection_phases(arguments, video):
        timings[phase.name] = run_phase(phase, workdir, digest.hexdigest())
    report = write_report(arguments, timings)
    print_summary(report, workdir, video)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/demo"))
    parser.add_argument("--data", type=pathlib.Path, help="folder of the data set (WORKDIR/data)")
    parser.add_argument("--seed", type=int, default=0, help="of training; the data set has its own")
    parser.add_argument("--train_videos", type=int, default=320)
    parser.add_argument("--test_videos", type=int, default=64)
    parser.add_argument("--steps", type=int, help="of training (the configuration's)")
    arguments = parser.parse_args()
    arguments.data = arguments.data or arguments.workdir / "data"
    return arguments


def data_phases(arguments: argparse.Namespace) -> list[Phase]:
    videos = arguments.data / "moving_actors"
    render = module(
        "input_pipeline.moving_actors",
        "--output", videos,
        "--train_videos", arguments.train_videos,
        "--test_videos", arguments.test_videos,
    )  # fmt: skip
    prepare = module(
        "input_pipeline.prepare",
        "--annotations", videos / "annotations.json",
        "--output", arguments.data / "records",
    )  # fmt: skip
    return [
        Phase("render", render, videos / "annotations.json"),
        Phase("records", prepare, arguments.data / "records"),
    ]


def training_phases(arguments: argparse.Namespace) -> list[Phase]:
    data = arguments.data
    train = program(
        "train.py",
        f"--config={CONFIG}",
        f"--workdir={arguments.workdir / 'train'}",
        f"--config.seed={arguments.seed}",
        f"--config.data.records={data / 'records'}",
        f"--config.data.annotations={data / 'moving_actors' / 'annotations.json'}",
        *([f"--config.train.steps={arguments.steps}"] if arguments.steps else []),
    )
    evaluate = program("evaluate.py", f"--workdir={arguments.workdir / 'train'}")
    run, page = arguments.workdir / "train", arguments.workdir / "training.png"
    draw = module("step_jax.visualize.training", "--workdir", run, "--output", page)
    return [
        Phase("train", train, run / run_folder.FINISHED),
        Phase("evaluate", evaluate, run / evaluations.FOLDER),
        Phase("page", draw, page),
    ]


def detection_phases(arguments: argparse.Namespace, video: pathlib.Path) -> list[Phase]:
    """A drawn video, and one window of it as a picture."""
    run, output = arguments.workdir / "train", arguments.workdir / "detections"
    detect = program(
        "detect.py", "--workdir", run, "--video", video, "--output", output, "--all_steps"
    )
    picture = arguments.workdir / "refinement.png"
    montage = module(
        "step_jax.visualize.montage",
        "--workdir", run,
        "--video", video,
        "--annotations", arguments.data / "moving_actors" / "annotations.json",
        "--output", picture,
    )  # fmt: skip
    return [
        Phase("detect", detect, output / f"{video.stem}.webm"),
        Phase("montage", montage, picture),
    ]


def module(name: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *map(str, arguments))


def program(path: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, path, *map(str, arguments))


def held_out_video(arguments: argparse.Namespace) -> pathlib.Path:
    """The test video with most actors; of equals, the first."""
    annotations = read_native(arguments.data / "moving_actors" / "annotations.json")
    video = max(annotations.split(SPLIT), key=lambda video: len(video.tubes))
    return pathlib.Path(annotations.video_path(video))


def run_phase(phase: Phase, workdir: pathlib.Path, digest: str) -> dict:
    """Runs a phase, or returns what its stamp says of an earlier run; raises InputError."""
    path = workdir / "phases" / f"{phase.name}.json"
    shown = shlex.join(phase.command[1:])
    wanted = {"command": shown, "configuration": digest}
    stamp = json.loads(path.read_text()) if path.exists() else {}
    is_same = {key: stamp.get(key) for key in wanted} == wanted
    if is_same and stamp["finished"] and phase.output.exists():
        print(f"\n== {phase.name}: up to date", flush=True)
        return stamp
    # An interrupted phase continues, so its seconds add up.
    earlier = stamp["seconds"] if is_same and not stamp["finished"] else 0.0
    print(f"\n== {phase.name}: python {shown}", flush=True)
    start = time.monotonic()
    status, peak_bytes = _run(phase.command)
    stamp = wanted | {
        "finished": status == 0,
        "seconds": round(earlier + time.monotonic() - start, 1),
        "peak_mib": round(max(peak_bytes / 2**20, stamp.get("peak_mib", 0))),
    }
    write_json(path, stamp)
    if status:
        raise InputError(
            f"phase {phase.name} ended with exit status {status}; what it says is above. "
            "The same command continues"
        )
    return stamp


def _run(command: tuple[str, ...]) -> tuple[int, int]:
    """(exit status, peak resident bytes of the largest of its processes)."""
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    unit = 1 if platform.system() == "Darwin" else 1024
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit


def write_report(arguments: argparse.Namespace, timings: dict[str, dict]) -> dict:
    train = arguments.workdir / "train"
    step = run_folder.finished_step(train)
    metrics = evaluations.read_metrics(train)[SPLIT, step]
    report = {
        "seed": arguments.seed,
        "checkpoint": step,
        "frame_map": {str(one["step"]): one["mean"] for one in metrics["steps"]},
        "per_class": {
            str(one["step"]): {item["class"]: item["ap"] for item in one["per_class"]}
            for one in metrics["steps"]
        },
        "localization_recall": {
            str(one["step"]): one["localization_recall"] for one in metrics["steps"]
        },
        "protocol": metrics["protocol"],
        "seconds": {name: stamp["seconds"] for name, stamp in timings.items()},
        "total_seconds": round(sum(stamp["seconds"] for stamp in timings.values()), 1),
        "peak_mib": {name: stamp["peak_mib"] for name, stamp in timings.items()},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    write_json(arguments.workdir / "report.json", report)
    return report


def print_summary(report: dict, workdir: pathlib.Path, video: pathlib.Path) -> None:
    steps = list(report["frame_map"])
    print("\nframe-mAP@.5 on the held-out videos, per step of the detector\n")
    print(f"{'class':<14}" + "".join(f"{'step ' + step:>10}" for step in steps))
    for name in report["per_class"][steps[0]]:
        values = (report["per_class"][step][name] for step in steps)
        print(f"{name:<14}" + "".join("         -" if v is None else f"{v:>10.1f}" for v in values))
    print(f"{'mean':<14}" + "".join(f"{report['frame_map'][step]:>10.1f}" for step in steps))
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in report["seconds"].items())
    print(f"\n{report['total_seconds']:.0f} s in all: {seconds}")
    print(f"report         {workdir / 'report.json'}")
    print(f"pictures       {workdir}/*.png")
    print(f"drawn video    {workdir / 'detections' / (video.stem + '.webm')}")


if __name__ == "__main__":
    run_command(main)
