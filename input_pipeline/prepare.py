"""Builds the clip records of a data set.

    python -m input_pipeline.prepare --annotations FILE --output DIR [--flow DIR]
    python -m input_pipeline.prepare ucf101_24 --source DIR --output DIR
    python -m input_pipeline.prepare ava --videos DIR --annotations DIR --output DIR

Every video is decoded once, by a pool of processes, into a frame store under `DIR/partial-*`; then
TFDS writes the records from the stores. An interrupted run goes on with the videos that have no
store yet; a finished one says "up to date". While it works it needs two to three times the disk
space of the records.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from input_pipeline import flow_folders, records, ucf101_24
from input_pipeline.decoding import frame_progress, open_flow_store, open_store, store_frames
from input_pipeline.frame_store import FrameStore
from step_jax import cli
from step_jax.annotations import Annotations, Video, read_native, write_native
from step_jax.errors import InputError
from step_jax.folder_lock import locked_folder


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """What changes the records.

    core_frames: the most frames of a record's core.
    halo_before, halo_after: frames around the core. A window of K target and T input frames needs
        (T - K) // 2 before and K - 1 + (T - K + 1) // 2 after; the defaults serve K = 6, T = 30.
    short_side: frames whose shorter side is longer are shrunk to it, pixels; 0 keeps their size.
    jpeg_quality: 1 to 100.
    shards: record files of each split; 0 chooses by size.
    flow_frames: flow images that each input frame may read, its own and those after it; only where
        the records hold flow.
    """

    core_frames: int = 24
    halo_before: int = 12
    halo_after: int = 17
    short_side: int = 0
    jpeg_quality: int = 95
    shards: int = 0
    flow_frames: int = 5

    def __post_init__(self):
        limits = {"core_frames": 1, "jpeg_quality": 1, "flow_frames": 1}
        for name, value in vars(self).items():
            if value < limits.get(name, 0):
                raise InputError(f"{name} is {value}; expected {limits.get(name, 0)} or more")
        if self.jpeg_quality > 100:
            raise InputError(f"jpeg_quality is {self.jpeg_quality}; expected 100 or less")


def prepare(
    annotations: Annotations,
    output: str | os.PathLike,
    *,
    options: RecordOptions | None = None,
    annotations_file: str = "",
    workers: int = 2,
    flow: str | os.PathLike | None = None,
) -> bool:
    """Builds the records of all splits of a data set.

    Args:
      annotations: the data set; the video files are found from its root.
      output: the folder to make; a folder with a part of the same records is completed.
      options: what the records hold.
      annotations_file: the name kept in `records.json`.
      workers: processes that decode videos.
      flow: a folder of flow images (`flow_folders`), which the records get too; None: none.

    Returns whether there was anything to do. Raises InputError naming the video, file or option.
    """
    options = options or RecordOptions()
    output = pathlib.Path(output)
    _check_annotations(annotations, options)
    told = None if flow is None else flow_folders.describe_flow(flow)
    digest = records_digest(annotations, options, flow=told)
    if _is_up_to_date(output, digest, annotations):
        return False
    _check_videos(annotations)
    images = None if flow is None else flow_folders.find_flow(flow, annotations)
    with locked_folder(output):
        partial = output / f"partial-{digest[:12]}"
        partial.mkdir(exist_ok=True)
        store_frames(
            annotations,
            partial,
            workers=workers,
            short_side=options.short_side,
            jpeg_quality=options.jpeg_quality,
            flow=images,
        )
        sources = _Sources(annotations, partial, annotations_file, told, images)
        _write_records(sources, output, options, digest)
        for leftover in output.glob("partial-*"):
            shutil.rmtree(leftover)
    return True


def records_digest(
    annotations: Annotations, options: RecordOptions, *, flow: Mapping[str, Any] | None = None
) -> str:
    """SHA-256 of everything that the records are made from, but for the pixels.

    flow: how it was computed (`flow_folders.describe_flow`); None where there is none.
    """
    digest = hashlib.sha256()
    header = {"name": annotations.name, "classes": annotations.classes, **vars(options)}
    if flow is not None:
        header["flow"] = dict(flow)
    else:
        del header["flow_frames"]  # as it was before records could hold flow
    digest.update(json.dumps(header).encode())
    for video in annotations.videos:
        scalars = {key: value for key, value in vars(video).items() if key != "tubes"}
        digest.update(json.dumps(scalars).encode())
        for tube in video.tubes:
            digest.update(json.dumps(tube.labels).encode())
            digest.update(tube.frames.tobytes() + tube.boxes.tobytes())
    return digest.hexdigest()


def _check_annotations(annotations: Annotations, options: RecordOptions):
    if not annotations.videos:
        raise InputError(f"{annotations.name}: no videos; there is nothing to build records from")
    for split in annotations.splits:
        _check_split_name(split)
    fewest_records = _fewest_records(annotations, options)
    if options.shards > fewest_records:
        raise InputError(
            f"{options.shards} shards, but the smallest split has {fewest_records} records; "
            "ask for fewer shards or smaller cores"
        )


def _check_split_name(name: str):
    """TFDS makes file names and expressions of the names of splits."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name == "all":
        raise InputError(
            f"split {name!r} cannot be a file name; use letters, digits and underscores, not 'all'"
        )


