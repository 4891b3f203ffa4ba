# SPDX-License-Identifier: GPL-2.0-or-later
"""The TOML that nearly all configuration files are written in, read in a sixth of the time that tomllib takes.

Plain is: [table], [[array]] and [[array.array]]; bare keys; strings without escapes, whole decimal numbers, booleans,
arrays of such strings; comments. What is written in another way, or wrong, is tomllib's to read or to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_KEY = "[A-Za-z0-9_-]+"
_CONTROLS = r"\x00-\x08\x0a-\x1f\x7f"  # all but the tab; none stands in a string or in a comment
_STRING = rf'"[^"\\{_CONTROLS}]*"'
_SPACE = r"[ \t\n]*"  # within an array, lines may end
_ARRAY = rf"\[{_SPACE}(?:{_STRING}{_SPACE}(?:,{_SPACE}{_STRING}{_SPACE})*(?:,{_SPACE})?)?\]"
_LINE = re.compile(
    rf"""[ \t]*
    (?:
        \[\[({_KEY})\.({_KEY})\]\]\n({_KEY})[ ]=[ ]"([^"\\{_CONTROLS}]*)"\n({_KEY})[ ]=[ ]"([^"\\{_CONTROLS}]*)"
                                                        # 1 to 6: as nearly all of a long file is written, at once
        | ({_KEY})[ \t]*=[ \t]*                           # 7
        (?:
            "([^"\\{_CONTROLS}]*)"                      # 8
            | ([+-]?(?:0|[1-9][0-9]{{0,17}}))           # 9
            | (true|false)                              # 10
            | ({_ARRAY})                                # 11
            | '([^'{_CONTROLS}]*)'                      # 12
        )[ \t]*
        | \[\[({_KEY})(?:\.({_KEY}))?\]\][ \t]*         # 13, 14
        | \[({_KEY})\][ \t]*                            # 15
    )?
    (?:\#[^{_CONTROLS}]*)?
    (?:\n+|\Z)
    | ([^\n])                                             # 16""",
    re.VERBOSE,
)
_TWO_STRINGS, _KEY_BEFORE, _STRINGS, _WHOLE, _BOOLEAN, _LAST_VALUE = 6, 7, {8, 12}, 9, 10, 12
_ARRAY_OF_TABLES, _INNER_ARRAY, _TABLE, _ELSE = 13, 14, 15, 16
_TWO_KEYS = re.compile(rf"([^\n]*\n[^\n]*)\n(?:[ \t]*(?:#[^{_CONTROLS}]*)?(?:\n|\Z))*")  # and no more, but comments
_ITEM = re.compile(rf'"([^"\\{_CONTROLS}]*)"')


class Known(NamedTuple):
    """What to put in the place of tables of the array `name` in the array `outer` that have two keys: `find` is asked
    with the two lines below their header; None: it doesn't know them.
    """

    outer: str
    name: str
    find: Callable[[str], object]


def read(text: str, known: Known | None = None) -> dict[str, Any] | None:
    """The document, as tomllib.loads() has it; None: it isn't plain, or it is wrong. Of tables that are `known` no line
    is looked at here.
    """
    text = text.replace("\r\n", "\n")
    reading = _Reading()
    # No plain value has lines of its own but an array of strings, so that is a header wherever it stands; the lines
    # between two of them are plain by themselves, or the text isn't plain.
    first, *others = text.split(f"\n[[{known.outer}.{known.name}]]\n") if known else [text]
    is_plain = reading.take(first) and (known is None or reading.take_tables(others, known))
    return reading.document if is_plain else None


class _Reading:
    """How far a document was read: what it has so far, and the table that the next keys are of."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._table = self.document
        self._made: set[int] = set()  # the arrays that headers have made, by id(): all of them are kept in the document

    def take_tables(self, texts: Sequence[str], known: Known) -> bool:
        """Take the lines below each of some headers of the `known` array, and whatever else stands before the next one;
        False: they aren't plain.
        """
        array: list[Any] | None = None
        find = known.find
        for lines in texts:
            if array is None:
                array = self._inner_array(known.outer, known.name)
                if array is None:
                    return False
            table = find(lines)
            if table is None and (two := _TWO_KEYS.fullmatch(lines)):
                table = find(two[1])
            if table is not None:
                array.append(table)
                continue
            self._table = {}
            array.append(self._table)
            if not self.take(lines):
                return False
            array = None  # another one, if they had a header
        return True

    def take(self, text: str) -> bool:
        """Take some lines; False: they aren't plain."""
        for line in _LINE.finditer(text):
            kind = line.lastindex
            if kind is None:
                continue
            if kind == _TWO_STRINGS:
                outer_name, name, one, first, other, second = line.group(1, 2, 3, 4, 5, 6)
                array = self._inner_array(outer_name, name)
                if array is None or one == other:
                    return False
                self._table = {one: first, other: second}
                array.append(self._table)
            elif kind <= _LAST_VALUE:
                key = line[_KEY_BEFORE]
                if key in self._table:
                    return False
                self._table[key] = line[kind] if kind in _STRINGS else _value(kind, line[kind])
            elif kind == _ELSE or not self._take_header(line, kind):
                return False
        return True

    def _take_header(self, line: re.Match[str], kind: int) -> bool:
        if kind == _TABLE:
            if line[kind] in self.document:
                return False
            self._table = self.document[line[kind]] = {}
            return True
        if kind == _INNER_ARRAY:
            array = self._inner_array(line[_ARRAY_OF_TABLES], line[kind])
        else:
            array = self._array(self.document, line[kind])
        if array is None:
            return False
        self._table = {}
        array.append(self._table)
        return True

    def _inner_array(self, outer: str, name: str) -> list[Any] | None:
        """The array of that name in the last table of an array; None where that isn't one that headers have made."""
        tables = self.document.get(outer)
        return None if tables is None or id(tables) not in self._made else self._array(tables[-1], name)

    def _array(self, table: dict[str, Any], name: str) -> list[Any] | None:
        """The array of that name, which a header has made or makes now; None where the name means something else."""
        array: list[Any] | None = table.get(name)
        if array is None:
            array = table[name] = []
            self._made.add(id(array))
        return array if id(array) in self._made else None


def _value(kind: int, text: str) -> int | bool | list[str]:
    if kind == _WHOLE:
        return int(text)
    return text == "true" if kind == _BOOLEAN else _ITEM.findall(text)
