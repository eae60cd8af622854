"""Builds AVA's records from movies or frames and the annotation files as they are downloaded.

    python -m input_pipeline.prepare ava --videos DIR --annotations DIR --output DIR

The annotation files only say which videos there are: the records hold pixels, and serve every
version of the annotations.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
from collections.abc import Mapping, Sequence
from fractions import Fraction

from input_pipeline import records as clip_records
from input_pipeline.ava import cluster, disk, finish, layout, pool, sources
from input_pipeline.ava.layout import RecordsLayout
from input_pipeline.ava.report import VideoReport, write_report
from input_pipeline.ava.shards import ShardJob, ShardOptions
from step_jax.errors import InputError
from step_jax.folder_lock import locked_folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 1 if a video could not be prepared, else 0."""
    arguments = _parser().parse_args(argv)
    output, annotations = pathlib.Path(arguments.output), pathlib.Path(arguments.annotations)
    _check_folders(arguments)
    options = _options(arguments)
    splits = layout.read_splits(annotations, arguments.version)
    records = RecordsLayout(output, layout.join_plan(output, splits, options))
    timings = _Timings(arguments)
    with locked_folder(output):
        records.remove_halves()
        jobs, lost = _jobs(records, _chosen(splits, arguments.limit_videos), arguments, timings)
        if not jobs and not lost and _is_finished(records):
            print(f"{output}: up to date")
            return 0
        for report in lost:
            write_report(records.report(report.video), report)
        if jobs:
            _announce(jobs, output, check=not arguments.ignore_disk_space)
            layout.write_plan(output, records.splits, options)
            try:
                _run(jobs, arguments)
            finally:
                records.remove_halves()
        return _finish(records, options)


def _check_folders(arguments: argparse.Namespace):
    for name in ("videos", "annotations"):
        if not pathlib.Path(getattr(arguments, name)).is_dir():
            raise InputError(f"--{name} {getattr(arguments, name)}: no such folder")
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}; expected 1 or more")
    if arguments.limit_videos < 0:
        raise InputError(f"--limit_videos is {arguments.limit_videos}; expected 0 or more")


def _chosen(splits: layout.Splits, limit: int) -> list[tuple[str, str]]:
    """(split, video) of those that are to be prepared now; a limit of 0 is none."""
    return [(split, video) for split in splits for video in splits[split][: limit or None]]


def _jobs(
    records: RecordsLayout,
    chosen: Sequence[tuple[str, str]],
    arguments: argparse.Namespace,
    timings: _Timings,
) -> tuple[list[ShardJob], list[VideoReport]]:
    """What is left to do, and the reports of videos that are not there."""
    jobs, lost, options = [], [], _options(arguments)
    names = layout.read_movie_names(pathlib.Path(arguments.annotations))
    for split, video in chosen:
        job = ShardJob(
            video=video,
            split=split,
            source="",
            shard=str(records.output / records.shard(split, video)),
            report=str(records.report(video)),
            timing=timings.of(video),
            options=options,
        )
        try:
            source = sources.find_source(pathlib.Path(arguments.videos), video, names)
        except InputError as error:
            if arguments.present_only and not job.has_shard():
                records.report(video).unlink(missing_ok=True)
            elif not job.has_shard():
                lost.append(job.failed(str(error)))
            continue
        job = job.with_source(source)
        if not job.is_finished():
            jobs.append(job)
    return jobs, lost


def _announce(jobs: Sequence[ShardJob], output: pathlib.Path, *, check: bool):
    """Prints what is going to be done and needed. Raises InputError if it cannot fit."""
    needed, free = disk.estimate_bytes(jobs), disk.free_bytes(output)
    print(f"{len(jobs)} videos to prepare, {len(jobs) / 4:g} hours of movies")
    if needed is None:
        return
    text = f"about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free at {output}"
    print(f"disk: {text}", flush=True)
    if check and needed > free:
        raise InputError(
            f"the records need {text}; choose another folder, a smaller --short_side or "
            "--jpeg_quality, or give --ignore_disk_space to try"
        )


def _run(jobs: Sequence[ShardJob], arguments: argparse.Namespace):
    if arguments.beam_runner:
        cluster.run_on_beam(jobs, runner=arguments.beam_runner, options=arguments.beam_options)
    else:
        pool.run_jobs(jobs, workers=arguments.workers)


