# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a configuration file, in words for who wrote it: what was found, and where."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from npd6_xdp.core.errors import Mistake

_LONGEST_WORD = 60  # characters of it that are told
_LONGEST_MESSAGE = 200  # characters of what tomllib says
_MOST_PARTS = 16  # of a dotted key; this program's have three


class Wrong(Exception):
    """A parser can't use a value; the text says what would be right. The caller adds what was found. `hint` makes the
    end of the text; it is called only if the mistake is shown, as few of a hundred thousand are.
    """

    def __init__(self, text: str, hint: Callable[[], str] | None = None) -> None:
        super().__init__(text)
        self._hint = hint

    def __str__(self) -> str:
        return super().__str__() + (self._hint() if self._hint else "")


@dataclass(frozen=True, slots=True)
class Float:
    """A TOML float as the file spells it: VLANs 100.1 and 100.10 are two."""

    text: str


def quoted(text: str) -> str:
    """Text in double quotes, short and on one line, whatever it holds."""
    short = text if len(text) <= _LONGEST_WORD else f"{text[:57]}..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def in_words(value: object) -> str:
    """What stands in the file, in TOML's words."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {quoted(value)}"
        case int():  # str() refuses integers of thousands of digits
            return f"the whole number {value}" if abs(value) < 10**18 else "a huge whole number"
        case Float():
            return f"the number {value.text[:20]}"
        case list():
            return "an array" if value else "an empty array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def nearest(text: str, choices: Iterable[str]) -> str | None:
    """What was probably meant."""
    if len(text) > _LONGEST_WORD:
        return None
    return next(iter(difflib.get_close_matches(text.lower(), choices, n=1)), None)


def inside(where: str, key: str) -> str:
    """Where a key is: interface[0].name, or interface[0]."odd key"."""
    name = key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else quoted(key)
    return f"{where}.{name}" if where else name


_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_MANY_DOTS = re.compile(rf"^(?:[^.\n]*+\.){{{_MOST_PARTS}}}", re.MULTILINE)
_TOKENS = re.compile(
    rf"""
    \#[^\n]*+
    | \"{{3}}(?:[^"\\]|\\.|"{{1,2}}(?!"))*+(?:"{{3,5}}|\Z)?
    | '{{3}}(?:[^']|'{{1,2}}(?!'))*+(?:'{{3,5}}|\Z)?
    | (?P<key>(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_MOST_PARTS}}})
    | "(?:[^"\\\n]|\\.)*+
    | '[^'\n]*+
    """,
    re.VERBOSE | re.DOTALL,
)


def deep_key(text: str) -> Mistake | None:
    """The first dotted key with more parts than any valid file has: tomllib's time grows with the square of their
    number. What looks like such a key may be a wrong value; that isn't TOML either.
    """
    if _MANY_DOTS.search(text) is None:  # nearly always
        return None
    found = next((token for token in _TOKENS.finditer(text) if token["key"]), None)
    if found is None:
        return None
    at = found.start()
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return Mistake(
        f"line {line}, column {column}",
        f"a key of more than {_MOST_PARTS} parts, {quoted(found['key'])}; the longest here has three",
    )


def syntax_mistake(error: str) -> Mistake:
    """What tomllib says, "Invalid value (at line 3, column 7)", as a Mistake."""
    message, _, where = error.removesuffix(")").rpartition(" (at ")
    if len(message) > _LONGEST_MESSAGE:  # a key in it may be as long as the file
        message = f"{message[:_LONGEST_MESSAGE]}..."
    quotes = "; text needs quotes; true, false and numbers need none"
    hints = {
        "Invalid value": quotes,
        "Expected newline or end of document after a statement": quotes,  # info: the number inf, and an o
        "Cannot overwrite a value": "; a key or table is there twice, or both as [table] and as [[table]]",
    }
    hint = hints.get(message, "")
    message = re.sub(r"\('(.*?)',?\)", lambda key: key[1].replace("', '", "."), message)  # ('a', 'b') is a.b
    return Mistake(where, f"not valid TOML: {message}{hint}")
