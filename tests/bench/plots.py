# SPDX-License-Identifier: GPL-2.0-or-later
"""The curves as SVG, by matplotlib, which deploy/setup.sh --bench installs and nothing else here needs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.results import Curve, Results

_AXES = {
    "cost of an NS against the number of": ("how many are loaded, or take turns", "ns over a bare program"),
    "answers against solicitations": ("NS/s sent", "NA/s"),
    "memory against interfaces": ("interfaces attached", "MiB"),
}
_LOGARITHMIC = {
    "cost of an NS against the number of": ("symlog", "linear"),
    "answers against solicitations": ("log", "log"),
}
_WIDTH, _HEIGHT = 8.0, 5.0  # inches


def draw(results: Results, folder: Path) -> list[Path]:
    """One file for each plot; those of another run that it doesn't replace are removed."""
    by_plot: dict[str, list[Curve]] = {}
    for curve in results.curves:
        by_plot.setdefault(curve.plot, []).append(curve)
    for old in folder.glob("*.svg"):
        old.unlink()
    return [_draw(name, curves, folder) for name, curves in by_plot.items()]


def _draw(name: str, curves: list[Curve], folder: Path) -> Path:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = name  # the same ids each time, so that a new plot is a small difference
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    for curve in curves:
        axes.plot(curve.x, curve.y, marker="o", markersize=4, label=curve.name)
    x, y = _AXES.get(name, ("", ""))
    x_scale, y_scale = _LOGARITHMIC.get(name, ("linear", "linear"))
    axes.set(xlabel=x, ylabel=y, xscale=x_scale, yscale=y_scale, title=name)
    if y_scale == "linear":
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
