"""A data set and a configuration so small that training takes seconds, for the entry points' tests.

Two squares move over noise: "left" goes left and "right" goes right.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import flags as absl_flags

from configs import moving_actors
from step_jax.annotations import Annotations, Tube, Video, read_native
from step_jax.annotations.native import write_native
from step_jax.cli import run_command, run_with_flags
from step_jax.video import VideoWriter

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "moving_actors.py"
SIDE = 48  # of the videos
CLASSES = ("left", "right")
VIDEOS = {"a": ("train", 14), "b": ("train", 12), "c": ("test", 9), "d": ("test", 5)}
PROGRAMS = {
    "train": "train",
    "evaluate": "evaluate",
    "detect": "detect",
    "prepare": "input_pipeline.prepare",
    "validate": "input_pipeline.validate",
    "convert": "step_jax.convert.__main__",
}
OWN_FLAGS = (
    "compilation_cache", "checkpoint", "watch", "detections", "output", "poll_seconds", "shard",
    "profile", "replay", "multihost", "coordinator", "num_processes", "process_id",
)  # fmt: skip
CLIP_FRAMES = 2
PROPOSALS = 11
STEPS = 12

OVERRIDES = {
    "data.image_size": 32,
    "data.max_tubes": 2,
    "data.threads": 1,
    "augment.flip_swaps": (("left", "right"),),
    "model.clip_frames": CLIP_FRAMES,
    "model.extension_plan": (False, True),
    "model.extension": "extrapolate",
    "model.scene_context": False,
    "model.pool_size": 2,
    "model.backbone_options.stem_features": 4,
    "model.backbone_options.features": 8,
    "model.head_options.global_features": (8,),
    "model.head_options.global_kernels": ((1, 1, 1),),
    "model.head_options.local_features": (8, 8),
    "optimizer.warmup_steps": 1,
    "train.batch_size": 4,
    "train.steps": STEPS,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": 3,
    "train.eval_every_steps": 0,
    "train.summary": False,
    "eval.batch_size": 4,
    "eval.stride": 2,
}


def moving_square(frames: int, *, leftward: bool) -> tuple[np.ndarray, np.ndarray]:
    """(frames uint8 [n, S, S, 3], boxes float32 [n, 4]) of a square that moves 2 px a frame."""
    random = np.random.default_rng(frames)
    clip = random.integers(0, 90, (frames, SIDE, SIDE, 3), np.uint8)
    left = np.arange(frames) * 2
    left = left.max() - left if leftward else left
    boxes = np.stack([left, left * 0 + 10, left + 18, left * 0 + 34], axis=1)
    for frame, (x1, y1, x2, y2) in zip(clip, boxes, strict=True):
        frame[y1:y2, x1:x2] = (220, 200, 40)
    return clip, boxes.astype(np.float32)


def write_dataset(folder: pathlib.Path) -> pathlib.Path:
    """Four AVI files and their annotations; returns the annotation file."""
    videos = []
    for number, (name, (split, frames)) in enumerate(VIDEOS.items()):
        clip, boxes = moving_square(frames, leftward=number % 2 == 0)
        with VideoWriter(folder / f"{name}.avi", fps=25, width=SIDE, height=SIDE) as writer:
            for frame in clip:
                writer.write(frame)
        tube = Tube((number % 2,), np.arange(frames), boxes)
        videos.append(Video(name, f"{name}.avi", split, 25.0, frames, SIDE, SIDE, (tube,)))
    path = folder / "annotations.json"
    write_native(path, Annotations("squares", CLASSES, tuple(videos), folder))
    return path


def prepare_records(annotations: pathlib.Path, output: pathlib.Path):
    """Their clip records, for windows of `CLIP_FRAMES` target and 6 input frames."""
    from input_pipeline.accelerators import hide_accelerators
    from input_pipeline.prepare import RecordOptions, prepare

    hide_accelerators()
    options = RecordOptions(core_frames=4, halo_before=2, halo_after=3)
    prepare(read_native(annotations), output, options=options, workers=1)


def overrides(dataset, **changes) -> dict[str, object]:
    """Values by key for a data set (`.records`, `.annotations`); changes have __ for the dots."""
    values = {"data.records": str(dataset.records), "data.annotations": str(dataset.annotations)}
    return values | OVERRIDES | {name.replace("__", "."): v for name, v in changes.items()}


def config(dataset, **changes):
    """The configuration itself, as the flags give it."""
    values = moving_actors.get_config()
    with values.ignore_type():
        values.update_from_flattened_dict(overrides(dataset, **changes))
    return values


def flags(dataset, *, workdir, **changes) -> list[str]:
    """The command line that gives the same."""
    values = overrides(dataset, **changes)
    return [
        f"--config={CONFIG}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in values.items()),
    ]


def cheap_variables(detector, *, image_size, num_proposals, key):
    """What `train.init_variables` gives, without compiling a detector for it."""
    del detector, image_size, num_proposals
    return {"params": {"kernel": jax.random.normal(key, (3, 4)), "bias": jnp.zeros(4)}}


def run(name: str):
    """A command as from its command line, `sys.argv`, but in this process; raises SystemExit."""
    module = importlib.import_module(PROGRAMS[name])
    if not hasattr(module, "define_flags"):
        run_command(module.main)
    ours = {"config", "workdir", *OWN_FLAGS}
    for flag in [flag for flag in absl_flags.FLAGS if flag.partition(".")[0] in ours]:
        delattr(absl_flags.FLAGS, flag)
    run_with_flags(module.main, define=module.define_flags)


def start(
    program: str,
    *arguments: object,
    cache: pathlib.Path,
    fills_cache: bool = True,
    devices: int = 1,
):
    """The program in a process of its own, on one device or more, started and not waited for."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / program), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment(cache, fills_cache=fills_cache, devices=devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment(
    cache: pathlib.Path, *, fills_cache: bool = True, devices: int = 1
) -> dict[str, str]:
    """Of processes that compile for so many devices and keep what they have compiled."""
    return {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0" if fills_cache else "1e9",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles twice as fast
    }


def saved_arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its path, read without the project's own code."""
    arrays = {}
    for item in ("model", "training"):
        folder = pathlib.Path(workdir) / "checkpoints" / str(step) / item
        tree = ocp.PyTreeCheckpointer().restore(folder.absolute())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


def assert_same_checkpoint(one: pathlib.Path, other: pathlib.Path, step: int):
    """Bit for bit, parameters and optimizer state."""
    expected, found = saved_arrays(one, step), saved_arrays(other, step)
    assert found.keys() == expected.keys()
    assert any("opt_state" in name for name in found)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name
