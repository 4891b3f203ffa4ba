# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a configuration file, in words for who wrote it: what was found, and where."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from npd6_xdp.core.errors import Mistake
from npd6_xdp.core.toml_places import Path, Place, offset_of, place_of, places, twice

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


def spelled(path: Path) -> str:
    """How a message names what is in the file: interface[0].name, or interface[0]."odd key"; "" is the whole file."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f"{'.' if text else ''}{part if re.fullmatch('[A-Za-z0-9_-]{1,60}', part) else quoted(part)}"
    return text


class Twice(NamedTuple):
    """The message for what is there twice: the words before and behind the place of the first."""

    before: str
    first: Path
    behind: str


Found = tuple[Path, str | Twice]
"""A mistake, before its line is looked for: where it is, and the message."""


def placed(found: Sequence[Found], text: str) -> list[Mistake]:
    """Mistakes, each with its line and column in the text."""
    firsts = [message.first for _, message in found if isinstance(message, Twice)]
    known = places(text, [*(path for path, _ in found), *firsts])
    mistakes = []
    for path, message in found:
        if isinstance(message, Twice):
            first = known.get(message.first)
            line = f" (line {first.line})" if first else ""
            message = f"{message.before}{spelled(message.first)}{line}{message.behind}"
        mistakes.append(Mistake(spelled(path), message, *known.get(path, ())))
    return mistakes


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
    return Mistake(
        "",
        f"a key of more than {_MOST_PARTS} parts, {quoted(found['key'])}; the longest here has three",
        *place_of(text, found.start()),
    )


_TOML_PLACE = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)\Z")


def syntax_mistake(error: str, text: str) -> Mistake:
    """What tomllib says of a text, "Invalid value (at line 3, column 7)", as a Mistake."""
    where = _TOML_PLACE.search(error)
    message = error[: where.start()] if where else error
    # tomllib counts in a text whose lines end in "\n" alone; in which column a line ends is the same
    place = Place(int(where[1]), int(where[2])) if where and where[1] else place_of(text, len(text))
    if len(message) > _LONGEST_MESSAGE:  # a key in it may be as long as the file
        message = f"{message[:_LONGEST_MESSAGE]}..."
    quotes = "; text needs quotes; true, false and numbers need none"
    hints = {
        "Invalid value": quotes,
        "Expected newline or end of document after a statement": quotes,  # info: the number inf, and an o
        "Cannot overwrite a value": "; a key or table is there twice, or both as [table] and as [[table]]",
    }
    hint = hints.get(message, "")
    if message.startswith(_SAID_TWICE) and (both := twice(text, offset_of(text, place))):
        first, place = both
        hint += f"; the first is in line {first.line}"
    message = re.sub(r"\('(.*?)',?\)", lambda key: key[1].replace("', '", "."), message)  # ('a', 'b') is a.b
    return Mistake("", f"not valid TOML: {message}{hint}", *place)


_SAID_TWICE = ("Cannot overwrite", "Cannot declare", "Cannot mutate", "Cannot redefine", "Duplicate inline table key")
