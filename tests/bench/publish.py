# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the last run's table and plots into docs/benchmark.md, and what all had to hold: tests.bench.publish DIR..."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.machine import HOME
from tests.bench.results import Bound
from tests.bench.table import aligned, number

PAGE = HOME / "docs" / "benchmark.md"
PLOTS = HOME / "docs" / "benchmark"
_BEGIN = "<!-- results: what stands from here on is written by tests/bench/publish.py -->"
_END = "<!-- end of results -->"


def publish(folders: Sequence[Path], page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Replace what stands between the page's marks, and the plots beside it. The folders are of whole runs in a row."""
    text = page.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page}: the marks of the results are missing")
    plots.mkdir(exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    folder = folders[-1]
    lines = [(folder / "table.md").read_text().strip()]
    if len(folders) > 1:
        lines = [f"{len(folders)} runs in a row, what must be in each:", _bounds(folders), "The last in whole:", *lines]
    for plot in sorted(folder.glob("*.svg")):
        shutil.copy(plot, plots / plot.name)
        lines.append(f"![{plot.stem.replace('-', ' ')}]({plots.name}/{plot.name})")
    page.write_text(f"{before}{begin}\n\n" + "\n\n".join(lines) + f"\n\n{end}{after}")


def _bounds(folders: Sequence[Path]) -> str:
    """A table of the figures that have a bound, one column a run."""
    runs = [json.loads((folder / "results.json").read_text())["figures"] for folder in folders]
    bounded = [{(each["row"], each["name"]): each for each in run if each["bound"]} for run in runs]
    rows = [("#", "figure", *(f"run {place}" for place in range(1, len(runs) + 1)), "must be", "holds")]
    for key, last in sorted(bounded[-1].items()):
        found = [run[key] for run in bounded]
        held = sum(each["holds"] for each in found)
        values = (f"{number(each['value'])} {each['unit']}" for each in found)
        rows.append((str(key[0]), key[1], *values, str(Bound(**last["bound"])), f"{held} of {len(found)}"))
    return "\n".join(aligned(rows))


if __name__ == "__main__":
    publish([Path(word) for word in sys.argv[1:]] or [HOME / "bench-results"])
