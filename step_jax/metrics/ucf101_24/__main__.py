"""`python -m step_jax.metrics.ucf101_24 --annotations FILE --detections TABLE --output FILE`.

A tubelet table gives everything: frame-mAP with its errors, tubes, video-mAP. A detections table
gives frame-mAP, and tubes of what it still holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from step_jax.annotations import Annotations
from step_jax.cli import run_command
from step_jax.detections import read_detections, read_header
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.linking import LinkOptions
from step_jax.metrics.average_precision import AP_RULES, check_ap_rule
from step_jax.metrics.frame_tally import COUNTED_FRAMES, check_counted_frames
from step_jax.metrics.ucf101_24.annotation_files import read_chosen
from step_jax.metrics.ucf101_24.options import add_flags, options_of
from step_jax.metrics.ucf101_24.protocol import ClipLimits, Protocol
from step_jax.metrics.ucf101_24.report import (
    format_paper_table,
    make_report,
    write_report_table,
)
from step_jax.metrics.ucf101_24.results import (
    StepResult,
    TubeOptions,
    evaluate_detections,
    evaluate_tubelets,
)
from step_jax.replacing import check_outputs
from step_jax.trimming import TrimOptions
from step_jax.tube_table import write_tubes
from step_jax.tubelet_table import is_tubelet_table, read_tubelet_header


def main():
    arguments = _parser().parse_args()
    outputs = arguments.output, arguments.parquet, arguments.tubes, arguments.page
    inputs = arguments.annotations, arguments.split_file, arguments.detections
    check_outputs(outputs, inputs=inputs)
    annotations, left_out = read_chosen(
        arguments.annotations, arguments.split_file, split=arguments.split, videos=arguments.videos
    )
    results, provenance = evaluate_table(arguments, annotations, left_out)
    report = make_report(results, ap=arguments.ap, provenance=provenance)
    print(format_paper_table(report))
    write_json(arguments.output, report)
    if arguments.parquet:
        write_report_table(arguments.parquet, report)
    if arguments.tubes:
        write_tubes(arguments.tubes, list(results[-1].tubes.values())[-1].tubes)
    if arguments.page:
        from step_jax.visualize.report_page import draw_report  # which needs matplotlib

        draw_report(arguments.page, report, results[-1])


def evaluate_table(
    arguments: argparse.Namespace, annotations: Annotations, left_out: frozenset[str]
) -> tuple[list[StepResult], dict[str, str]]:
    """The results of the chosen steps of either kind of table, and its provenance.

    Rows of the videos `left_out` do not count.
    """
    path, split = arguments.detections, arguments.split
    link = options_of(arguments, LinkOptions)
    options = {
        "protocol": _protocol(arguments),
        "tubes": TubeOptions(link=link, trim=options_of(arguments, TrimOptions, prefix="trim_")),
        "left_out": left_out,
    }
    if is_tubelet_table(path):
        header = read_tubelet_header(path)
        options["limits"] = options_of(arguments, ClipLimits, prefix="clip_")
        results = [
            evaluate_tubelets(path, annotations, split, step=step, **options)
            for step in _steps(arguments.step, header.steps)
        ]
        return results, header.provenance
    header = read_header(path)
    if header.frames != "all":
        if arguments.tubes:
            raise InputError(
                f"{path}: has the {header.frames} frames of windows alone, of which no tubes can "
                "be made; leave out --tubes, or evaluate with eval.frames=all"
            )
        options["tubes"] = None
    results = []
    for step in _steps(arguments.step, range(1, header.num_steps + 1)):
        rows = read_detections(path, step=step)
        results.append(evaluate_detections(rows, annotations, split, step=step, **options))
    return results, header.provenance


def _steps(wanted: Sequence[int] | None, known: Sequence[int]) -> list[int]:
    """The steps to evaluate, by default the last. Raises InputError for one that is not there."""
    for step in wanted or ():
        if step not in known:
            raise InputError(f"step {step}: the table has steps {list(known)}")
    return sorted(set(wanted)) if wanted else [max(known)]


def _protocol(arguments: argparse.Namespace) -> Protocol:
    check_ap_rule(arguments.ap)
    check_counted_frames(arguments.frames)
    values: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("iou_threshold", "frame_nms", "tube_nms", "ap", "frames")
    }
    if arguments.thresholds:
        values["thresholds"] = tuple(arguments.thresholds)
    return Protocol(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.metrics.ucf101_24",
        description="Frame- and video-mAP of a table of tubelets or detections.",
    )
    parser.add_argument("--annotations", required=True, help="native JSON, or pyannot.pkl")
    parser.add_argument("--split_file", help="list of the test videos, for pyannot.pkl")
    parser.add_argument("--detections", required=True, help="table of tubelets or detections")
    parser.add_argument("--output", required=True, help="JSON file for the numbers")
    parser.add_argument("--parquet", help="Parquet file for the numbers of each class")
    parser.add_argument("--page", help="PNG file: the table, curves, errors on one page")
    parser.add_argument("--tubes", help="Parquet file for the tubes, trimmed if they are trimmed")
    parser.add_argument("--split", default="test", help="of the annotations (test)")
    parser.add_argument("--videos", default="", help="glob over video ids; the others do not count")
    parser.add_argument(
        "--step", type=int, nargs="+", help="of the detector, one or several (the last)"
    )
    group = parser.add_argument_group("counting; other values than ACT's have their names printed")
    group.add_argument("--ap", default="trapezoid", choices=AP_RULES, help="(trapezoid)")
    group.add_argument("--frames", default="all", choices=COUNTED_FRAMES, help="(all)")
    group.add_argument("--iou_threshold", type=float, default=0.5, help="of boxes in frames (0.5)")
    group.add_argument("--frame_nms", type=float, default=0.3, help="IoU (0.3); 1: none")
    group.add_argument("--tube_nms", type=float, default=0.3, help="iou3dt (0.3); 1: none")
    group.add_argument("--thresholds", type=float, nargs="+", help="of video-mAP")
    add_flags(parser, ClipLimits, title="detections of a window", prefix="clip_")
    add_flags(parser, LinkOptions, title="linking")
    add_flags(parser, TrimOptions, title="trimming, where --trim_penalty is given", prefix="trim_")
    return parser


if __name__ == "__main__":
    run_command(main)
