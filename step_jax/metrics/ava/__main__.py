"""AVA's frame-mAP of files: `python -m step_jax.metrics.ava`, docs/ava.md."""

from __future__ import annotations

import argparse
from dataclasses import replace

from step_jax.annotations.ava_csv import read_keyframes, read_labels
from step_jax.annotations.ava_labels import read_label_map
from step_jax.ava_table import read_ava_detections
from step_jax.cli import run_command
from step_jax.detected_keyframes import KeyframeLimits
from step_jax.errors import InputError
from step_jax.files import write_json
from step_jax.metrics.ava.keyframe_map import ava_map
from step_jax.metrics.ava.protocol import PROTOCOLS, Protocol
from step_jax.metrics.ava.report import as_json, as_text
from step_jax.metrics.ucf101_24.options import add_flags, options_of
from step_jax.replacing import check_outputs


def main():
    arguments = _parser().parse_args()
    inputs = [arguments.ground_truth, *arguments.detections]
    lists = [arguments.label_map, arguments.exclusions]
    check_outputs([arguments.output, arguments.page], inputs=[*inputs, *lists])
    protocol = _protocol(arguments)
    exclusions = read_keyframes(arguments.exclusions) if arguments.exclusions else None
    label_map = read_label_map(arguments.label_map)
    labels = read_labels(arguments.ground_truth)
    limits = options_of(arguments, KeyframeLimits)
    detections = read_ava_detections(
        arguments.detections, label_map, step=arguments.step, limits=limits
    )
    try:
        result = ava_map(labels, detections, label_map, exclusions=exclusions, protocol=protocol)
    except InputError as error:
        raise InputError(f"{', '.join(inputs)}: {error}") from error
    print(as_text(result))
    if exclusions is not None and not protocol.drop_excluded:
        print(f"note: protocol {protocol.name} has no exclusions, {arguments.exclusions} is unused")
    if arguments.output:
        write_json(arguments.output, as_json(result))
    if arguments.page:
        from step_jax.visualize.ava_page import draw_page  # matplotlib takes a second to import

        draw_page(result, arguments.page)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.metrics.ava", description="AVA's frame-mAP@0.5 of files."
    )
    add = parser.add_argument
    add("--ground_truth", required=True, help="annotations, CSV")
    add(
        "--detections",
        required=True,
        nargs="+",
        help="official CSV, Parquet with its columns, or a detector's table of detections or of "
        "tubelets; several files are the shards of one table",
    )
    add("--label_map", required=True, help="pbtxt; its classes count")
    add("--exclusions", help="CSV of the keyframes to leave out, where the protocol does")
    add("--protocol", choices=PROTOCOLS, default="2018", help="of the official code (%(default)s)")
    add("--output", help="JSON file for the numbers")
    add("--page", help="PNG file for a picture of them")
    add("--step", type=int, help="of a detector's table (the last)")
    options = parser.add_argument_group("options of the protocol, to change one alone")
    switch = argparse.BooleanOptionalAction
    options.add_argument("--drop_excluded", action=switch, help="drop the excluded keyframes")
    options.add_argument(
        "--ignore_unlisted",
        action=switch,
        help="ignore detections on keyframes that the ground truth's file does not name",
    )
    options.add_argument("--limit", type=int, help="rows that count per keyframe; 0: all")
    add_flags(parser, KeyframeLimits, title="detections on a keyframe, of a tubelet table")
    return parser


def _protocol(arguments: argparse.Namespace) -> Protocol:
    chosen = {
        "drop_excluded": arguments.drop_excluded,
        "ignore_unlisted": arguments.ignore_unlisted,
    }
    changes = {name: value for name, value in chosen.items() if value is not None}
    if arguments.limit is not None:
        changes["limit"] = arguments.limit or None
    return replace(PROTOCOLS[arguments.protocol], **changes)


if __name__ == "__main__":
    run_command(main)
