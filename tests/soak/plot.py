# SPDX-License-Identifier: GPL-2.0-or-later
"""The samples as one SVG, a strip for each quantity; written by hand, so that it takes no library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from tests.soak.samples import MIB, Sample

_WIDTH, _STRIP, _GAP, _LEFT, _RIGHT, _TOP = 860, 84, 30, 90, 20, 54

_MOST = 600  # samples that are drawn of as many as there are, and dots of moments of calm all


class _Strip(NamedTuple):
    title: str
    unit: str
    value: Callable[[Sample], float]
    calm_only: bool = False


_STRIPS = (
    _Strip("private memory", "MiB", lambda sample: sample.private / MIB),
    _Strip("resident memory", "MiB", lambda sample: sample.resident / MIB),
    _Strip("descriptors", "", lambda sample: sample.descriptors),
    _Strip("threads", "", lambda sample: sample.threads),
    _Strip("space in the kernel's maps", "1,000 entries", lambda sample: sample.map_capacity / 1000),
    _Strip("memory of the kernel's maps", "MiB", lambda sample: sample.map_memory / MIB),
    _Strip("entries in the kernel's maps", "1,000", lambda sample: sum(sample.entries.values()) / 1000, True),
)


def svg(title: str, samples: Sequence[Sample], calm: Sequence[Sample]) -> str:
    """All samples as a line, those of moments of calm, which are judged, as dots."""
    samples = samples[:: len(samples) // _MOST + 1]
    height = _TOP + len(_STRIPS) * (_STRIP + _GAP) + 20
    end = max((sample.time for sample in samples), default=0.0) or 1.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, strip in enumerate(_STRIPS):
        lines += _drawn(strip, _TOP + number * (_STRIP + _GAP), end, samples, calm)
    lines.append(f'<text x="{_LEFT}" y="{height - 6}" font-size="11">0 s</text>')
    lines.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{height - 6}" font-size="11" text-anchor="end">{end:.0f} s;'
        " dots: at the end of a round, all is calm</text>"
    )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _drawn(strip: _Strip, y: int, end: float, samples: Sequence[Sample], calm: Sequence[Sample]) -> list[str]:
    values = [strip.value(sample) for sample in (*([] if strip.calm_only else samples), *calm)]
    top = max(values, default=0.0) * 1.1 or 1.0

    def at(sample: Sample) -> tuple[float, float]:
        across = (_WIDTH - _LEFT - _RIGHT) * sample.time / end
        return _LEFT + across, y + _STRIP * (1 - strip.value(sample) / top)

    line = " ".join(f"{x:.1f},{y_:.1f}" for x, y_ in map(at, calm if strip.calm_only else samples))
    unit = f", {strip.unit}" if strip.unit else ""
    found = [
        f'<text x="{_LEFT}" y="{y - 5}" font-size="12">{escape(strip.title + unit)}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_STRIP}" fill="none" stroke="#bbb"/>',
        f'<text x="{_LEFT - 6}" y="{y + 10}" font-size="11" text-anchor="end">{top:,.4g}</text>',
        f'<text x="{_LEFT - 6}" y="{y + _STRIP}" font-size="11" text-anchor="end">0</text>',
        f'<polyline points="{line}" fill="none" stroke="#7a9cc6" stroke-width="1"/>',
    ]
    found += [f'<circle cx="{x:.1f}" cy="{y_:.1f}" r="2.5" fill="#1f4e8c"/>' for x, y_ in map(at, calm)]
    return found
