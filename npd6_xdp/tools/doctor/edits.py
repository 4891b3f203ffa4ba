# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that mend the configuration file: sed(1) on the line that is wrong, found in the file as it is written.

A file that is written in a way that isn't found here (all in one line, say) has no such command, and the message says
what to write.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError

_HEADER = re.compile(r"^\s*\[\[\s*interface\s*(\.\s*rule\s*)?\]\]\s*(#.*)?$")
_LIMITS = re.compile(r"^\s*\[\s*limits\s*\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*([\w-]+)\s*=\s*(?:(["'])(.*?)\2|(.*?))\s*(#.*)?$""")


class Line(NamedTuple):
    """A line with a key: its number (from 1), the value (of a text, without its quotes), and the line as written."""

    number: int
    value: str
    written: str


class Block(NamedTuple):
    """An [[interface]] or [[interface.rule]]: the number of its first line (from 1), the lines as they are written, and
    those with keys.
    """

    start: int
    written: list[str]
    lines: dict[str, Line]


class Place(NamedTuple):
    """A file, and one block of it; None where there is no such one, or more than one."""

    path: Path
    block: Block | None

    def replace(self, *changes: tuple[str, str, str]) -> tuple[str, ...]:
        """The command that has texts replaced in the lines of keys; each is (key, old, new)."""
        edits = []
        for key, old, new in changes:
            line = self.block.lines.get(key) if self.block else None
            found = next((each for each in (string(old), f"'{old}'") if line and each in line.written), None)
            if line is None or found is None:
                return ()
            script = f"{line.number}s|{pattern(found)}|{_escaped(string(new), '|&')}|"
            edits.append((line.number, script, line.written.replace(found, string(new), 1)))
        return self._sed(edits)

    def put(self, values: Mapping[str, str], behind: str = "prefix") -> tuple[str, ...]:
        """The command that has keys and their values (as TOML has them) there: in place of those that are there, else
        behind another key.
        """
        if self.block is None or behind not in self.block.lines:
            return ()
        edits, added = [], []
        for key, value in values.items():
            text = f"{key} = {value}"
            if (line := self.block.lines.get(key)) is not None:
                edits.append((line.number, f"{line.number}c {_escaped(text)}", text))
            else:
                added.append(text)
        if added:
            anchor = self.block.lines[behind]
            script = f"{anchor.number}a {_escaped(added[0])}" + "".join(f"\\n{_escaped(each)}" for each in added[1:])
            edits.append((anchor.number, script, "\n".join([anchor.written, *added])))
        return self._sed(edits)

    def _sed(self, edits: Sequence[tuple[int, str, str]]) -> tuple[str, ...]:
        """One command for edits, as (line, script, what is there then); none where the block isn't TOML any more: a
        value goes on in the next line, say.
        """
        assert self.block is not None
        then = list(self.block.written)
        for number, _, text in edits:
            then[number - self.block.start] = text
        try:
            tomllib.loads("\n".join(then))
        except tomllib.TOMLDecodeError:
            return ()
        words = " ".join(f"-e {shlex.quote(script)}" for _, script, _ in edits)
        return (f"sed -i {words} {shlex.quote(str(self.path.absolute()))}",)


def interface_place(path: Path, text: str, interface: str) -> Place:
    """An [[interface]]."""
    return Place(path, _only(_index(text)[0].get(interface, ())))


def rule_place(path: Path, text: str, interface: str, prefix: str) -> Place:
    """An [[interface.rule]]."""
    return Place(path, _only(_index(text)[1].get((interface, prefix), ())))


def limit(path: Path, text: str, key: str, value: int) -> tuple[str, ...]:
    """The command that has a key of [limits] at a value; none where the file couldn't be used then."""
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines, 1) if _LIMITS.match(line)), None)
    written = f"{key} = {value}"
    if start is None:
        script, then = f"$a \\\n[limits]\\n{written}", [*lines, "[limits]", written]
    else:
        rest = list(enumerate(lines[start:], start + 1))
        end = next((number for number, line in rest if line.lstrip().startswith("[")), len(lines) + 1)
        place = next((number for number, line in rest if number < end and _is_of(line, key)), None)
        script = f"{start}a {written}" if place is None else f"{place}c {written}"
        then = [*lines[:start], written, *lines[start:]] if place is None else lines
        if place is not None:
            then[place - 1] = written
    try:
        parse("\n".join(then), "")
    except ConfigError:
        return ()
    return (f"sed -i {shlex.quote(script)} {shlex.quote(str(path.absolute()))}",)


def _is_of(line: str, key: str) -> bool:
    match = _KEY.match(line)
    return match is not None and match[1] == key


def both(*commands: tuple[str, ...]) -> tuple[str, ...]:
    """Commands that mend something together only; none where one of them is missing."""
    return tuple(each for some in commands for each in some) if all(commands) else ()


def string(text: str) -> str:
    """A text as TOML has it."""
    return json.dumps(text, ensure_ascii=False)


def _only(blocks: Sequence[Block]) -> Block | None:
    return blocks[0] if len(blocks) == 1 else None


@lru_cache(maxsize=1)  # of 100,000 rules, read once
def _index(text: str) -> tuple[dict[str, list[Block]], dict[tuple[str, str], list[Block]]]:
    """The interfaces by their names, and the rules by these and their prefixes; several, where VLANs have entries."""
    interfaces: dict[str, list[Block]] = {}
    rules: dict[tuple[str, str], list[Block]] = {}
    name = ""
    for is_rule, block in _blocks(text):
        key = block.lines.get("prefix" if is_rule else "name")
        if is_rule:
            rules.setdefault((name, key.value if key else ""), []).append(block)
        else:
            name = key.value if key else ""
            interfaces.setdefault(name, []).append(block)
    return interfaces, rules


def _blocks(text: str) -> Iterator[tuple[bool, Block]]:
    """Each [[interface]] and [[interface.rule]]: whether it is a rule, and its lines."""
    found: tuple[bool, Block] | None = None
    for number, line in enumerate(text.split("\n"), 1):  # as sed(1) counts them
        if line.lstrip().startswith("[") and "=" not in line.partition("#")[0]:
            if found:
                yield found
            header = _HEADER.match(line)
            found = (bool(header[1]), Block(number, [], {})) if header else None
        if found:
            found[1].written.append(line)
            if match := _KEY.match(line):
                found[1].lines[match[1]] = Line(number, match[3] if match[2] else match[4], line)
    if found:
        yield found


def pattern(text: str) -> str:
    """A text as sed's pattern for it."""
    return re.sub(r"([.*\[\]^$\\])", r"\\\1", text).replace("|", "[|]")


def _escaped(text: str, special: str = "") -> str:
    """A text as one that sed writes."""
    return "".join(f"\\{each}" if each == "\\" or each in special else each for each in text)
