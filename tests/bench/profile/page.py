# SPDX-License-Identifier: GPL-2.0-or-later
"""What the profile finds, section by section, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.table import aligned, number


@dataclass(frozen=True, slots=True)
class Section:
    """A table and what is to be said of it; `raw` are the values that it is made of, the unit in their names."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    raw: dict[str, float] = field(default_factory=dict)


def shares(parts: dict[str, float], whole: float, unit: str) -> list[tuple[str, ...]]:
    """A row for each part of a whole: its name, its size, and its share."""
    return [(name, f"{number(part)} {unit}", f"{100 * part / whole:.0f} %") for name, part in parts.items()]


def write(machine: dict[str, str], sections: Iterable[Section], folder: Path) -> str:
    """profile.md and profile.json; returns the page."""
    sections = list(sections)
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    for section in sections:
        lines += ["", f"### {section.title}", ""]
        if section.rows:
            lines += [*aligned([section.head, *section.rows]), ""]
        lines += [f"- {note}" for note in section.notes]
    page = "\n".join(lines) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.md").write_text(page)
    whole = {"machine": machine, "sections": [asdict(section) for section in sections]}
    (folder / "profile.json").write_text(json.dumps(whole, indent=1) + "\n")
    return page
