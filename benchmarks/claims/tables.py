"""The results as Markdown: the statements, and tables in the paper's layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims.layout import (
    FIGURE_5,
    FIGURE_5_BESIDE,
    FIGURE_5_STRIDES,
    PROPOSALS,
    SECTION_42,
    SECTION_42_M34,
    TABLE_1A,
    TABLE_1B,
)
from benchmarks.claims.matrix import FULL, PLAIN
from benchmarks.claims.statements import (
    HOLDS,
    STATEMENTS,
    Compared,
    Judged,
    OverlapMean,
    Results,
    judge,
    mean_and_deviation,
)
from benchmarks.machine import summary

_NONE = "-"
_STEPS = 4  # at most
_VIDEO_THRESHOLDS = ("0.05", "0.1", "0.2", "0.5", "0.5:0.95")
_FINER_THRESHOLDS = ("0.3", "0.5", "0.6", "0.7")


def page(
    results: Results, measured: Mapping[str, Any] | None, checks: Mapping[str, Any] | None = None
) -> str:
    """All of it, below one another; `measured` and `checks` as those programs wrote them."""
    speed = measured["speed"] if measured else None
    parts = [
        runs_line(results),
        statements([judge(one, results) for one in STATEMENTS]),
        _titled("Table 1a: frame-mAP with S steps", by_step(results, TABLE_1A, steps=_STEPS)),
        _titled("Figure 5: temporal extension", figure_5(results)),
        _titled("Table 1b: modalities", table_1b(results)),
        _titled("Section 4.2: one technique removed at a time", section_42(results)),
        _titled("Figure 4: overlap of the input proposals", overlap_table(results)),
        _titled("Figure 6: speed, and the number of proposals", figure_6(results, measured)),
        _titled("Table 2: against a dense set of proposals", table_2(results, speed)),
    ]
    if checks:
        parts.append(_titled("How rows are trained", checked(checks)))
    return "\n\n".join(parts) + "\n"


def _titled(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def runs_line(results: Results) -> str:
    """How many runs there are, and which rows have not the seeds of the others."""
    seeds = {row: tuple(run["seed"] for run in runs) for row, runs in results.items()}
    number = sum(map(len, seeds.values()))
    most = max(seeds.values(), key=len, default=())
    others = [f"`{row}` {_listed(own)}" for row, own in seeds.items() if own != most]
    told = f"{number} runs; seeds of every row: {_listed(most)}"
    return f"{told}, but for {', '.join(others)}." if others else f"{told}."


def _listed(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds)) or _NONE


def statements(judged: Sequence[Judged]) -> str:
    """How many of the twelve hold, they, and those beside them."""
    counted = [one for one in judged if one.statement.counted]
    beside = [one for one in judged if not one.statement.counted]
    holding = sum(one.verdict == HOLDS for one in counted)
    return "\n\n".join(
        [
            f"{holding} of {len(counted)} statements hold.",
            statements_table(counted),
            "Beside the twelve:",
            statements_table(beside),
        ]
    )


def statements_table(judged: Sequence[Judged]) -> str:
    """Each statement with its comparisons."""
    rows = [
        [
            one.statement.text,
            one.statement.source,
            one.statement.paper,
            "<br>".join(_compared(each) for each in one.compared) or _NONE,
            f"**{one.verdict}**",
        ]
        for one in judged
    ]
    return table(["statement", "where", "the paper's numbers", "here", ""], rows)


def _compared(one: Compared) -> str:
    more, less = one.comparison
    digits = 3 if isinstance(more, OverlapMean) else 1
    first, second = _shown(*one.more, digits=digits), _shown(*one.less, digits=digits)
    by_seed = " ".join(f"{value:+.{digits}f}" for value in one.by_seed)
    return f"{more.text} **{first}**, {less.text} **{second}**, by seed {by_seed}: {one.verdict}"


def table_1b(results: Results) -> str:
    rows = [[name, _last(results, row)] for row, name in TABLE_1B.items()]
    return table(["", "frame-mAP"], rows)


def figure_5(results: Results) -> str:
    """Per step, per class, how tightly tubes fit, and from how many windows."""
    rows = [
        [name, *_video(results, row, "trimmed", _FINER_THRESHOLDS)]
        for row, name in FIGURE_5.items()
    ]
    header = ["trimmed tubes", *(f"video-mAP {one}" for one in _FINER_THRESHOLDS)]
    return "\n\n".join(
        [
            by_step(results, FIGURE_5 | FIGURE_5_BESIDE),
            by_class(results, FIGURE_5),
            table(header, rows),
            _strides(results),
        ]
    )


def _strides(results: Results) -> str:
    """Of each how many windows the test videos have; they are the same with every seed."""
    rows = [
        [name, *(str(run["windows"]) for run in results.get(row, ())[:1]), *_steps(results, row)]
        for row, name in FIGURE_5_STRIDES.items()
        if results.get(row)
    ]
    return table(["windows", "number", "step 1", "step 2", "step 3"], [row[:5] for row in rows])


def section_42(results: Results) -> str:
    parts = [by_step(results, SECTION_42 | SECTION_42_M34), by_class(results, SECTION_42)]
    return "\n\n".join(parts)


def by_step(results: Results, rows: Mapping[str, str], *, steps: int = 3) -> str:
    """Frame-mAP after each step; `rows` are those of the results, with their names."""
    told = [[name, *_steps(results, row)[:steps]] for row, name in rows.items()]
    return table(["", *(f"step {step}" for step in range(1, steps + 1))], told)


def by_class(results: Results, rows: Mapping[str, str]) -> str:
    """Average precision of each class after the last step, means; "" before the first run."""
    found = {row: [run["per_class"][-1] for run in results.get(row, ())] for row in rows}
    classes = [*next((runs[0] for runs in found.values() if runs), ())]
    if not classes:
        return ""
    told = []
    for row, runs in found.items():
        cells = [_NONE] * len(classes)
        if runs:
            cells = [f"{np.mean([run[name] for run in runs]):.1f}" for name in classes]
        told.append([rows[row], *cells])
    return table(["AP of the last step", *classes], told)


def overlap_table(results: Results) -> str:
    """Means over all proposals of training clips."""
    runs = results.get(FULL, ())
    if not runs:
        return "Not run yet."
    means = np.array([run["overlap"] for run in runs]).T
    cells = [_shown(*mean_and_deviation(values), digits=3) for values in means]
    return table(
        ["", *(f"step {n}" for n in range(1, len(cells) + 1))],
        [["mean IoU, of the histogram's bins", *cells]],
    )


def figure_6(results: Results, measured: Mapping[str, Any] | None) -> str:
    speed = measured["speed"] if measured else None
    rows = [
        [str(number), _last(results, row), *_speed(speed, f"proposals_{number}")]
        for number, row in PROPOSALS.items()
    ]
    proposals = table(["M", "frame-mAP, three steps of 6 frames", "frames/s"], rows)
    rows = [
        [str(steps), *_speed(speed, f"steps_{steps}"), *_speed(speed, f"extended_{steps}")]
        for steps in range(1, _STEPS + 1)
    ]
    steps = table(["S", "frames/s, not extended", "frames/s, extended"], rows)
    told = [proposals, steps]
    if measured:
        told.append(f"The detector alone, one window at a time: {summary(measured['machine'])}.")
    return "\n\n".join(told)


def table_2(results: Results, speed: Mapping[str, Any] | None) -> str:
    names = {
        FULL: ("three steps, 11 proposals, RGB", "extended_3"),
        "table1b_early": ("the same, early fusion", "early"),
        "hybrid": ("the same, hybrid fusion", ""),
        PLAIN: ("three steps of 6 frames, 11 proposals", "steps_3"),
        "dense": ("one step of 6 frames, 992 proposals", "dense"),
    }
    rows = [
        [name, kind, _last(results, row), *_video(results, row, kind), *_speed(speed, detector)]
        for row, (name, detector) in names.items()
        for kind in ("linked", "trimmed")
    ]
    thresholds = (f"video-mAP {one}" for one in _VIDEO_THRESHOLDS)
    return table(["", "tubes", "frame-mAP", *thresholds, "frames/s"], rows)


def checked(checks: Mapping[str, Any]) -> str:
    """What `checks` told, of each row and step."""
    rows, seed = checks["rows"], checks["seed"]
    unreached = [f"{row}: {path}" for row, own in rows.items() for path in own["unreached"]]
    told = f"Seed {seed}. Parameters that no loss reaches: {', '.join(unreached) or 'none'}."
    return f"{samples_table(rows)}\n\n{gradients_table(rows)}\n\n{told}"


def samples_table(checks: Mapping[str, Any]) -> str:
    rows = []
    for row, found in checks.items():
        for number, step in enumerate(found["steps"], start=1):
            numbers = {
                "positives": f"{step['positives']:.1f}",
                "negatives": f"{step['negatives']:.1f}",
                "drawn from": f"{step['pool']:.1f}",
                "tubes with a positive": f"{step['tubes_with_positive']:.1%}",
                "score of drawn negatives : of all": (
                    f"{step['negative_score'] / step['other_score']:.2f}"
                ),
                "IoU of known frames": f"{step['overlap']:.2f}",
                "of added frames": (
                    f"{step['overlap_added']:.2f}" if "overlap_added" in step else _NONE
                ),
            }
            rows.append({"": f"`{row}`", "step": str(number), **numbers})
    return table([*rows[0]], [[*row.values()] for row in rows])


def gradients_table(checks: Mapping[str, Any]) -> str:
    """Norms; the parts of the detector that a loss does not reach have 0."""
    found = [own for row in checks.values() for own in row["gradients"].values()]
    parts = sorted({part for own in found for part in own})
    rows = [
        [f"`{row}`", loss.replace("_", ", step "), *(_norm(own.get(part)) for part in parts)]
        for row, found in checks.items()
        for loss, own in found["gradients"].items()
    ]
    return table(["", "gradient of", *parts], rows)


def _norm(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.2f}" if value else "0"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _steps(results: Results, row: str) -> list[str]:
    """Frame-mAP after each step; _NONE for those that there are not."""
    runs = results.get(row, ())
    values = np.array([run["frame_map"] for run in runs]).T
    cells = [_shown(*mean_and_deviation(one)) for one in values]
    return cells + [_NONE] * (_STEPS - len(cells))


def _last(results: Results, row: str) -> str:
    runs = results.get(row, ())
    if not runs:
        return _NONE
    return _shown(*mean_and_deviation(np.array([run["frame_map"][-1] for run in runs])))


def _video(
    results: Results, row: str, kind: str, thresholds: Sequence[str] = _VIDEO_THRESHOLDS
) -> list[str]:
    runs = [run for run in results.get(row, ()) if "video_map" in run]
    if not runs:
        return [_NONE] * len(thresholds)
    return [
        _shown(*mean_and_deviation(np.array([run["video_map"][kind][name] for run in runs])))
        for name in thresholds
    ]


def _speed(speed: Mapping[str, Any] | None, name: str) -> list[str]:
    return [f"{speed[name]['frames_per_second']:.0f}" if speed and name in speed else _NONE]


def _shown(mean: float, deviation: float, *, digits: int = 1) -> str:
    if np.isnan(deviation):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"
