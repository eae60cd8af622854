"""Lists of videos, such as `testlist01.txt`, and the splits that they make."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Collection, Sequence

from step_jax.annotations.foreign import UNASSIGNED
from step_jax.annotations.model import Annotations, Video
from step_jax.annotations.video_names import check_video_name, class_folder, group_of
from step_jax.errors import InputError

TRAIN, TEST, VALIDATION = "train", "test", "validation"

_LINE = re.compile(r"(\S+?)(?:\.avi|\.mp4)?(?:\s+\d+)?")
_FRAME = re.compile(r"(?:labels/)?(\S+)/\d+\.(?:txt|jpg|png)")


def read_video_list(path: str | os.PathLike) -> tuple[str, ...]:
    """The names in a list of videos: one a line, `Class/v_Class_g01_c01`.

    A suffix `.avi` and a class number behind it (UCF101's own lists) are left out; a list of
    frames, `Class/v_Class_g01_c01/00009.txt` (YOWO's), names their videos. Raises
    InputError for another kind of line and for a name that occurs twice.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of videos: {error}") from error
    names: dict[str, int] = {}
    frames = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line:
            continue
        frame = _FRAME.fullmatch(line)
        frames = frames or frame is not None
        name = frame[1] if frame else _name(line, f"{path}: line {number}")
        if name in names and not frames:
            raise InputError(
                f"{path}: line {number}: video {name!r} is there already, in line {names[name]}"
            )
        names.setdefault(name, number)
    if not names:
        raise InputError(f"{path}: lists no video; expected lines like 'Class/v_Class_g01_c01'")
    return tuple(names)


def _name(line: str, where: str) -> str:
    found = _LINE.fullmatch(line)
    name = found[1] if found else ""
    try:
        check_video_name(name)
    except InputError:
        raise InputError(
            f"{where}: is {line!r}; expected a name like 'Class/v_Class_g01_c01'"
        ) from None
    return name


def assign_splits(
    annotations: Annotations,
    *,
    train: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
) -> Annotations:
    """The same videos in the splits 'train' and 'test' of these lists.

    With one list all other videos are of the other split. Names that the annotations lack are left
    aside (`unknown_names`): UCF101's lists have all its 101 classes, and 6 training videos of the
    24 were never annotated.

    Raises InputError without a list, for a video in both or neither, and if no video listed is in
    the annotations.
    """
    lists = {name: set(names) for name, names in ((TRAIN, train), (TEST, test)) if names}
    known = {video.id for video in annotations.videos}
    if not lists:
        raise InputError("nothing says which videos are for testing; give a split file")
    if not (names := set().union(*lists.values())) & known:
        raise InputError(
            f"none of the {len(names)} videos listed, such as {min(names)!r}, is in the "
            f"annotations, which have {min(known, default=None)!r}; are they of another data set?"
        )
    if twice := sorted(set.intersection(*lists.values()) & known if len(lists) > 1 else ()):
        raise InputError(f"video {twice[0]!r} is listed for training and for testing; keep one")
    videos = [
        dataclasses.replace(video, split=_split_of(video.id, lists)) for video in annotations.videos
    ]
    return dataclasses.replace(annotations, videos=videos)


def _split_of(name: str, lists: dict[str, set[str]]) -> str:
    for split, names in lists.items():
        if name in names:
            return split
    if len(lists) > 1:
        raise InputError(f"video {name!r} is in neither list, train nor test; add it to one")
    return TRAIN if TEST in lists else TEST


def unknown_names(annotations: Annotations, names: Collection[str]) -> list[str]:
    """The listed names of the data set's own classes that it has no annotation of."""
    known = {video.id for video in annotations.videos}
    classes = {name.lower() for name in annotations.classes}
    return [name for name in names if name not in known and class_folder(name).lower() in classes]


def is_assigned(annotations: Annotations) -> bool:
    """Whether the file that these were read from had lists of its own."""
    return UNASSIGNED not in annotations.splits


def hold_out_groups(annotations: Annotations, groups: Collection[int]) -> Annotations:
    """Makes the training videos of some groups (`_g22_` in the name) the split 'validation'.

    A group is cut from one recording, so that no other division is honest. Raises InputError for a
    group without a training video, and where none would be left for training.
    """
    found = {group_of(video.id) for video in annotations.videos if video.split == TRAIN}
    if missing := sorted(set(groups) - found):
        raise InputError(
            f"no training video is of group {missing[0]} for validation; the training videos' "
            f"groups are {sorted(found - {None})}"
        )
    if found <= set(groups):
        raise InputError("all training videos are of the groups for validation; leave some")

    def changed(video: Video) -> Video:
        chosen = video.split == TRAIN and group_of(video.id) in groups
        return dataclasses.replace(video, split=VALIDATION) if chosen else video

    return dataclasses.replace(annotations, videos=[changed(v) for v in annotations.videos])


def keep_split(annotations: Annotations, split: str) -> Annotations:
    """Only the videos of one split. Raises InputError where there are none."""
    return dataclasses.replace(annotations, videos=annotations.split(split))
