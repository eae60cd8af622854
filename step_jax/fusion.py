"""Fusion at test time: the tubelets of separately trained detectors as those of one (Section 3.5).

    python -m step_jax.fusion --method mean --inputs RGB.parquet FLOW.parquet --output LATE.parquet

Inputs and output are tubelet tables, so that everything after them (NMS, linking, metrics) is as
for one detector. "union" keeps the tubelets of all and lets NMS decide. "mean" averages the scores
and boxes of corresponding tubelets: those that started from the same initial proposal of the same
window, as a mean over two-stream detectors with anchors is one over the same anchor. It means
something only where all detectors have the same list of proposals, which no table can tell: a
table numbers them, and the numbers are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import tqdm

from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.replacing import check_outputs
from step_jax.tubelet_table import (
    TubeletHeader,
    TubeletRows,
    iter_tubelet_videos,
    read_tubelet_header,
)
from step_jax.tubelet_writer import TubeletWriter

METHODS = ("mean", "union")
BOXES = ("mean", "first")
KEYS = ("step", "start", "proposal")


def fuse(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    method: str = "mean",
    weights: Sequence[float] | None = None,
    boxes: str = "mean",
) -> int:
    """Writes the table of the fused detectors; returns the number of its videos.

    One video of each table is in memory at a time.

    Args:
      inputs: two or more tubelet tables of the same windows, as `evaluate.py` writes them.
      output: the table to make.
      method: "mean" or "union".
      weights: of the inputs in a mean, positive; all the same by default.
      boxes: of a mean: "mean", or "first", the first input's as they are.

    Raises InputError where the tables do not fit, naming what differs.
    """
    inputs = [pathlib.Path(path) for path in inputs]
    shares = _checked_shares(method, weights, boxes, len(inputs))
    _check_files(inputs, output)
    header = _common_header(inputs)
    options = {"method": method, "weights": shares.tolist(), "boxes": boxes}
    header = replace(header, provenance=_provenance(inputs, options))
    count = 0
    with TubeletWriter(output, **vars(header)) as writer:
        for tables in _same_videos(inputs):
            _check_same_windows(tables, inputs, keys=KEYS[: 3 if method == "mean" else 2])
            if method == "mean":
                fused = mean_of(tables, header, shares=shares, boxes=boxes)
            else:
                fused = union_of(tables, header)
            writer.append_rows(fused)
            count += 1
    return count


def mean_of(
    tables: Sequence[TubeletRows], header: TubeletHeader, *, shares: np.ndarray, boxes: str = "mean"
) -> TubeletRows:
    """The tubelets of one video, averaged row by row: the rows of all tables have the same keys.

    shares: float64, one a table, with sum 1. boxes: as in `fuse`.
    """
    scores = _weighted([rows.scores for rows in tables], shares)
    tubes = tables[0].tubes
    if boxes == "mean":
        tubes = _weighted([rows.tubes for rows in tables], shares)
    return replace(tables[0], header=header, scores=scores, tubes=tubes)


def union_of(tables: Sequence[TubeletRows], header: TubeletHeader) -> TubeletRows:
    """The tubelets of one video, all of them; proposal p of table i of n becomes p * n + i."""
    count = len(tables)
    proposals = [rows.proposal * count + number for number, rows in enumerate(tables)]
    columns = {
        name: np.concatenate([getattr(rows, name) for rows in tables])
        for name in ("video", "start", "step", "scores", "tubes")
    }
    proposal = np.concatenate(proposals).astype(np.int32)
    return replace(tables[0], header=header, proposal=proposal, **columns)


def _weighted(arrays: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Their mean, summed in float64, as float32."""
    total = np.zeros(arrays[0].shape)
    for array, share in zip(arrays, shares, strict=True):
        total += share * array
    return total.astype(np.float32)


# --- what has to fit ------------------------------------------------------------------------------


def _checked_shares(
    method: str, weights: Sequence[float] | None, boxes: str, count: int
) -> np.ndarray:
    """The weights of `count` inputs, brought to sum 1. Raises InputError for a wrong option."""
    for name, value, known in (("method", method, METHODS), ("boxes", boxes, BOXES)):
        if value not in known:
            raise InputError(f"{name} {value!r}: expected one of {', '.join(known)}")
    if count < 2:
        raise InputError(f"inputs: {count} given; expected two or more tubelet tables to fuse")
    if method == "union" and (weights is not None or boxes != "mean"):
        raise InputError("weights and boxes are of a mean; a union keeps every tubelet as it is")
    if weights is None:
        return np.full(count, 1 / count)
    if len(weights) != count:
        raise InputError(f"weights: {len(weights)} for {count} inputs; expected one for each")
    if not all(0 < weight < math.inf for weight in weights):
        raise InputError(f"weights are {list(weights)}; expected positive numbers")
    return np.array(weights, float) / sum(weights)


