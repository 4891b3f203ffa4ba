# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that mend the configuration file: sed(1) on the line that is wrong, found in the file as it is written.

A file that is written in a way that isn't found here (all in one line, say) has no such command, and the message says
what to write.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_HEADER = re.compile(r"^\s*\[\[\s*interface\s*(\.\s*rule\s*)?\]\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*([\w-]+)\s*=\s*(?:(["'])(.*?)\2|(.*?))\s*(#.*)?$""")


class Line(NamedTuple):
    """A line with a key: its number (from 1), the value (of a text, without its quotes), and the line as written."""

    number: int
    value: str
    written: str = ""


class Place(NamedTuple):
    """A file, and the lines of one [[interface]] or [[interface.rule]] by their keys."""

    path: Path
    lines: dict[str, Line]

    def replace(self, *changes: tuple[str, str, str]) -> tuple[str, ...]:
        """The command that has old values in the lines of keys replaced; each is (key, old, new)."""
        if any(key not in self.lines or old not in self.lines[key].written for key, old, _ in changes):
            return ()
        return self._sed([f"{self.lines[key].number}s|{_plain(old)}|{new}|" for key, old, new in changes])

    def put(self, key: str, *text: str) -> tuple[str, ...]:
        """The command that puts lines in the place of a key's."""
        lines = "\\n".join(text)
        return self._sed([f"{self.lines[key].number}c {lines}"]) if key in self.lines else ()

    def add(self, text: str) -> tuple[str, ...]:
        """The command that adds a line behind the last one."""
        last = max((line.number for line in self.lines.values()), default=0)
        return self._sed([f"{last}a {text}"]) if last else ()

    def _sed(self, scripts: Sequence[str]) -> tuple[str, ...]:
        words = " ".join(f"-e {shlex.quote(script)}" for script in scripts)
        return (f"sed -i {words} {shlex.quote(str(self.path.absolute()))}",)


def interface_place(path: Path, text: str, interface: str) -> Place:
    """The lines of an [[interface]]."""
    for rule, lines in _blocks(text):
        if not rule and lines.get("name", Line(0, "")).value == interface:
            return Place(path, lines)
    return Place(path, {})


def rule_place(path: Path, text: str, interface: str, prefix: str) -> Place:
    """The lines of an [[interface.rule]]."""
    name = ""
    for rule, lines in _blocks(text):
        if not rule:
            name = lines.get("name", Line(0, "")).value
        elif name == interface and lines.get("prefix", Line(0, "")).value == prefix:
            return Place(path, lines)
    return Place(path, {})


def both(*commands: tuple[str, ...]) -> tuple[str, ...]:
    """Commands that mend something together only; none where one of them is missing."""
    return tuple(each for some in commands for each in some) if all(commands) else ()


def _blocks(text: str) -> Iterator[tuple[bool, dict[str, Line]]]:
    """Each [[interface]] and [[interface.rule]]: whether it is a rule, and its lines."""
    block: tuple[bool, dict[str, Line]] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("[") and "=" not in line.partition("#")[0]:
            if block:
                yield block
            header = _HEADER.match(line)
            block = (bool(header[1]), {}) if header else None
        elif block and (match := _KEY.match(line)):
            block[1][match[1]] = Line(number, match[3] if match[2] else match[4], line)
    if block:
        yield block


def _plain(text: str) -> str:
    """A text as sed's pattern for it."""
    return re.sub(r"([.*\[\]^$|\\])", r"\\\1", text)
