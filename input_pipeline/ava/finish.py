"""From the shards of single videos to a folder of records that readers open, ours and TFDS."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.ava import seconds
from input_pipeline.ava.layout import DATA_SET, RECORDS_FOLDER, RecordsLayout
from input_pipeline.ava.report import VideoReport, read_report, write_table
from input_pipeline.ava.shards import ShardOptions

ReportsBySplit = Mapping[str, Sequence[VideoReport]]


def collect_reports(layout: RecordsLayout) -> list[VideoReport]:
    """Of the videos that were tried, in the order of the splits."""
    videos = [video for split in layout.splits.values() for video in split]
    found = (read_report(layout.report(video)) for video in videos)
    return [report for report in found if report is not None]


def write_folder(layout: RecordsLayout, options: ShardOptions, reports: Sequence[VideoReport]):
    """Writes everything but the shards; `reports` of all videos, also of those that failed."""
    made = {
        split: [report for report in reports if report.split == split and not report.error]
        for split in layout.splits
    }
    made = {split: found for split, found in made.items() if found}
    _fill_with_empty_shards(layout, made)
    _write_tfds_metadata(layout, made)
    write_table(layout.output, reports)
    indices = {split: _index(found, options) for split, found in made.items()}
    records.write_index(layout.output, indices)
    records.write_info(layout.output, _info(layout, options, made))


def _fill_with_empty_shards(layout: RecordsLayout, made: ReportsBySplit):
    """TFDS finds a split's files by their number: those that are not made yet are empty."""
    for split, found in made.items():
        there = {report.video for report in found}
        for video in layout.splits[split]:
            if video not in there:
                (layout.output / layout.shard(split, video)).write_bytes(b"")


def _write_tfds_metadata(layout: RecordsLayout, made: ReportsBySplit):
    from input_pipeline import accelerators

    accelerators.hide_accelerators()
    import tensorflow_datasets as tfds

    from input_pipeline import builders

    folder = layout.output / RECORDS_FOLDER
    splits = []
    for split, found in made.items():
        lengths = {report.video: report.num_records for report in found}
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=DATA_SET, split=split, filetype_suffix="tfrecord"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[lengths.get(video, 0) for video in layout.splits[split]],
                num_bytes=sum(report.num_bytes for report in found),
                filename_template=template,
            )
        )
    with contextlib.redirect_stdout(io.StringIO()):
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=builders.pixel_features(),
            split_infos=splits,
            description="AVA's frames, twelve of each second from 900 to 1799.",
            check_data=False,
        )


def _index(found: Sequence[VideoReport], options: ShardOptions) -> records.RecordsIndex:
    """Known without a look at the records, since all videos are cut alike."""
    cuts = options.segments
    count = len(found)

    def each_video(name: str) -> np.ndarray:
        return np.tile(np.array([getattr(cut, name) for cut in cuts], np.int32), count)

    return records.RecordsIndex(
        video_ids=np.array([report.video for report in found]),
        num_frames=np.full(count, seconds.NUM_FRAMES, np.int32),
        width=np.array([report.width for report in found], np.int32),
        height=np.array([report.height for report in found], np.int32),
        record_video=np.repeat(np.arange(count, dtype=np.int32), len(cuts)),
        first_frame=each_video("start"),
        stop_frame=each_video("stop"),
        core_start=each_video("core_start"),
        core_end=each_video("core_end"),
        runs=np.zeros((0, 4), np.int32),
    )


def _info(
    layout: RecordsLayout, options: ShardOptions, made: ReportsBySplit
) -> records.RecordsInfo:
    everything = [report for found in made.values() for report in found]
    keys = json.dumps([report.key for report in everything])
    return records.RecordsInfo(
        name="ava",
        annotations_file="",
        digest=hashlib.sha256(keys.encode()).hexdigest(),
        video_bytes={report.video: report.source_bytes for report in everything},
        classes=(),
        core_frames=options.core_frames,
        halo_before=options.halo_before,
        halo_after=options.halo_after,
        short_side=options.short_side,
        jpeg_quality=options.jpeg_quality,
        splits={split: _split_info(layout, split, found) for split, found in made.items()},
        kind="ava",
        first_second=seconds.FIRST_SECOND,
        missing_keyframes=_marked(everything, "missing_keyframes"),
        repeated_keyframes=_marked(everything, "repeated_keyframes"),
    )


def _split_info(
    layout: RecordsLayout, split: str, found: Sequence[VideoReport]
) -> records.SplitInfo:
    return records.SplitInfo(
        num_videos=len(found),
        num_records=sum(report.num_records for report in found),
        num_frames=len(found) * seconds.NUM_FRAMES,
        num_tubes=0,
        num_bytes=sum(report.num_bytes for report in found),
        shards=tuple((layout.shard(split, report.video), report.num_records) for report in found),
    )


def _marked(reports: Sequence[VideoReport], name: str) -> dict[str, tuple[int, ...]]:
    """By video, of those that have any."""
    marked = {report.video: tuple(getattr(report, name)) for report in reports}
    return {video: keyframes for video, keyframes in marked.items() if keyframes}
