"""A folder of clip records: what is in it, without opening the records.

    records.json     what they were built from, how, and the record files; written last, so its
                     presence means that the folder is complete
    index.npz        the frame ranges of every record and the annotated frames of every tube
    clip_records/    the TFDS data set

The index is what lets an epoch be planned, and the number of windows be known, before a byte of a
record is read: a few integers for each record and tube. Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from step_jax.errors import InputError
from step_jax.modality import Modality
from step_jax.replacing import replacing

FORMAT = "step_jax.clip_records"
VERSION = 2
READABLE = (1, 2)  # 1: of frames alone


@dataclass(frozen=True)
class SplitInfo:
    """Sizes of one split.

    num_bytes: of its record files.
    shards: (path from the records' folder, number of records) of every record file.
    """

    num_videos: int
    num_records: int
    num_frames: int
    num_tubes: int
    num_bytes: int
    shards: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class RecordsInfo:
    """`records.json`: how a folder of records was built.

    name: of the data set. annotations_file: the name of its annotation file.
    digest: of the annotations and of every option that changes the records.
    video_bytes: size of every video file, by id; 0 for folders.
    core_frames, halo_before, halo_after, short_side, jpeg_quality: see `prepare.RecordOptions`.
    flow: the method of the records' flow (`flow_folders.describe_flow`), "" where they hold none.
    flow_side: the frames' shorter side, pixels, that the flow was computed at; 0: their own.
    flow_frames: the most flow images that a window can read for each of its frames.
    kind: "clips", records with their tubes, or "ava", pixels alone: frame f of every video is of
        second `first_second` + f / 12 of its movie, and labels are joined when they are read.
    missing_keyframes: of AVA, by video: seconds whose clip could not be decoded (three of the four
        seconds that it lies in have no frame); what the records hold there is another moment.
    repeated_keyframes: of AVA, by video: seconds without a frame, whose clip could be decoded but
        for that; the nearest earlier frame stands in.
    """

    name: str
    annotations_file: str
    digest: str
    video_bytes: Mapping[str, int]
    classes: tuple[str, ...]
    core_frames: int
    halo_before: int
    halo_after: int
    short_side: int
    jpeg_quality: int
    splits: Mapping[str, SplitInfo]
    flow: str = ""
    flow_side: int = 0
    flow_frames: int = 0
    kind: str = "clips"
    first_second: int = 0
    missing_keyframes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    repeated_keyframes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def check_modality(self, modality: Modality, records_dir: str | os.PathLike):
        """Raises InputError if the records, of that folder, do not hold what is to be read."""
        if not modality.has_flow:
            return
        if not self.flow:
            raise InputError(
                f"{records_dir}: the records hold no flow, and data.modality is "
                f"{modality.name!r}: build them with --flow"
            )
        if modality.flow_frames > self.flow_frames:
            raise InputError(
                f"{records_dir}: the records hold the flow for data.flow_frames up to "
                f"{self.flow_frames}, not {modality.flow_frames}: build them with --flow_frames "
                f"{modality.flow_frames}"
            )


@dataclass(frozen=True, eq=False)
class RecordsIndex:
    """One split's records and annotated frames, as columns.

    Videos [V]: video_ids, num_frames, width, height (pixels of the annotation's frame).
    Records [R], in the order of the files: record_video (index into the videos), first_frame,
    stop_frame (the frames that the record holds), core_start, core_end.
    Runs: int32 [N, 4] of (video, tube, start, stop): a tube's unbroken stretches of boxes, in the
    order of videos and tubes.
    """

    video_ids: np.ndarray
    num_frames: np.ndarray
    width: np.ndarray
    height: np.ndarray
    record_video: np.ndarray
    first_frame: np.ndarray
    stop_frame: np.ndarray
    core_start: np.ndarray
    core_end: np.ndarray
    runs: np.ndarray

    @property
    def num_records(self) -> int:
        return len(self.record_video)

    @cached_property
    def video_offset(self) -> np.ndarray:
        """int64 [V + 1]: where each video starts when the videos lie one after the other."""
        return np.concatenate([[0], np.cumsum(self.num_frames, dtype=np.int64)])

    def record_name(self, record: int) -> str:
        """How errors name a record."""
        video = str(self.video_ids[self.record_video[record]])
        first, stop = self.first_frame[record], self.stop_frame[record]
        return f"record {record} (video {video!r}, frames {first} to {stop - 1})"


def load_info(records_dir: str | os.PathLike) -> RecordsInfo:
    """Reads `records.json`. Raises InputError for a folder that holds no complete records."""
    path = info_path(records_dir)
    if not path.exists():
        raise InputError(
            f"{records_dir}: no complete clip records ({path.name} is missing); build them with "
            "`python -m input_pipeline.prepare --annotations FILE --output DIR`"
        )
    document = _load_json(path)
    kind, version = document.pop("format", None), document.pop("version", None)
    if kind != FORMAT or version not in READABLE:
        raise InputError(
            f"{path}: format {kind!r} version {version!r}; expected {FORMAT!r} version "
            f"{VERSION}: build the records again in a new folder"
        )
    return _parse_info(document, path)


def load_index(records_dir: str | os.PathLike, split: str) -> RecordsIndex:
    """Reads the index of one split. Raises InputError for an unknown split or a damaged file."""
    _split_info(records_dir, split)
    path = pathlib.Path(records_dir) / "index.npz"
    names = [field.name for field in dataclasses.fields(RecordsIndex)]
    try:
        with np.load(path, allow_pickle=False) as columns:
            return RecordsIndex(**{name: columns[f"{split}/{name}"] for name in names})
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); build the records again") from error


def shard_paths(
    records_dir: str | os.PathLike, split: str, *, allow_missing: bool = False
) -> list[tuple[str, int]]:
    """(path, number of records) of a split's record files.

    Raises InputError for a missing one, unless that is allowed.
    """
    shards = []
    for name, num_records in _split_info(records_dir, split).shards:
        path = pathlib.Path(records_dir) / name
        if not allow_missing and not path.exists():
            raise InputError(
                f"{path}: this record file, of {num_records} records, is missing; copy it again, "
                "or build the records again"
            )
        shards.append((os.fspath(path), num_records))
    return shards


def write_index(records_dir: str | os.PathLike, indices: Mapping[str, RecordsIndex]):
    """Writes the indices of all splits."""
    columns = {
        f"{split}/{name}": column
        for split, index in indices.items()
        for name, column in vars(index).items()
        if isinstance(column, np.ndarray)
    }
    with replacing(pathlib.Path(records_dir) / "index.npz") as temporary:
        np.savez_compressed(temporary, **columns)


def write_info(records_dir: str | os.PathLike, info: RecordsInfo):
    """Writes `records.json`: the folder is complete from here on."""
    document = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(info)}
    with replacing(info_path(records_dir)) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def info_path(records_dir: str | os.PathLike) -> pathlib.Path:
    """Where `records.json` lies."""
    return pathlib.Path(records_dir) / "records.json"


def summary(output: str | os.PathLike) -> str:
    """A line for the records of a folder, and one for each split."""
    lines = [f"{output}: built"]
    for name, split in load_info(output).splits.items():
        lines.append(
            f"  {name}: {split.num_videos} videos, {split.num_frames} frames, {split.num_tubes} "
            f"tubes, {split.num_records} records, {split.num_bytes / 1e6:.1f} MB"
        )
    return "\n".join(lines)


def _split_info(records_dir: str | os.PathLike, split: str) -> SplitInfo:
    splits = load_info(records_dir).splits
    if split not in splits:
        known = ", ".join(map(repr, splits))
        raise InputError(f"{records_dir}: no split {split!r}; the splits are: {known}")
    return splits[split]


def _load_json(path: pathlib.Path) -> dict:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); build the records again") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a JSON object; build the records again")
    return document


def _parse_info(document: dict, path: pathlib.Path) -> RecordsInfo:
    try:
        splits = {}
        for name, split in document["splits"].items():
            shards = tuple((str(file), int(count)) for file, count in split["shards"])
            splits[name] = SplitInfo(**{**split, "shards": shards})
        document |= {"classes": tuple(document["classes"]), "splits": splits}
        for name in ("missing_keyframes", "repeated_keyframes"):
            marked = document.get(name, {})
            document[name] = {video: tuple(map(int, seconds)) for video, seconds in marked.items()}
        return RecordsInfo(**document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error!r}); build the records again") from error