def _check_files(inputs: Sequence[pathlib.Path], output: str | os.PathLike) -> None:
    for first, second in itertools.combinations(inputs, 2):
        if first.resolve() == second.resolve():
            raise InputError(f"{second}: given twice; expected the tables of different detectors")
    check_outputs([output], inputs=inputs)


def _common_header(inputs: Sequence[pathlib.Path]) -> TubeletHeader:
    """What all tables say. Raises InputError for the first that one of them says otherwise."""
    headers = [read_tubelet_header(path) for path in inputs]
    names = ("classes", "clip_frames", "stride", "num_boxes", "num_steps", "steps")
    for path, header in zip(inputs[1:], headers[1:], strict=True):
        for name in names:
            ours, first = getattr(header, name), getattr(headers[0], name)
            if ours != first:
                raise InputError(
                    f"{path}: {name} is {_short(ours)}, but {_short(first)} in {inputs[0]}; "
                    "only detectors with the same classes, windows and steps can be fused"
                )
    return headers[0]


def _short(value: object) -> str:
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 120 else f"{text[:116]} ..."


def _same_videos(inputs: Sequence[pathlib.Path]) -> Iterator[list[TubeletRows]]:
    """One video after the other, of each table; the writer's order depends on the names alone.

    Raises InputError for a video that a table lacks.
    """
    with pq.ParquetFile(inputs[0]) as file:
        total = file.num_row_groups
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(tqdm.tqdm(total=total, desc="fusing", unit="video"))
        readers = [stack.enter_context(contextlib.closing(iter_tubelet_videos(p))) for p in inputs]
        for tables in itertools.zip_longest(*readers):
            names = {None if rows is None else rows.videos[0] for rows in tables}
            if len(names) > 1:
                raise _other_videos(inputs)
            yield list(tables)
            progress.update()


def _other_videos(inputs: Sequence[pathlib.Path]) -> InputError:
    """What to say where the tables' videos are not the same, one after the other."""
    videos = [{rows.videos[0] for rows in iter_tubelet_videos(path)} for path in inputs]
    for path, names in zip(inputs[1:], videos[1:], strict=True):
        for lacking, found, holder in (
            (path, videos[0] - names, inputs[0]),
            (inputs[0], names - videos[0], path),
        ):
            if found:
                return InputError(
                    f"{lacking}: has no tubelet of {len(found)} videos of {holder}, such as "
                    f"{min(found)!r}; evaluate both detectors on the same videos"
                )
    return InputError(
        f"{inputs[0]} and {inputs[1]}: their videos lie in different orders; expected files as "
        "evaluate.py writes them"
    )


def _check_same_windows(
    tables: Sequence[TubeletRows], inputs: Sequence[pathlib.Path], *, keys: Sequence[str]
) -> None:
    """Raises InputError where a table has a window, or a proposal of one, that another has not."""
    first = tables[0]
    for path, rows in zip(inputs[1:], tables[1:], strict=True):
        if all(np.array_equal(getattr(first, name), getattr(rows, name)) for name in keys):
            continue
        for lacking, found, holder in (
            (path, _keys(first, keys) - _keys(rows, keys), inputs[0]),
            (inputs[0], _keys(rows, keys) - _keys(first, keys), path),
        ):
            if found:
                step, start, *proposal = min(found)
                what = "".join(f"proposal {p} of " for p in proposal)
                raise InputError(
                    f"{lacking}: lacks {what}the window at frame {start}, step {step}, of video "
                    f"{first.videos[0]!r}, which {holder} has ({len(found)} such); expected the "
                    "same windows in all tables and, for a mean, the same initial proposals"
                )


def _keys(rows: TubeletRows, names: Sequence[str]) -> set[tuple[int, ...]]:
    return set(zip(*(getattr(rows, name).tolist() for name in names), strict=True))


def _provenance(inputs: Sequence[pathlib.Path], options: dict) -> dict[str, str]:
    """What was fused and how; what all inputs say of themselves alike stands as it is."""
    told = [read_tubelet_header(path).provenance for path in inputs]
    common = {key: text for key, text in told[0].items() if all(t.get(key) == text for t in told)}
    parts = [{"table": os.fspath(p), **t} for p, t in zip(inputs, told, strict=True)]
    return common | {"fusion": json.dumps(options), "inputs": json.dumps(parts)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m step_jax.fusion",
        description="Makes one tubelet table of those of several detectors.",
    )
    add = parser.add_argument
    add("--method", choices=METHODS, default="mean", help="mean (default) or union")
    add("--inputs", nargs="+", required=True, metavar="TABLE", help="tubelet tables, two or more")
    add("--weights", nargs="+", type=float, help="of the inputs in a mean (all the same)")
    add("--boxes", choices=BOXES, default="mean", help="of a mean: mean (default) or the first's")
    add("--output", required=True, help="the tubelet table to make")
    told = parser.parse_args()
    count = fuse(
        told.inputs, told.output, method=told.method, weights=told.weights, boxes=told.boxes
    )
    print(f"{told.output}: {told.method} of {len(told.inputs)} tables, {count} videos")


if __name__ == "__main__":
    run_command(main)
