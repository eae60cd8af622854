"""What the readers of other projects' annotation files share.

They give `Annotations` whose videos have their names for paths, until `find_videos` has found them
on disk, and `UNASSIGNED` for a split, where the file has no list of its own, until `assign_splits`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from step_jax.annotations import ucf101_24
from step_jax.annotations.model import Annotations, Tube
from step_jax.annotations.video_names import class_folder
from step_jax.errors import InputError

UNASSIGNED = "unassigned"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a file may not say about its data set itself. The defaults are UCF101-24's.

    name: the data set's, for reports. classes: in the order of the labels. width, height: pixels
    of the frame that the boxes are drawn in. fps: frames a second of the videos.
    """

    name: str = "ucf101_24"
    classes: tuple[str, ...] = ucf101_24.CLASSES
    width: int = ucf101_24.WIDTH
    height: int = ucf101_24.HEIGHT
    fps: float = ucf101_24.FPS


@contextlib.contextmanager
def naming(place: str, kind: str) -> Iterator[None]:
    """Puts the place before an error, and makes an InputError of what odd data raise."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{place}: is not as expected in {kind}: {error!r}") from error


def whole(value: object, what: str) -> int:
    """A whole number of any size and kind of number. Raises InputError for another value."""
    number = int(np.asarray(value).item())
    if number != value:
        raise InputError(f"{what} is {value!r}; expected a whole number")
    return number


def one_label(tube: Tube, kind: str) -> int:
    """The label of a tube in a format that has one a tube. Raises InputError for several."""
    if len(tube.labels) > 1:
        raise InputError(
            f"has the {len(tube.labels)} classes {list(tube.labels)}; {kind} holds one a tube"
        )
    return tube.labels[0]


def check_class(label: int, video: str, classes: tuple[str, ...]):
    """Raises InputError for a label without class, or of another class than the video's folder."""
    known = classes[label] if 0 <= label < len(classes) else "no class"
    folder = class_folder(video)
    if known == "no class" or (folder in classes and known != folder):
        raise InputError(f"label {label} is {known}, but the video is {video!r}")


def split_names(annotations: Annotations) -> tuple[list[str], list[str]]:
    """The names of the videos for training (all splits but 'test') and of those for testing."""
    train = [video.id for video in annotations.videos if video.split != "test"]
    return train, [video.id for video in annotations.videos if video.split == "test"]