def _check_videos(annotations: Annotations):
    for video in annotations.videos:
        if not annotations.video_path(video).exists():
            raise InputError(
                f"video {video.id!r}: {annotations.video_path(video)} does not exist; paths start "
                "from the folder of the annotation file"
            )


def _is_up_to_date(output: pathlib.Path, digest: str, annotations: Annotations) -> bool:
    """Whether the records are there: of these annotations, options and still existing videos."""
    if not records.info_path(output).exists():
        return False
    info = records.load_info(output)
    if info.digest != digest:
        raise InputError(
            f"{output}: holds records of other annotations or options; choose another output "
            "folder, or remove this one first"
        )
    for video in annotations.videos:
        path = annotations.video_path(video)
        if path.exists() and _video_bytes(path) != info.video_bytes[video.id]:
            raise InputError(
                f"{output}: {path} has changed since the records were built; remove the folder "
                "and build them again"
            )
    return True


def _video_bytes(path: pathlib.Path) -> int:
    return 0 if path.is_dir() else path.stat().st_size


# --- records --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sources:
    """What records are made of: decoded videos in `partial`, and flow images, if any."""

    annotations: Annotations
    partial: pathlib.Path
    annotations_file: str
    told: Mapping[str, Any] | None
    flow: Mapping[str, pathlib.Path] | None

    def open_frames(self, video: Video) -> FrameStore:
        return open_store(self.annotations, self.partial, video)

    def open_flow(self, video: Video) -> FrameStore:
        return open_flow_store(self.partial, video, self.flow[video.id])


def _write_records(sources: _Sources, output: pathlib.Path, options: RecordOptions, digest: str):
    # Here, because the processes that decode import this module, and TensorFlow takes seconds.
    from input_pipeline import accelerators, builders

    accelerators.hide_accelerators()
    annotations = sources.annotations
    has_flow = sources.flow is not None
    # What an interrupted run left, without records.json, may be another data set's.
    shutil.rmtree(output / "clip_records", ignore_errors=True)
    with frame_progress(annotations, "writing records") as progress:
        shards = builders.write_records(
            annotations,
            output,
            num_shards=_num_shards(annotations, sources.partial, options),
            segmentation=_segmentation(options),
            open_store=sources.open_frames,
            flow=builders.FlowStores(sources.open_flow, options.flow_frames) if has_flow else None,
            progress=progress.update,
            scratch=sources.partial,
        )
    indices = {
        split: builders.read_index(
            [output / name for name, _ in shards[split]],
            annotations.split(split),
            num_classes=len(annotations.classes),
        )
        for split in annotations.splits
    }
    records.write_index(output, indices)
    splits = {
        split: _split_info(annotations.split(split), index, shards[split], output)
        for split, index in indices.items()
    }
    records.write_info(output, _info(sources, options, digest, splits))


def _info(
    sources: _Sources,
    options: RecordOptions,
    digest: str,
    splits: Mapping[str, records.SplitInfo],
) -> records.RecordsInfo:
    annotations = sources.annotations
    return records.RecordsInfo(
        name=annotations.name,
        annotations_file=sources.annotations_file,
        digest=digest,
        video_bytes={
            video.id: _video_bytes(annotations.video_path(video)) for video in annotations.videos
        },
        classes=annotations.classes,
        short_side=options.short_side,
        jpeg_quality=options.jpeg_quality,
        splits=splits,
        flow=sources.told["method"] if sources.told else "",
        flow_side=sources.told["short_side"] if sources.told else 0,
        flow_frames=options.flow_frames if sources.flow is not None else 0,
        **_segmentation(options),
    )


