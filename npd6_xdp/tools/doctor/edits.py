# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that mend the configuration file: sed(1) on the line that is wrong, found in the file as it is written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = re.compile(r"^\s*\[\[\s*interface\s*(\.\s*rule\s*)?\]\]")
_KEY = re.compile(r"""^\s*(\w+)\s*=\s*(["'])(.*?)\2""")


class Line(NamedTuple):
    """A line of the file with a text value: its number (from 1), and the quotes around the value."""

    number: int
    quote: str


def rule_line(text: str, interface: str, prefix: str, key: str) -> Line | None:
    """The line that a rule has a key in, or None: it isn't there, or written in another way than is usual."""
    name, found = "", dict[str, Line]()
    for block, lines in _blocks(text):
        values = {match[1]: (match[3], Line(number, match[2])) for number, match in lines}
        if block == "interface":
            name = values.get("name", ("", None))[0]
        elif name == interface and values.get("prefix", ("",))[0] == prefix:
            found = {each: line for each, (_, line) in values.items()}
            break
    return found.get(key)


def _blocks(text: str) -> Iterator[tuple[str, list[tuple[int, re.Match[str]]]]]:
    block, lines = "", list[tuple[int, re.Match[str]]]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            if block:
                yield block, lines
            header = _HEADER.match(line)
            block, lines = ("rule" if header[1] else "interface") if header else "", []
        elif match := _KEY.match(line):
            lines.append((number, match))
    if block:
        yield block, lines


def array_line(text: str, interface: str, prefix: str, key: str) -> int | None:
    """The number of the line that a rule has an array in, all of it in one line; None: it isn't there, or not so."""
    start = rule_line(text, interface, prefix, "prefix")
    lines = text.splitlines()
    if start is None:
        return None
    whole = re.compile(rf"^\s*{key}\s*=\s*\[.*\]\s*(#.*)?$")
    first = max(n for n in range(start.number) if _HEADER.match(lines[n]))
    for number in range(first + 1, len(lines)):
        if lines[number].lstrip().startswith("["):
            return None
        if whole.match(lines[number]):
            return number + 1
    return None


def sed(path: Path, script: str) -> str:
    """The command."""
    return f"sed -i {shlex.quote(script)} {shlex.quote(str(path.absolute()))}"


def replaced(path: Path, number: int, old: str, new: str) -> str:
    """Have a value in a line replaced by another."""
    return sed(path, f"{number}s|{old.replace('.', '[.]')}|{new}|")


def appended(path: Path, number: int, line: str) -> str:
    """Have a line put behind another."""
    return sed(path, f"{number}a {line}")
