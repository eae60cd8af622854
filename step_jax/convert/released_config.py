"""A released checkpoint's `cfg` as what builds our detector, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from step_jax import inference
from step_jax.convert.released_keys import GLOBAL_FEATURES, Architecture
from step_jax.errors import InputError

TEMPORAL_STRIDE = 4
# Feature frames that the classification pre-training reads, whatever its `T`.
CLASSIFICATION_FRAMES = 9
CHUNK_PLANS = {"spatial": (1, 1, 1, 1), "temporal": (1, 1, 3, 3), "temporal2": (1, 3, 3, 5)}

_EXTENSIONS = {"predict": "anticipate", "extrapolate": "recursive", "mean": "mean"}
_PROPOSALS = {"1": 34, "2": 59, "3": 84, "4": 109}
# The public code's defaults, of options that a checkpoint may not mention.
_DEFAULTS = {
    "T": 3,
    "fps": 12,
    "temporal_mode": "predict",
    "iterative_mode": "temporal",
    "pool_mode": "align",
    "pool_size": 7,
    "anchor_mode": "1",
    "dropout": 0.3,
}
# What our detector has no option for; a checkpoint that says otherwise would give other numbers.
_FIXED = {
    "base_net": "i3d",
    "input_type": "rgb",
    "fc_dim": GLOBAL_FEATURES,
    "scale_norm": 2,
    "means": (0, 0, 0),
    "stds": (1, 1, 1),
}


def describe(where: str, cfg: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The description of the detector (`inference.describe`) that a checkpoint's options tell of.

    Raises InputError for options that are missing, or that our detector has not.
    """
    told = _Options(where, _DEFAULTS | dict(cfg))
    for name, value in _FIXED.items():
        told.check(name, value)
    chunks = _chunks(told, architecture)
    frames, extension = told.count("T"), told.choice("temporal_mode", _EXTENSIONS)
    if not architecture.local:
        frames, extension = CLASSIFICATION_FRAMES, "none"
    return inference.describe(
        model={
            "backbone": "i3d",
            "backbone_options": {"norm": "frozen"},
            "head": "residual",
            "head_options": {
                "trunk": "mixed",
                "local_branch": architecture.local,
                "keep_regressors": architecture.local,
                "dropout": float(told.number("dropout")),
            },
            "clip_frames": TEMPORAL_STRIDE * frames,
            "extension_plan": _extension_plan(where, chunks),
            "extension": extension,
            "classification": "sigmoid",
            "regression": "agnostic",
            "roi_mode": told.choice("pool_mode", {"align": "align", "pool": "pool"}),
            "pool_size": told.count("pool_size"),
            "scene_context": architecture.context,
            "precision": "float32",
        },
        classes=tuple(_classes(told).values()),
        image_size=_side(told),
        fps=float(told.number("fps")),
        proposals=told.choice("anchor_mode", _PROPOSALS),
    )


def label_ids(where: str, cfg: Mapping[str, Any]) -> list[int]:
    """The data set's number of each class, in the order of the scores."""
    return list(_classes(_Options(where, cfg)))


def options(
    description: Mapping[str, Any], *, label_ids: Sequence[int], chunks: Sequence[int]
) -> dict[str, Any]:
    """The options that tell the public code of a detector; the opposite of `describe`.

    `chunks` are the steps' lengths. Raises InputError for what the public code has not.
    """
    model, side = description["model"], description["image_size"]
    steps, extension = len(chunks), model["extension"]
    if chunks[-1] == 1 and extension not in _EXTENSIONS.values():
        extension = "anticipate"  # tubes that never grow do so in any way
    return _FIXED | {
        "dataset": "ava",
        "det_net": "two_branch",
        "max_iter": steps,
        "no_context": not model["scene_context"],
        "T": model["clip_frames"] // TEMPORAL_STRIDE,
        "NUM_CHUNKS": dict(enumerate([*chunks, chunks[-1]], start=1)),
        "iterative_mode": _plan_name(chunks),
        "temporal_mode": _original("model.extension", extension, _EXTENSIONS),
        "pool_mode": model["roi_mode"],
        "pool_size": model["pool_size"],
        "anchor_mode": _original("proposals", description["proposals"], _PROPOSALS),
        "dropout": model["head_options"].get("dropout", 0.0),
        "image_size": (side, side),
        "fps": description["fps"],
        "num_classes": len(label_ids),
        "label_dict": dict(enumerate(label_ids)),
        "id2class": dict(zip(label_ids, description["classes"], strict=True)),
    }


