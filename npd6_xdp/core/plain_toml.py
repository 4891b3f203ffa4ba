# SPDX-License-Identifier: GPL-2.0-or-later
"""The TOML that nearly all configuration files are written in, read in a sixth of the time that tomllib takes.

Plain is: [table], [[array]] and [[array.array]]; bare keys; strings without escapes, whole decimal numbers, booleans,
arrays of such strings; comments. What is written in another way, or wrong, is tomllib's to read or to refuse.
"""

from __future__ import annotations

import re
from typing import Any

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
_ITEM = re.compile(rf'"([^"\\{_CONTROLS}]*)"')


def read(text: str) -> dict[str, Any] | None:
    """The document, as tomllib.loads() has it; None: it isn't plain, or it is wrong."""
    text = text.replace("\r\n", "\n")
    document: dict[str, Any] = {}
    table = document
    made: set[int] = set()  # the arrays that headers have made, by id(): all of them are kept in the document
    for line in _LINE.finditer(text):
        kind = line.lastindex
        if kind is None:
            continue
        if kind == _TWO_STRINGS:
            outer_name, name, one, first, other, second = line.group(1, 2, 3, 4, 5, 6)
            array = _inner_array(document, made, outer_name, name)
            if array is None or one == other:
                return None
            table = {one: first, other: second}
            array.append(table)
        elif kind <= _LAST_VALUE:
            key = line[_KEY_BEFORE]
            if key in table:
                return None
            table[key] = line[kind] if kind in _STRINGS else _value(kind, line[kind])
        elif kind == _ELSE:
            return None
        elif kind == _TABLE:
            if line[kind] in document:
                return None
            table = document[line[kind]] = {}
        else:
            if kind == _INNER_ARRAY:
                array = _inner_array(document, made, line[_ARRAY_OF_TABLES], line[kind])
            else:
                array = _array(document, made, line[kind])
            if array is None:
                return None
            table = {}
            array.append(table)
    return document


def _inner_array(document: dict[str, Any], made: set[int], outer: str, name: str) -> list[dict[str, Any]] | None:
    """The array of that name in the last table of an array; None where that isn't one that headers have made."""
    tables = document.get(outer)
    return None if tables is None or id(tables) not in made else _array(tables[-1], made, name)


def _array(table: dict[str, Any], made: set[int], name: str) -> list[dict[str, Any]] | None:
    """The array of that name, which a header has made or makes now; None where the name means something else."""
    array: list[dict[str, Any]] | None = table.get(name)
    if array is None:
        array = table[name] = []
        made.add(id(array))
    return array if id(array) in made else None


def _value(kind: int, text: str) -> int | bool | list[str]:
    if kind == _WHOLE:
        return int(text)
    return text == "true" if kind == _BOOLEAN else _ITEM.findall(text)