def _is_finished(records: RecordsLayout) -> bool:
    return (records.output / "records.json").exists()


def _finish(records: RecordsLayout, options: ShardOptions) -> int:
    """Makes a folder of records of what there is, and prints what there is not."""
    reports = finish.collect_reports(records)
    failed = [report for report in reports if report.error]
    made = [report for report in reports if not report.error]
    if made:
        finish.write_folder(records, options, reports)
        print(clip_records.summary(records.output))
    _print_remarks(made)
    for report in failed:
        print(f"failed: {report.video}: {report.error}")
    if failed:
        print(f"{len(failed)} videos failed; the same command tries these again")
    return 1 if failed else 0


def _print_remarks(reports: Sequence[VideoReport]):
    for report in reports:
        if report.remarks:
            print(f"  {report.video}: {'; '.join(report.remarks)}")
    uneven = [report for report in reports if report.warned_seconds]
    if uneven:
        count = sum(len(report.warned_seconds) for report in uneven)
        print(f"  {count} seconds of {len(uneven)} videos are uneven or empty, see report.csv")


class _Timings:
    """Where the videos' time 0 lies: of each as a file says, of the others as a flag does."""

    def __init__(self, arguments: argparse.Namespace):
        self._fps = _fraction(arguments.folder_fps, "--folder_fps")
        text = arguments.start_second
        self._of_all = None if text is None else _fraction(text, "--start_second")
        path = arguments.start_seconds
        self._of_video = {} if path is None else _read_start_seconds(pathlib.Path(path))
        if self._fps <= 0:
            raise InputError(f"--folder_fps is {self._fps}; expected more than 0")

    def of(self, video: str) -> sources.Timing:
        return sources.Timing(self._of_video.get(video, self._of_all), self._fps)


def _read_start_seconds(path: pathlib.Path) -> Mapping[str, Fraction]:
    """{video: second of the movie at which its file starts}, of lines `video,seconds`."""
    starts: dict[str, Fraction] = {}
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read: {reason}") from error
    for line, row in enumerate(rows, 1):
        if len(row) not in (0, 2):
            raise InputError(f"{path}:{line}: {','.join(row)!r}; expected video,seconds")
        if row:
            starts[row[0].strip()] = _fraction(row[1], f"{path}:{line}")
    return starts


def _fraction(text: str, where: str) -> Fraction:
    try:
        return Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{where}: {text!r}; expected a number, as 900 or 30000/1001") from error


def _options(arguments: argparse.Namespace) -> ShardOptions:
    names = ShardOptions.__dataclass_fields__
    return ShardOptions(**{name: getattr(arguments, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m input_pipeline.prepare ava",
        description="Build AVA's records from the movies or their frames.",
    )
    add = parser.add_argument
    add("--videos", required=True, metavar="DIR", help="movies, or a folder of frames for each")
    add("--annotations", required=True, metavar="DIR", help="AVA's annotation files")
    add("--output", required=True, metavar="DIR", help="folder of the records")
    add("--version", choices=layout.VERSIONS, default="2.1", help="whose videos (2.1)")
    add("--start_second", metavar="S", help="where files begin in the movie (0; folders 900)")
    add("--start_seconds", metavar="CSV", help="the same by video: lines video,seconds")
    add("--folder_fps", default=str(sources.FOLDER_FPS), help="of folders of frames (30)")
    add("--limit_videos", type=int, default=0, metavar="N", help="the first N of each split only")
    add("--present_only", action="store_true", help="videos that are not there are no failure")
    add("--ignore_disk_space", action="store_true", help="begin even if it seems not to fit")
    add("--workers", type=int, default=2, help="processes on this machine (2)")
    add("--beam_runner", metavar="RUNNER", help="prepare with Apache Beam, e.g. DirectRunner")
    add("--beam_options", default="", metavar="FLAGS", help="Beam's own flags, in quotes")
    helps = {
        "core_frames": "of a record, whole seconds",
        "halo_before": "frames kept before the core",
        "halo_after": "frames kept after the core",
        "short_side": "shrink frames to this shorter side, pixels (0: keep)",
        "jpeg_quality": "1 to 100",
    }
    for name, field in ShardOptions.__dataclass_fields__.items():
        text = f"{helps[name]} ({field.default})"
        add("--" + name, type=int, default=field.default, help=text)
    return parser
