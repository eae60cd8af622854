"""`python -m step_jax.metrics.ucf101_24.link`: from a table of tubelets to a table of tubes."""

from __future__ import annotations

import argparse
from dataclasses import replace

from step_jax.cli import run_command
from step_jax.linking import LinkOptions
from step_jax.metrics.ucf101_24.annotation_files import read_chosen
from step_jax.metrics.ucf101_24.options import add_flags, options_of
from step_jax.metrics.ucf101_24.results import TubeOptions, link_table
from step_jax.replacing import check_outputs
from step_jax.trimming import TrimOptions, trim
from step_jax.tube_table import write_tubes
from step_jax.tubelet_table import read_tubelet_header


def main():
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.metrics.ucf101_24.link",
        description="Links tubelets into action tubes, and trims them if a penalty is given.",
    )
    parser.add_argument("--annotations", required=True, help="native JSON, or pyannot.pkl")
    parser.add_argument("--split_file", help="list of the test videos, for pyannot.pkl")
    parser.add_argument("--detections", required=True, help="table of tubelets")
    parser.add_argument("--output", required=True, help="Parquet file for the tubes")
    parser.add_argument("--split", default="test", help="of the annotations (test)")
    parser.add_argument("--videos", default="", help="glob over video ids; only these")
    parser.add_argument("--step", type=int, help="of the detector (the last of the table)")
    add_flags(parser, LinkOptions, title="linking")
    add_flags(parser, TrimOptions, title="trimming, where --trim_penalty is given", prefix="trim_")
    arguments = parser.parse_args()

    inputs = arguments.annotations, arguments.split_file, arguments.detections
    check_outputs([arguments.output], inputs=inputs)
    header = read_tubelet_header(arguments.detections)
    annotations, left_out = read_chosen(
        arguments.annotations, arguments.split_file, split=arguments.split, videos=arguments.videos
    )
    step = max(header.steps) if arguments.step is None else arguments.step
    options = TubeOptions(
        link=options_of(arguments, LinkOptions),
        trim=options_of(arguments, TrimOptions, prefix="trim_"),
    )
    tubes = link_table(
        arguments.detections,
        annotations,
        arguments.split,
        step=step,
        options=options.link,
        left_out=left_out,
    )
    if options.trim is not None:
        tubes = trim(tubes, options.trim)
    told = header.provenance | {"step": str(step)} | tubes.provenance
    write_tubes(arguments.output, replace(tubes, provenance=told))
    print(f"wrote {len(tubes):,} tubes of {len(set(tubes.video.tolist()))} videos to "
          f"{arguments.output}")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
