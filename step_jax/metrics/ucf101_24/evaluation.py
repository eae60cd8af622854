"""A detector's tables on a split: frame-mAP, tubes and video-mAP of each step, as files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from step_jax.annotations import Annotations
from step_jax.detections import read_detections, read_header
from step_jax.metrics.frame_map import format_table
from step_jax.metrics.ucf101_24.protocol import ClipLimits, Protocol
from step_jax.metrics.ucf101_24.report import (
    format_paper_table,
    make_report,
    write_report_table,
)
from step_jax.metrics.ucf101_24.results import (
    LINKED,
    StepResult,
    TubeOptions,
    evaluate_detections,
    evaluate_tubelets,
    tubes_of_table,
)
from step_jax.tube_table import write_tubes
from step_jax.tubelet_table import is_tubelet_table, read_tubelet_header

Results = tuple[list[StepResult], dict[str, str]]


def evaluate_both(
    detections: str | os.PathLike,
    tubelets: str | os.PathLike,
    annotations: Annotations,
    split: str,
    *,
    protocol: Protocol,
    tubes: TubeOptions,
) -> Results:
    """Every step of a detections table, its provenance, and tubes of the tubelets beside it.

    Raises InputError as the readers, the linker and the metrics.
    """
    told, results = read_header(detections), {}
    for step in range(1, told.num_steps + 1):
        rows = read_detections(detections, step=step)  # a step at a time, to save memory
        results[step] = evaluate_detections(rows, annotations, split, step=step, protocol=protocol)
    for step in read_tubelet_header(tubelets).steps:
        made = tubes_of_table(
            tubelets, annotations, split, step=step, protocol=protocol, options=tubes
        )
        results[step] = dataclasses.replace(results[step], tubes=made)
    return list(results.values()), told.provenance


def evaluate_table(
    table: str | os.PathLike,
    annotations: Annotations,
    split: str,
    *,
    protocol: Protocol,
    limits: ClipLimits,
    tubes: TubeOptions | None,
    tube_steps: Sequence[int],
) -> Results:
    """Every step of a table of detections or of tubelets, and the table's provenance.

    Args:
      table: Parquet.
      annotations, split: the ground truth.
      protocol: how it is counted.
      limits: of a tubelet table's detections.
      tubes: how tubes are made; None: none are.
      tube_steps: steps of a detections table whose tubes are made; empty: the last one.

    Raises InputError as the readers, the linker and the metrics.
    """
    if is_tubelet_table(table):
        header = read_tubelet_header(table)
        options = {"protocol": protocol, "limits": limits, "tubes": tubes}
        results = [
            evaluate_tubelets(table, annotations, split, step=step, **options)
            for step in header.steps
        ]
        return results, header.provenance
    told, results = read_header(table), []
    for step in range(1, told.num_steps + 1):
        rows = read_detections(table, step=step)
        wanted = tubes if step in (tube_steps or (told.num_steps,)) else None
        results.append(
            evaluate_detections(
                rows, annotations, split, step=step, protocol=protocol, tubes=wanted
            )
        )
    return results, told.provenance


def make_metrics(
    results: list[StepResult], *, ap: str, provenance: Mapping[str, str]
) -> dict[str, Any]:
    """For `metrics.json`; "score" is the last step's frame-mAP."""
    report = make_report(results, ap=ap, provenance=provenance)
    return {"score": report["steps"][-1]["mean"], **report}


def write_results(
    folder: str | os.PathLike, results: list[StepResult], report: dict[str, Any]
) -> None:
    """The tubes of the last step that has some, and the report as a table and a page."""
    from step_jax.visualize.report_page import draw_report  # which needs matplotlib

    folder = pathlib.Path(folder)
    with_tubes = [result for result in results if result.tubes]
    if not with_tubes:
        return
    for kind, result in with_tubes[-1].tubes.items():
        name = "tubes.parquet" if kind == LINKED else f"tubes_{kind}.parquet"
        write_tubes(folder / name, result.tubes)
    write_report_table(folder / "report.parquet", report)
    draw_report(folder / "report.png", report, with_tubes[-1])


def text_of(report: dict[str, Any]) -> str:
    """The classes' table, and the paper's where there are tubes."""
    tubes = any("video" in step for step in report["steps"])
    text = format_table(report, protocol=not tubes)
    return f"{text}\n\n{format_paper_table(report)}" if tubes else text
