"""Where things are: AVA's files as downloaded, and what a folder of its records holds.

records.json, index.npz       as in every folder of records (`input_pipeline.records`)
clip_records/1.0.0/           one record file a video, a data set that TFDS reads too; the file
                              of a video that is not there yet is empty
videos/VIDEO.json             what became of a video: the state from which a run goes on
report.json, report.csv       the same of all videos
plan.json                     the videos and options that the folder is for
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

from input_pipeline.ava.shards import ShardOptions
from step_jax.annotations.ava_csv import read_labels
from step_jax.annotations.ava_lists import read_file_names
from step_jax.errors import InputError
from step_jax.files import write_json

SPLITS = ("train", "val")
VERSIONS = ("2.1", "2.2")
DATA_SET = "clip_records"
RECORDS_FOLDER = f"{DATA_SET}/1.0.0"

Splits = Mapping[str, tuple[str, ...]]


def read_splits(annotations: pathlib.Path, version: str) -> Splits:
    """The videos of each split, sorted: those that occur in its annotations.

    Raises InputError if neither file is there, or a video is in both or cannot be a file's name.
    """
    paths = {split: annotations / f"ava_{split}_v{version}.csv" for split in SPLITS}
    splits = {split: read_labels(path).videos for split, path in paths.items() if path.exists()}
    if not splits:
        names = " nor ".join(path.name for path in paths.values())
        raise InputError(f"{annotations}: has neither {names}; is --version {version} right?")
    both = set.intersection(*map(set, splits.values())) if len(splits) > 1 else ()
    if both:
        raise InputError(f"{annotations}: video {min(both)} is in both splits of v{version}")
    for name in (name for videos in splits.values() for name in videos):
        if "/" in name or "\\" in name or name.startswith("."):
            raise InputError(f"{annotations}: video {name!r}; expected a name without a folder")
    return splits


def read_movie_names(annotations: pathlib.Path) -> dict[str, str]:
    """{video: file name} of AVA's lists that lie there; both versions' movies are the same."""
    names: dict[str, str] = {}
    for path in sorted(annotations.glob("ava_file_names_*.txt")):
        names |= read_file_names(path)
    return names


@dataclass(frozen=True)
class RecordsLayout:
    """The files of a folder of AVA's records. splits: all videos that it is for."""

    output: pathlib.Path
    splits: Splits

    def shard(self, split: str, video: str) -> str:
        """A video's record file, from the folder. Its number is the video's in its split."""
        videos = self.splits[split]
        place = f"{videos.index(video):05d}-of-{len(videos):05d}"
        return f"{RECORDS_FOLDER}/{DATA_SET}-{split}.tfrecord-{place}"

    def report(self, video: str) -> pathlib.Path:
        """What became of a video."""
        return self.output / "videos" / f"{video}.json"

    def remove_halves(self):
        """Removes what a run that was interrupted had not finished."""
        for folder in (self.output / RECORDS_FOLDER, self.output / "videos"):
            for path in folder.glob(".*.tmp*"):
                path.unlink()


def join_plan(output: pathlib.Path, splits: Splits, options: ShardOptions) -> Splits:
    """All splits that the folder is for: these, and those of earlier runs, which it keeps.

    Raises InputError if it holds records made otherwise, or of other videos.
    """
    path = output / "plan.json"
    if not path.exists():
        if (output / "records.json").exists():
            raise InputError(f"{output}: holds records that are not AVA's; choose another folder")
        return splits
    known, made_with = _read_plan(path)
    for name, value in dataclasses.asdict(options).items():
        if made_with.get(name) != value:
            raise InputError(
                f"{output}: was begun with {name} {made_with.get(name)}, not {value}; give that, "
                "or choose another output folder"
            )
    for split in known.keys() & splits.keys():
        if known[split] != splits[split]:
            raise InputError(
                f"{output}: was begun with other videos of {split} ({len(known[split])}, not these "
                f"{len(splits[split])}); choose another output folder"
            )
    return {**known, **splits}


def write_plan(output: pathlib.Path, splits: Splits, options: ShardOptions):
    """Writes what `join_plan` reads."""
    write_json(output / "plan.json", {"options": dataclasses.asdict(options), "splits": splits})


def _read_plan(path: pathlib.Path) -> tuple[Splits, dict]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        splits = {str(split): tuple(videos) for split, videos in document["splits"].items()}
        return splits, dict(document["options"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error!r}); choose another output folder") from error
