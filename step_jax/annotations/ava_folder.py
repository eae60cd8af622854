"""The folder of AVA's annotation files, under the names that they are published with."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

from step_jax.annotations.ava_csv import AvaLabels, Keyframes, read_keyframes, read_labels
from step_jax.annotations.ava_labels import LabelMap, read_label_map
from step_jax.errors import InputError

VERSIONS = ("2.1", "2.2")
_LABEL_MAPS = {
    "2.1": "ava_action_list_v2.1_for_activitynet_2018.pbtxt",
    "2.2": "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
}


@dataclass(frozen=True)
class AvaFolder:
    """One version of AVA's annotations in a folder.

    Both versions are of the same videos and, but for a few, the same boxes, with other labels.
    """

    folder: pathlib.Path
    version: str

    def labels_path(self, split: str) -> pathlib.Path:
        """The annotations of "train" or "val"."""
        return self._existing(f"ava_{split}_v{self.version}.csv", what=f"annotations of {split!r}")

    def label_map_path(self) -> pathlib.Path:
        """The map of the 60 classes that count."""
        return self._existing(_LABEL_MAPS[self.version], what="the label map of the 60 classes")

    def exclusions_path(self, split: str) -> pathlib.Path:
        """The excluded keyframes: those of the version or, where they lack, of the other one.

        The published lists of both are the same.
        """
        names = [f"ava_{split}_excluded_timestamps_v{v}.csv" for v in (self.version, *VERSIONS)]
        found = [self.folder / name for name in names if (self.folder / name).exists()]
        return found[0] if found else self._existing(names[0], what="the excluded keyframes")

    def labels(self, split: str) -> AvaLabels:
        """The annotations of a split, as `read_labels`."""
        return read_labels(self.labels_path(split))

    def label_map(self) -> LabelMap:
        """The label map, as `read_label_map`."""
        return read_label_map(self.label_map_path())

    def exclusions(self, split: str) -> Keyframes:
        """The excluded keyframes of a split, as `read_keyframes`."""
        return read_keyframes(self.exclusions_path(split))

    def _existing(self, name: str, *, what: str) -> pathlib.Path:
        path = self.folder / name
        if not path.exists():
            raise InputError(
                f"{path}: is missing, {what} of AVA v{self.version}; expected AVA's annotation "
                "files in that folder, under the names they are published with"
            )
        return path


def open_ava_folder(folder: str | os.PathLike, version: str) -> AvaFolder:
    """The annotations of a version. Raises InputError for another one, or what is no folder."""
    if version not in VERSIONS:
        raise InputError(f"AVA version {version!r}: expected one of {', '.join(VERSIONS)}")
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is no folder; expected the one that holds AVA's annotation files, such as "
            f"ava_train_v{version}.csv"
        )
    return AvaFolder(folder, version)
