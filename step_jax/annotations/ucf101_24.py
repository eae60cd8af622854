"""UCF101-24: the corrected annotations (Singh et al. 2017) as their authors distribute them.

`pyannot.pkl` is {video: {label, numf, annotations: [{label, sf, ef, boxes}]}}, with boxes x y w h
whose x and y count from 1, a first frame `sf` that counts from 0 and a last one `ef` exclusive.
`pyannot_with_class_names.pkl` is {db: that, trainvideos, classes}.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from step_jax.annotations.model import Annotations, Tube, Video
from step_jax.annotations.restricted_pickle import load_restricted
from step_jax.errors import InputError

CLASSES = (
    "Basketball",
    "BasketballDunk",
    "Biking",
    "CliffDiving",
    "CricketBowling",
    "Diving",
    "Fencing",
    "FloorGymnastics",
    "GolfSwing",
    "HorseRiding",
    "IceDancing",
    "LongJump",
    "PoleVault",
    "RopeClimbing",
    "SalsaSpin",
    "SkateBoarding",
    "Skiing",
    "Skijet",
    "SoccerJuggling",
    "Surfing",
    "TennisSwing",
    "TrampolineJumping",
    "VolleyballSpiking",
    "WalkingWithDog",
)
WIDTH, HEIGHT = 320, 240  # the frame that the boxes are drawn in, whatever size the videos have now
FPS = 25.0

_VIDEO_SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov")
_NAME = re.compile(r"(\w+/)?[\w-]+", re.ASCII)


def read_pyannot(
    path: str | os.PathLike,
    *,
    videos: str | os.PathLike | None = None,
    split_file: str | os.PathLike | None = None,
    split: str | None = None,
    present_only: bool = False,
) -> Annotations:
    """Reads `pyannot.pkl` or `pyannot_with_class_names.pkl`.

    Args:
      videos: the folder of the videos: files or folders of frames, either `<Class>/<video>` or
        `<video>`. None: the videos are not looked for and their paths are their names.
      split_file: `testlist01.txt`: the videos listed are 'test', all others 'train'. Without it
        the file's own `trainvideos` decide; a file without these needs it.
      split: keep only 'train' or 'test'.
      present_only: keep only the videos that are in the folder; else a missing one is an error.

    Returns annotations rooted at `videos` (or at the pickle's folder). Raises InputError.
    """
    path = pathlib.Path(path)
    database, classes, train = _unwrap(load_restricted(path), path)
    test = _test_names(database, train, split_file, path)
    root = path.parent if videos is None else pathlib.Path(videos)
    chosen = [
        name for name in sorted(database) if split in (None, "test" if name in test else "train")
    ]
    places = {name: name for name in chosen} if videos is None else _find(chosen, root)
    if missing := [name for name in chosen if name not in places]:
        _check_missing(missing, len(chosen), root, present_only=present_only)
    records = [
        _video(
            name,
            database[name],
            classes=classes,
            path=places[name],
            split="test" if name in test else "train",
            where=f"{path}: video {name!r}",
        )
        for name in chosen
        if name in places
    ]
    if not records:
        raise InputError(f"{path}: no video of split {split!r} is left to convert; check --split")
    return Annotations("ucf101_24", classes, tuple(records), root)


def _unwrap(content: Any, path: pathlib.Path) -> tuple[dict, tuple[str, ...], set[str] | None]:
    """The videos, the classes and, where the file has them, the names of the training videos."""
    if isinstance(content, dict) and "db" in content:
        database, classes = content["db"], tuple(map(str, content.get("classes", CLASSES)))
        train = {str(name) for name in content["trainvideos"]} if "trainvideos" in content else None
    else:
        database, classes, train = content, CLASSES, None
    if not (isinstance(database, dict) and all(isinstance(v, dict) for v in database.values())):
        raise InputError(f"{path}: is not a pyannot file; expected a dictionary of videos")
    for name in database:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise InputError(
                f"{path}: video {name!r}: expected a name like 'Class/v_Class_g01_c01'"
            )
    return database, classes, train


def _test_names(
    database: Mapping[str, Any],
    train: set[str] | None,
    split_file: str | os.PathLike | None,
    path: pathlib.Path,
) -> set[str]:
    if split_file is None:
        if train is None:
            raise InputError(
                f"{path}: does not say which videos are for training; give a split file"
            )
        return set(database) - train
    try:
        lines = pathlib.Path(split_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{split_file}: cannot be read as a list of videos: {error}") from error
    names = {line.split()[0].removesuffix(".avi") for line in lines if line.strip()}
    known = names & set(database)
    if not known:
        raise InputError(
            f"{split_file}: none of its {len(names)} names is a video of {path}; "
            "expected lines like 'Class/v_Class_g01_c01'"
        )
    return known


def _find(names: Iterable[str], root: pathlib.Path) -> dict[str, str]:
    """Where each video is under `root`, relative to it; videos that are not there are left out."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of videos")
    places = {}
    for name in names:
        forms = dict.fromkeys((name, name.rpartition("/")[2]))
        found = [f"{form}{suffix}" for form in forms for suffix in _VIDEO_SUFFIXES]
        found = [file for file in found if (root / file).is_file()]
        found += [form for form in forms if (root / form).is_dir()]
        if len(found) > 1:
            raise InputError(
                f"{root}: video {name!r} is there more than once: {', '.join(found)}; keep one"
            )
        if found:
            places[name] = found[0]
    return places


def _check_missing(missing: list[str], total: int, root: pathlib.Path, *, present_only: bool):
    if len(missing) == total:
        raise InputError(
            f"{root}: has none of the {total} videos, such as {missing[0]!r}; expected files or "
            "folders of frames named <Class>/<video> or <video>"
        )
    if not present_only:
        raise InputError(
            f"{root}: {len(missing)} of {total} videos are missing, such as {missing[0]!r}; "
            "complete the folder, or convert only those present"
        )


def _video(
    name: str, record: dict, *, classes: tuple[str, ...], path: str, split: str, where: str
) -> Video:
    try:
        num_frames = int(record["numf"])
        tubes = tuple(
            _tube(tube, name, classes, where=f"tube {number}")
            for number, tube in enumerate(record["annotations"])
        )
        return Video(name, path, split, FPS, num_frames, WIDTH, HEIGHT, tubes)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: is not as expected in a pyannot file: {error!r}") from error


def _tube(record: dict, name: str, classes: tuple[str, ...], *, where: str) -> Tube:
    label, first, end = int(record["label"]), int(record["sf"]), int(record["ef"])
    boxes = np.asarray(record["boxes"])
    if boxes.shape != (end - first, 4):
        raise InputError(
            f"{where}: boxes have shape {boxes.shape}, but sf {first} and ef {end} (exclusive) "
            f"need {(end - first, 4)}"
        )
    if not 0 <= label < len(classes) or classes[label] != name.partition("/")[0]:
        known = classes[label] if 0 <= label < len(classes) else "no class"
        raise InputError(f"{where}: label {label} is {known}, but the video is {name!r}")
    try:
        return Tube((label,), np.arange(first, end), _corners(boxes))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _corners(boxes: np.ndarray) -> np.ndarray:
    """x y w h, x and y from 1, to 0-based corners, float32 [n, 4].

    Cast first: the boxes are uint8 or uint16, and x + w overflows in a tenth of them.
    """
    x, y, width, height = boxes.astype(np.float32).T
    return np.stack([x - 1, y - 1, x - 1 + width, y - 1 + height], axis=1)
