"""Preparing videos on a cluster with Apache Beam: the function of the pool, one element a video.

Sources, records and reports are files; all machines must see them under the same paths.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from input_pipeline.ava.shards import ShardJob, prepare_video
from step_jax.errors import InputError


def run_on_beam(jobs: Sequence[ShardJob], *, runner: str, options: str = ""):
    """Prepares the videos; each job's report says what became of it.

    runner: "DirectRunner" on this machine, "FlinkRunner", "SparkRunner", "DataflowRunner", ...
    options: Beam's own flags, as on a command line.

    Raises InputError if Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"--beam_runner needs Apache Beam ({error}); install the extra: pip install "
            "'.[data,beam]' in the project's folder"
        ) from error
    flags = PipelineOptions(shlex.split(options), runner=runner)
    with beam.Pipeline(options=flags) as pipeline:
        videos = pipeline | "videos" >> beam.Create(list(jobs))
        apart = videos | "one by one" >> beam.Reshuffle()
        apart | "prepare" >> beam.Map(prepare_video)
