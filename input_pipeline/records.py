"""A folder of clip records: what is in it, without opening the records.

    records.json     what they were built from and how; written last, so its presence means complete
    index.npz        the frame ranges of every record and the annotated frames of every tube
    clip_records/    the TFDS data set

The index is what lets an epoch be planned, and the number of windows be known, before a byte of a
record is read: a few integers for each record and tube.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import builders
from step_jax.annotations import Annotations, Video
from step_jax.errors import InputError
from step_jax.replacing import replacing

FORMAT = "step_jax.clip_records"
VERSION = 1


@dataclass(frozen=True)
class SplitInfo:
    """Sizes of one split. num_bytes: of its record files."""

    num_videos: int
    num_records: int
    num_frames: int
    num_tubes: int
    num_bytes: int


@dataclass(frozen=True)
class RecordsInfo:
    """`records.json`: how a folder of records was built.

    digest: of the annotations and of every option that changes the records.
    """

    name: str
    annotations_file: str
    digest: str
    classes: tuple[str, ...]
    core_frames: int
    halo_before: int
    halo_after: int
    short_side: int
    jpeg_quality: int
    splits: Mapping[str, SplitInfo]
    version: int = VERSION


@dataclass(frozen=True)
class Shard:
    """A record file, the number of records in it and the index of its first one in the split."""

    path: str
    num_records: int
    first_record: int


@dataclass(frozen=True, eq=False)
class RecordsIndex:
    """One split's records and annotated frames, as columns.

    Videos [V]: video_ids, num_frames, width, height (pixels of the annotation's frame).
    Records [R], in the order of the files: record_video (index into the videos), first_frame,
    stop_frame (the frames that the record holds), core_start, core_end.
    Runs: int32 [N, 4] of (video, tube, start, stop): a tube's unbroken stretches of boxes.
    """

    shards: tuple[Shard, ...]
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
        video = self.video_ids[self.record_video[record]]
        return f"record {record} (video {str(video)!r}, frames {self.first_frame[record]} to " + (
            f"{self.stop_frame[record] - 1})"
        )


_INDEX_COLUMNS = [
    field.name for field in dataclasses.fields(RecordsIndex) if field.name != "shards"
]


def load_info(records_dir: str | os.PathLike) -> RecordsInfo:
    """Reads `records.json`. Raises InputError for a folder that holds no complete records."""
    path = _info_path(records_dir)
    if not path.exists():
        raise InputError(
            f"{records_dir}: no complete clip records ({path.name} is missing); build them with "
            "`python -m input_pipeline.prepare --annotations FILE --output DIR`"
        )
    document = _load_json(path)
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise InputError(
            f"{path}: format {document.get('format')!r} version {document.get('version')!r}; "
            f"expected {FORMAT!r} version {VERSION}: build the records again in a new folder"
        )
    return _parse_info(document, path)


def load_index(records_dir: str | os.PathLike, split: str) -> RecordsIndex:
    """Reads the index of one split. Raises InputError for an unknown split or missing files."""
    info = load_info(records_dir)
    if split not in info.splits:
        known = ", ".join(map(repr, info.splits))
        raise InputError(f"{records_dir}: no split {split!r}; the splits are: {known}")
    try:
        with np.load(_index_path(records_dir), allow_pickle=False) as columns:
            values = {name: columns[f"{split}/{name}"] for name in _INDEX_COLUMNS}
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{_index_path(records_dir)}: cannot be read ({error}); build the records again"
        ) from error
    return RecordsIndex(shards=find_shards(records_dir, split), **values)


def load_features(records_dir: str | os.PathLike) -> tfds.features.FeaturesDict:
    """The parser of the records' bytes."""
    return builders.features(len(load_info(records_dir).classes))


def find_shards(records_dir: str | os.PathLike, split: str) -> tuple[Shard, ...]:
    """The record files of a split, from the metadata of TFDS."""
    folder = dataset_path(records_dir)
    try:
        split_info = tfds.builder_from_directory(os.fspath(folder)).info.splits[split]
    except Exception as error:  # TFDS raises its own zoo of errors here
        raise InputError(f"{folder}: not a TFDS data set ({error}); build it again") from error
    shards, first = [], 0
    for path, length in zip(split_info.filepaths, split_info.shard_lengths, strict=True):
        if not pathlib.Path(path).exists():
            raise InputError(f"{path}: this record file is missing; build the records again")
        shards.append(Shard(os.fspath(path), length, first))
        first += length
    return tuple(shards)


def dataset_path(records_dir: str | os.PathLike) -> pathlib.Path:
    """Where the TFDS data set lies."""
    return pathlib.Path(records_dir) / "clip_records" / str(builders.ClipRecords.VERSION)


# --- writing --------------------------------------------------------------------------------------


def write_info(records_dir: pathlib.Path, info: RecordsInfo):
    """Writes `records.json`: the folder is complete from here on."""
    document = {"format": FORMAT, **dataclasses.asdict(info)}
    with replacing(_info_path(records_dir)) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_index(records_dir: pathlib.Path, annotations: Annotations) -> dict[str, SplitInfo]:
    """Reads all records once, which also proves them readable, and writes the index."""
    columns, infos = {}, {}
    for split in annotations.splits:
        index = _build_index(records_dir, split, annotations)
        for name in _INDEX_COLUMNS:
            columns[f"{split}/{name}"] = getattr(index, name)
        infos[split] = SplitInfo(
            num_videos=len(index.video_ids),
            num_records=index.num_records,
            num_frames=int(index.num_frames.sum()),
            num_tubes=sum(len(video.tubes) for video in annotations.split(split)),
            num_bytes=sum(os.path.getsize(shard.path) for shard in index.shards),
        )
    with replacing(_index_path(records_dir)) as temporary:
        np.savez_compressed(temporary, **columns)
    return infos


def _build_index(records_dir: pathlib.Path, split: str, annotations: Annotations) -> RecordsIndex:
    videos = annotations.split(split)
    number = {video.id: i for i, video in enumerate(videos)}
    shards = find_shards(records_dir, split)
    rows = [
        (number[video.decode()], *ranges) for video, *ranges in _scan(shards, annotations.classes)
    ]
    record_video, first, stop, start, end = np.array(rows, np.int32).T
    return RecordsIndex(
        shards=shards,
        video_ids=np.array([video.id for video in videos]),
        num_frames=np.array([video.num_frames for video in videos], np.int32),
        width=np.array([video.width for video in videos], np.int32),
        height=np.array([video.height for video in videos], np.int32),
        record_video=record_video,
        first_frame=first,
        stop_frame=stop,
        core_start=start,
        core_end=end,
        runs=_runs(videos),
    )


def _scan(shards: tuple[Shard, ...], classes: tuple[str, ...]) -> Iterator[tuple]:
    """(video, first_frame, stop_frame, core_start, core_end) of every record, in file order."""
    features = builders.features(len(classes))
    skip = {"frames": tfds.decode.SkipDecoding()}

    def ranges(serialized):
        example = features.deserialize_example(serialized, decoders=skip)
        first = example["first_frame"]
        stop = first + tf.shape(example["frames"], tf.int64)[0]
        return example["video"], first, stop, example["core_start"], example["core_end"]

    files = [shard.path for shard in shards]
    return tf.data.TFRecordDataset(files).map(ranges).prefetch(8).as_numpy_iterator()


def _runs(videos: tuple[Video, ...]) -> np.ndarray:
    runs = []
    for number, video in enumerate(videos):
        for tube_id, tube in enumerate(video.tubes):
            frames, _ = builders.visible_boxes(video, tube)
            for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1):
                if len(run):
                    runs.append((number, tube_id, run[0], run[-1] + 1))
    return np.array(runs, np.int32).reshape(-1, 4)


# --- files ----------------------------------------------------------------------------------------


def _info_path(records_dir) -> pathlib.Path:
    return pathlib.Path(records_dir) / "records.json"


def _index_path(records_dir) -> pathlib.Path:
    return pathlib.Path(records_dir) / "index.npz"


def _load_json(path: pathlib.Path) -> dict:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); build the records again") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a JSON object; build the records again")
    return document


def _parse_info(document: dict, path: pathlib.Path) -> RecordsInfo:
    fields = {key: value for key, value in document.items() if key != "format"}
    try:
        fields["splits"] = {name: SplitInfo(**split) for name, split in fields["splits"].items()}
        fields["classes"] = tuple(fields["classes"])
        return RecordsInfo(**fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); build the records again") from error


def check_split_name(name: str):
    """TFDS makes file names and expressions of split names. Raises InputError for others."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name == "all":
        raise InputError(
            f"split {name!r} cannot be a file name; use letters, digits and underscores, not 'all'"
        )
