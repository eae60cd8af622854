"""Puts the results on docs/claims.md: python -m benchmarks.claims.page --results FILE [FILE ...].

What stands between the page's two marks is written anew, the rest of it is left. docs/claims.png is
drawn beside it, and the results are kept as docs/claims.json.
"""

from __future__ import annotations

import argparse
import json
import pathlib

from benchmarks.claims import drawing, results, tables
from step_jax.cli import run_command
from step_jax.errors import InputError
from step_jax.files import write_json, write_text

_BEGIN, _END = "<!-- numbers: benchmarks.claims.page -->", "<!-- end of numbers -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims.page", description=__doc__.splitlines()[0]
    )
    runs = pathlib.Path("runs/claims")
    parser.add_argument(
        "--results", type=pathlib.Path, nargs="+", default=[runs / results.FILE],
        help="of one machine or more; docs/claims.json may be one, to add to it",
    )  # fmt: skip
    parser.add_argument("--speed", type=pathlib.Path, help="what benchmarks.claims.speed measured")
    parser.add_argument("--checks", type=pathlib.Path, help="what benchmarks.claims.checks told")
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/claims.md"))
    arguments = parser.parse_args()
    read = {str(path): _read(path) for path in arguments.results}
    for path, own in read.items():
        results.check(own, path)
    found = results.merged(read)
    if not found["runs"]:
        raise InputError(f"{', '.join(read)}: no run is finished; the page is left as it was")
    measured = _read(arguments.speed) if arguments.speed else found.get("speed")
    speed = measured["speed"] if measured else None
    checks = _read(arguments.checks) if arguments.checks else found.get("checks")
    rows = results.by_row(found["runs"])
    numbers = tables.page(rows, measured, checks)
    page = with_numbers(arguments.page.read_text("utf-8"), numbers)
    picture = arguments.page.with_suffix(".png")
    drawing.draw(rows, speed, picture)
    write_text(arguments.page, page)
    kept = arguments.page.with_suffix(".json")
    write_json(kept, {**found, "speed": measured, "checks": checks})
    for path in (arguments.page, picture, kept):
        print(path)


def with_numbers(page: str, numbers: str) -> str:
    """The page with other text between its marks. Raises InputError where it has none."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise InputError(f"the page has no {_BEGIN} ... {_END} for the numbers; put both there")
    return f"{before}{begin}\n\n{numbers}\n{end}{after}"


def _read(path: pathlib.Path) -> dict:
    if not path.exists():
        raise InputError(f"{path}: missing; docs/claims.md says what writes it")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); make it anew") from error


if __name__ == "__main__":
    run_command(main)