class _Options:
    """A checkpoint's options, with errors that name the file and the option."""

    def __init__(self, where: str, cfg: Mapping[str, Any]):
        self.where, self.cfg = where, cfg

    def __getitem__(self, name: str) -> Any:
        if name not in self.cfg:
            raise InputError(
                f"{self.where}: cfg has no {name!r}; expected the options of a STEP training"
            )
        return self.cfg[name]

    def number(self, name: str) -> Any:
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise self.wrong(name, "a number from 0")
        return value

    def count(self, name: str) -> int:
        if not isinstance(self[name], int) or self[name] < 1:
            raise self.wrong(name, "a whole number from 1")
        return self[name]

    def choice(self, name: str, meanings: Mapping[str, Any]) -> Any:
        if not isinstance(self[name], str | int) or str(self[name]) not in meanings:
            raise self.wrong(name, f"one of {', '.join(meanings)}")
        return meanings[str(self[name])]

    def check(self, name: str, expected: Any) -> None:
        """The option must have this value, if it is there."""
        found = self.cfg.get(name, expected)
        if isinstance(expected, tuple) and isinstance(found, list | tuple):
            found = tuple(found)
        if found != expected:
            raise self.wrong(name, f"{expected!r}, which is all that there is here")

    def wrong(self, name: str, expected: str) -> InputError:
        return InputError(f"{self.where}: cfg.{name} is {self[name]!r}; expected {expected}")


def _chunks(told: _Options, architecture: Architecture) -> list[int]:
    """Length of each step's tubes, in chunks of T feature frames."""
    if not architecture.local:
        return [1] * architecture.steps
    if "NUM_CHUNKS" not in told.cfg:
        return list(told.choice("iterative_mode", CHUNK_PLANS)[: architecture.steps])
    plan = told["NUM_CHUNKS"]
    steps = range(1, architecture.steps + 1)
    if not isinstance(plan, Mapping) or not all(isinstance(plan.get(step), int) for step in steps):
        raise told.wrong("NUM_CHUNKS", f"the chunks of each of {architecture.steps} steps")
    return [plan[step] for step in steps]


def _extension_plan(where: str, chunks: Sequence[int]) -> list[bool]:
    grows = [after - before for before, after in zip([1, *chunks], chunks, strict=False)]
    if grows[0] != 0 or not set(grows) <= {0, 2}:
        raise InputError(
            f"{where}: cfg.NUM_CHUNKS says that the steps have {list(chunks)} chunks; expected 1 "
            "for the first, and for each other as many as for the one before, or two more"
        )
    return [growth == 2 for growth in grows]


def _plan_name(chunks: Sequence[int]) -> str:
    for name, plan in CHUNK_PLANS.items():
        if tuple(chunks) == plan[: len(chunks)]:
            return name
    return "custom"


def _side(told: _Options) -> int:
    size = told["image_size"]
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise told.wrong("image_size", "two equal sides in pixels, as (400, 400)")
    return sides.pop()


def _classes(told: _Options) -> dict[int, str]:
    """The data set's number and the name of each class, in the order of the scores."""
    ids, names = told["label_dict"], told["id2class"]
    if not isinstance(ids, Mapping) or sorted(ids, key=str) != sorted(range(len(ids)), key=str):
        raise told.wrong("label_dict", "the data set's number of each class from 0 on")
    classes = [ids[index] for index in range(len(ids))]
    if not isinstance(names, Mapping) or not all(isinstance(names.get(i), str) for i in classes):
        raise told.wrong("id2class", "the name of every class in label_dict")
    if len(set(classes)) < len(classes):
        raise told.wrong("label_dict", "another number for each class")
    return {number: names[number] for number in classes}


def _original(key: str, value: Any, meanings: Mapping[str, Any]) -> str:
    for theirs, ours in meanings.items():
        if ours == value:
            return theirs
    raise InputError(
        f"{key} {value!r} has no counterpart in the released format; it has "
        f"{', '.join(map(str, meanings.values()))}"
    )
