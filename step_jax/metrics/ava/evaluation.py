"""A detector's table on a split of AVA: the official numbers of each step, as files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from step_jax.annotations.ava_csv import AvaDetections, AvaLabels
from step_jax.annotations.ava_folder import AvaFolder
from step_jax.annotations.selection import matches, matching
from step_jax.ava_table import read_ava_detections, write_ava_detections
from step_jax.detected_keyframes import KeyframeLimits
from step_jax.detections import read_header
from step_jax.errors import InputError
from step_jax.metrics.ava.keyframe_map import AvaMap, ava_map
from step_jax.metrics.ava.protocol import PROTOCOLS, Protocol
from step_jax.metrics.ava.report import as_json, as_text
from step_jax.tubelet_table import is_tubelet_table, read_tubelet_header

DETECTIONS_CSV = "detections.csv"
PAGE = "report.png"


def check_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises InputError where there is none."""
    if name not in PROTOCOLS:
        raise InputError(f"eval.ava_protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def check_ground_truth(
    annotations: AvaFolder, split: str, *, protocol: str, videos: str = ""
) -> None:
    """Raises InputError where a split's files cannot be read or leave nothing to find.

    That is known before a detector works for hours. The arguments are those of `evaluate_table`.
    """
    options = check_protocol(protocol)
    label_map, exclusions = annotations.label_map(), annotations.exclusions(split)
    labels = _of_videos(annotations.labels(split), videos)
    try:
        ava_map(labels, _no_detections(), label_map, exclusions=exclusions, protocol=options)
    except InputError as error:
        raise InputError(f"{annotations.labels_path(split)}: {error}") from error


def evaluate_table(
    table: str | os.PathLike,
    annotations: AvaFolder,
    split: str,
    *,
    protocol: str,
    videos: str = "",
    limits: KeyframeLimits | None = None,
    csv: str | os.PathLike | None = None,
) -> tuple[dict[int, AvaMap], dict[str, str]]:
    """Every step of a table of detections or of tubelets, and the table's provenance.

    Args:
      table: Parquet.
      annotations, split: the ground truth.
      protocol: one of PROTOCOLS.
      videos: a glob over the ids of the videos that count ("": all of the split).
      limits: of a tubelet table's detections.
      csv: where to write the last step's detections in the official form; None: nowhere.

    Raises InputError as the readers and `ava_map`.
    """
    options = check_protocol(protocol)
    label_map, exclusions = annotations.label_map(), annotations.exclusions(split)
    labels = _of_videos(annotations.labels(split), videos)
    header = read_tubelet_header(table) if is_tubelet_table(table) else read_header(table)
    steps = getattr(header, "steps", range(1, header.num_steps + 1))
    results = {}
    for step in steps:
        found = read_ava_detections([table], label_map, step=step, limits=limits)
        # Of others each would be a false positive: the ground truth has none of theirs.
        found = found.take(matches(found.videos, videos)[found.video])
        try:
            results[step] = ava_map(
                labels, found, label_map, exclusions=exclusions, protocol=options
            )
        except InputError as error:
            raise InputError(f"{annotations.labels_path(split)}, {table}: {error}") from error
    if csv is not None:
        write_ava_detections(csv, found)
    return results, header.provenance


def make_metrics(
    results: Mapping[int, AvaMap], *, version: str, provenance: Mapping[str, str]
) -> dict[str, Any]:
    """For `metrics.json`: "score" is the last step's mAP in percent, so is "mean" of a step; what
    the official evaluation tells too is in [0, 1] as there, and of the last step in full."""
    last = results[max(results)]
    return {
        "score": _percent(last.mean),
        "version": version,
        "steps": [
            {"step": step, "mean": _percent(result.mean), "mAP": as_json(result)["mAP"]}
            for step, result in results.items()
        ],
        **as_json(last),
        "provenance": dict(provenance),
    }


def text_of(results: Mapping[int, AvaMap], *, version: str) -> str:
    """The official table of the last step, and a line with all of them."""
    last = max(results)
    means = ", ".join(f"step {step}: {100 * one.mean:.2f}" for step, one in results.items())
    return f"{as_text(results[last])}\nAVA v{version}, mAP of {means}; the table is step {last}'s"


def write_page(folder: str | os.PathLike, results: Mapping[int, AvaMap]) -> None:
    """Draws the last step's table."""
    from step_jax.visualize.ava_page import draw_page  # matplotlib takes a second to import

    draw_page(results[max(results)], pathlib.Path(folder) / PAGE)


def _of_videos(labels: AvaLabels, pattern: str) -> AvaLabels:
    """The rows of the videos that a glob matches; all for ""."""
    if not pattern:
        return labels
    chosen = matching(labels.videos, pattern)
    empty = labels.empty.take(chosen[labels.empty.video])
    return dataclasses.replace(labels.take(chosen[labels.video]), empty=empty)


def _no_detections() -> AvaDetections:
    empty = np.zeros(0, np.int32)
    return AvaDetections((), empty, empty, np.zeros((0, 4)), empty.astype(np.int16), np.zeros(0))


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * value