def _segmentation(options: RecordOptions) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("core_frames", "halo_before", "halo_after")}


def _split_info(
    videos: Sequence[Video],
    index: records.RecordsIndex,
    shards: Sequence[tuple[str, int]],
    output: pathlib.Path,
) -> records.SplitInfo:
    return records.SplitInfo(
        num_videos=len(videos),
        num_records=index.num_records,
        num_frames=sum(video.num_frames for video in videos),
        num_tubes=sum(len(video.tubes) for video in videos),
        num_bytes=sum((output / name).stat().st_size for name, _ in shards),
        shards=tuple(shards),
    )


def _num_shards(annotations: Annotations, partial: pathlib.Path, options: RecordOptions) -> int:
    """Of each split: as asked, or about 64 MiB each but at least 8, and never an empty one."""
    frames = sum(path.stat().st_size for path in partial.glob("*.jpegs"))
    overlap = 1 + (options.halo_before + options.halo_after) / options.core_frames
    by_size = int(frames * overlap / len(annotations.splits)) // (64 << 20)
    return options.shards or min(_fewest_records(annotations, options), max(8, by_size))


def _fewest_records(annotations: Annotations, options: RecordOptions) -> int:
    """Of the smallest split."""
    return min(
        sum(-(-video.num_frames // options.core_frames) for video in annotations.split(split))
        for split in annotations.splits
    )


# --- command --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command; `ucf101_24` or `ava` as its first argument is one of its own."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["ucf101_24"]:
        _prepare_ucf101_24(argv[1:])
        return 0
    if argv[:1] == ["ava"]:
        from input_pipeline.ava import command

        return command.main(argv[1:])
    arguments = _parser().parse_args(argv)
    path = pathlib.Path(arguments.annotations)
    options = record_options(arguments)
    annotations = read_native(path)
    built = prepare(
        annotations,
        arguments.output,
        options=options,
        annotations_file=path.name,
        workers=arguments.workers,
        flow=arguments.flow,
    )
    print(records.summary(arguments.output) if built else f"{arguments.output}: up to date")
    return 0


def _prepare_ucf101_24(argv: Sequence[str]):
    """From the files as they are downloaded; the annotations are kept beside the records."""
    parser = ucf101_24.make_parser()
    add_record_options(parser)
    arguments = parser.parse_args(argv)
    annotations, flow = ucf101_24.read_download(arguments)
    output = pathlib.Path(arguments.output)
    built = prepare(
        annotations,
        output,
        options=record_options(arguments),
        annotations_file=ucf101_24.ANNOTATIONS_FILE,
        workers=arguments.workers,
        flow=flow,
    )
    write_native(output / ucf101_24.ANNOTATIONS_FILE, annotations)
    print(records.summary(output) if built else f"{output}: up to date")
    print(f"annotations: {output / ucf101_24.ANNOTATIONS_FILE}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.prepare",
        description="Build the clip records of a data set.",
        epilog="From data sets as downloaded: python -m input_pipeline.prepare ucf101_24 --help, "
        "python -m input_pipeline.prepare ava --help",
    )
    parser.add_argument("--annotations", required=True, help="native annotation file (JSON)")
    parser.add_argument("--output", required=True, help="folder of the records")
    parser.add_argument("--flow", help="folder of flow images, which mirrors the videos")
    add_record_options(parser)
    return parser


def add_record_options(parser: argparse.ArgumentParser):
    """Flags of `RecordOptions`, and `--workers`."""
    helps = {
        "core_frames": "most frames of a record's core",
        "halo_before": "frames kept before the core",
        "halo_after": "frames kept after the core",
        "short_side": "shrink frames to this shorter side, pixels (0: keep)",
        "jpeg_quality": "1 to 100",
        "shards": "record files of each split (0: by size)",
        "flow_frames": "flow images that each input frame may read (with --flow)",
    }
    for name, field in RecordOptions.__dataclass_fields__.items():
        flag = "--" + name
        parser.add_argument(flag, type=int, default=field.default, help=helps[name])
    parser.add_argument("--workers", type=int, default=2, help="processes that decode videos")


def record_options(arguments: argparse.Namespace) -> RecordOptions:
    """What the flags of `add_record_options` say."""
    return RecordOptions(
        **{name: getattr(arguments, name) for name in RecordOptions.__dataclass_fields__}
    )


if __name__ == "__main__":
    cli.run_command(main)
