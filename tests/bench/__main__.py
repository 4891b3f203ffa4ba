# SPDX-License-Identifier: GPL-2.0-or-later
"""The one command: measures the rows, prints the table and writes it, the figures and the plots to a folder."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.machine import HOME, describe
from tests.bench.plan import FULL, QUICK, Run
from tests.bench.plots import draw
from tests.bench.profile import profile
from tests.bench.results import Results, values_of
from tests.bench.rows import NUMBERS, ROWS, Measure
from tests.bench.table import markdown


def main(argv: Sequence[str] | None = None) -> int:
    """0: all that was asked for is measured, whether the bounds hold or not; 1: something couldn't be."""
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("bench: needs root, for namespaces and XDP programs", file=sys.stderr)
        return 1
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"bench: {time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        before = values_of(arguments.compare) if arguments.compare else None
    except (OSError, ValueError) as error:
        print(f"bench: --compare: {error}", file=sys.stderr)
        return 1
    results = Results(describe(), arguments.quick)
    wanted = frozenset(arguments.rows or NUMBERS)
    run = Run(QUICK if arguments.quick else FULL, arguments.quick, wanted, results, say)
    if arguments.profile:
        return 0 if profile(run, arguments.output) else 1
    try:
        for numbers, measure in ROWS.items():
            if wanted.intersection(numbers):
                _measure(run, numbers, measure)
    except KeyboardInterrupt:
        say("interrupted; what was measured until then is kept")
        results.broken |= dict.fromkeys(wanted - {figure.row for figure in results.figures}, "interrupted")
    _write(results, arguments.output, before)
    if results.curves and not arguments.quick:
        draw(results, arguments.output)
    print(markdown(results, before), end="")
    say(f"written to {arguments.output}/")
    return 1 if results.broken else 0


def _measure(run: Run, numbers: tuple[int, ...], measure: Measure) -> None:
    gc.collect()
    before = len(run.results.figures)
    try:
        measure(run)
    except Exception as error:
        traceback.print_exc()
        found = {figure.row for figure in run.results.figures[before:]}
        for number in run.wanted.intersection(numbers) - found or run.wanted.intersection(numbers):
            run.results.broken[number] = f"{type(error).__name__}: {error}".splitlines()[0]


def _write(results: Results, folder: Path, before: Mapping[tuple[int, str], float] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "results.json")
    (folder / "table.md").write_text(markdown(results, before))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench.sh", description="Measures npd6-xdp, its peers and the kernel; see docs/benchmark.md."
    )
    parser.add_argument(
        "--quick", action="store_true", help="all rows in one or two minutes, with small numbers, no plots"
    )
    parser.add_argument("--rows", type=_rows, metavar="N,...", help="only these rows of the table: 1,4,5")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="another run's results.json, to stand beside this one's figures"
    )
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead: into profile.md")
    parser.add_argument(
        "--output",
        type=Path,
        default=HOME / "bench-results",
        metavar="DIR",
        help="where to write; else bench-results/ here",
    )
    return parser


def _rows(text: str) -> tuple[int, ...]:
    try:
        rows = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas between") from None
    if unknown := set(rows) - set(NUMBERS):
        raise argparse.ArgumentTypeError(f"no row {min(unknown)}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
