# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts a run's table and plots into docs/benchmark.md: python -m tests.bench.publish [DIR]"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.bench.machine import HOME

PAGE = HOME / "docs" / "benchmark.md"
PLOTS = HOME / "docs" / "benchmark"
_BEGIN = "<!-- results: what stands from here on is written by tests/bench/publish.py -->"
_END = "<!-- end of results -->"


def publish(folder: Path, page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Replace what stands between the page's marks, and the plots beside it."""
    text = page.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page}: the marks of the results are missing")
    plots.mkdir(exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    lines = [(folder / "table.md").read_text().strip()]
    for plot in sorted(folder.glob("*.svg")):
        shutil.copy(plot, plots / plot.name)
        lines.append(f"![{plot.stem.replace('-', ' ')}]({plots.name}/{plot.name})")
    page.write_text(f"{before}{begin}\n\n" + "\n\n".join(lines) + f"\n\n{end}{after}")


if __name__ == "__main__":
    publish(Path(sys.argv[1] if len(sys.argv) > 1 else HOME / "bench-results"))
