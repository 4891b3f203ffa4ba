# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a TOML text a key, a table or an array's item stands: looked for only once there is a mistake to tell of.

A path is what leads there from the document: ("interface", 3, "rule", 57, "prefix") is what a message calls
interface[3].rule[57].prefix. The text is TOML that tomllib takes; in any other, all is found that stands before the
first thing that isn't TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator, Iterable, Iterator, Set
from enum import Enum, auto
from itertools import count
from typing import NamedTuple

Path = tuple[str | int, ...]

_BARE = "[A-Za-z0-9_-]++"
_STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*+')"""
# Two of the quotes before the last three may be its own. No group is possessive: Python 3.11.2 loses its place there
# where an alternative fails.
LONG_STRING = r"""(?:\"{3}(?:[^"\\]|\\.|"(?!""))*\"{3,5}|'{3}(?:[^']|'(?!''))*'{3,5})"""
_SPACE = re.compile(r"[ \t]*+")
_BLANK = re.compile(r"(?:[ \t\r\n]++|\#[^\n]*+)*")
_PART = re.compile(f"{_BARE}|{_STRING}")
_SCALAR = re.compile(rf"{LONG_STRING}|{_STRING}|[^\[\]{{}},\#\n]++", re.DOTALL)
_PLAIN = r"""(?:"[^"\\\n]*+"|'[^'\n]*+'|[A-Za-z0-9_+:.-]++)(?![^ \t\r\n,\]\#])"""
_ARRAY = rf"\[[ \t\r\n]*+(?:{_PLAIN}[ \t\r\n]*+,?[ \t\r\n]*+)*\]"
_PLAIN_LINES = re.compile(  # most lines, of which nobody asks; so many at once, as what is repeated takes memory
    rf"(?:[ \t]*+(?:{_BARE}[ \t]*+=[ \t]*+(?:{_PLAIN}|{_ARRAY})[ \t]*+)?(?:\#[^\n]*+)?\r?\n){{,1000}}"
)
_DEEPEST = 1000  # arrays and inline tables in each other, and parts of a path; tomllib's recursion ends before


class Place(NamedTuple):
    """Where something stands: line and column count from 1, the column in characters, of which a tab is one."""

    line: int
    column: int


def place_of(text: str, offset: int) -> Place:
    """The place of a text's character, by its offset."""
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def offset_of(text: str, place: Place) -> int:
    """The offset of what stands at a place of a text; of its end, if it has no such line."""
    offset = 0
    for _ in range(place.line - 1):
        offset = text.find("\n", offset) + 1
        if not offset:
            return len(text)
    return min(offset + place.column - 1, len(text))


def places(text: str, paths: Iterable[Path]) -> dict[Path, Place]:
    """The place of each path: of a table with a header, where that begins; of another key, where the part of it begins
    that has the name; of an array's item, where its value begins. What isn't there has the place of the table that
    would have it; if that is the whole document, it has none.
    """
    asked = set(paths)
    found = _offsets(text, _with_parents(asked))
    known: dict[Path, Place] = {}
    for path in asked:
        offset = next((found[path[:end]] for end in range(len(path), 0, -1) if path[:end] in found), None)
        if offset is not None:
            known[path] = place_of(text, offset)
    return known


def twice(text: str, before: int) -> tuple[Place, Place] | None:
    """Of the last key or header that begins before an offset, if it is one too many: the place of the first with its
    name (or of the value that it would be inside of), and its own.
    """
    last: list[_Named] = []
    so_far: list[_Named] = []
    for path, offset, kind in _named(text, None):
        if offset >= before:
            break
        if kind is not _Kind.ITEM:
            so_far.append((path, offset, kind))
        if kind in (_Kind.KEY, _Kind.HEADER):
            last, so_far = so_far, []
    firsts: dict[Path, tuple[int, _Kind]] = {}
    for path, offset, kind in _named(text, _with_parents(path for path, *_ in last)):
        firsts.setdefault(path, (offset, kind))
    for path, offset, kind in last:
        first, first_kind = firsts[path]
        if first != offset and (kind is not _Kind.PART or first_kind is _Kind.KEY):
            return place_of(text, first), place_of(text, offset)
    return None


def _with_parents(paths: Iterable[Path]) -> set[Path]:
    return {path[:end] for path in paths for end in range(len(path) + 1)}


class _Kind(Enum):
    """What names a path: a part of a dotted key or header but the last one, a key's last part, a header, or a value's
    place in an array.
    """

    PART = auto()
    KEY = auto()
    HEADER = auto()
    ITEM = auto()


_Named = tuple[Path, int, _Kind]


class _NoTomlError(Exception):
    """The text isn't TOML from here on."""


def _offsets(text: str, wanted: Set[Path]) -> dict[Path, int]:
    """Where each path is that is there; `wanted` has what leads to each of them, too."""
    found: dict[Path, int] = {}
    headed: set[Path] = set()
    for path, offset, kind in _named(text, wanted):
        if path in wanted:
            found.setdefault(path, offset)
            if kind is _Kind.HEADER and path not in headed:  # it may have been a part of another's before
                headed.add(path)
                found[path] = offset
    return found


def _named(text: str, wanted: Set[Path] | None) -> Iterator[_Named]:
    """Each path that is named, with the offset where; tables and values that aren't wanted are passed over."""
    walk = _Walk(text, wanted)
    try:
        while walk.goes_on():
            yield from walk.header() if walk.is_at("[") else walk.statement(walk.table)
    except _NoTomlError:
        return


class _Walk:
    """How far a text was read, and the table that the last header names."""

    def __init__(self, text: str, wanted: Set[Path] | None) -> None:
        self.table: Path = ()
        self._text = text
        self._wanted = wanted
        self._at = 0
        self._sizes: dict[Path, int] = {}  # of the arrays that headers have made

    def goes_on(self) -> bool:
        """Go to the next header or key; False: there is none."""
        if not self._is_wanted(self.table):
            self._skip(_PLAIN_LINES)
        self._skip(_BLANK)
        return self._at < len(self._text)

    def is_at(self, token: str) -> bool:
        """Whether this is what comes next."""
        return self._text.startswith(token, self._at)

    def header(self) -> Iterator[_Named]:
        """Read a header."""
        start = self._at
        bracket = "]]" if self.is_at("[[") else "]"
        self._at += len(bracket)
        path: Path = ()
        while True:
            offset, path = self._part(path)
            if not self._takes("."):
                break
            yield path, offset, _Kind.PART
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
        yield path, start, _Kind.HEADER
        if bracket == "]]":
            size = self._sizes.get(path, 0)
            self._sizes[path] = size + 1
            path = (*path, size)
            yield path, start, _Kind.ITEM
        self.table = path
        self._expect(bracket)

    def statement(self, table: Path) -> Iterator[_Named]:
        """Read a key and its value."""
        path = yield from self._key(table)
        inside: list[tuple[Path, Iterator[int] | None]] = []  # the arrays and inline tables around; these don't count
        while len(inside) < _DEEPEST:
            if self.is_at("[") or self.is_at("{"):
                inside.append((path, count() if self.is_at("[") else None))
                self._at += 1
            else:
                self._skip(_SCALAR)
            while inside:
                self._skip(_BLANK)
                self._takes(",")
                self._skip(_BLANK)
                around, numbers = inside[-1]
                if not self._takes("}" if numbers is None else "]"):
                    break
                inside.pop()
            if not inside:
                return
            if numbers is None:
                path = yield from self._key(around)
            else:
                path = (*around, next(numbers))
                yield path, self._at, _Kind.ITEM
        raise _NoTomlError

    def _key(self, table: Path) -> Generator[_Named, None, Path]:
        """Read a key, up to its value."""
        path = table
        while True:
            offset, path = self._part(path)
            if not self._takes("."):
                break
            yield path, offset, _Kind.PART
        yield path, offset, _Kind.KEY
        self._expect("=")
        self._skip(_SPACE)
        return path

    def _part(self, outer: Path) -> tuple[int, Path]:
        """Read a part of a key, and the space on both sides of it: where it is, and the path that it leads to."""
        self._skip(_SPACE)
        offset = self._at
        found = _PART.match(self._text, offset)
        if found is None or len(outer) > _DEEPEST:
            raise _NoTomlError
        self._at = found.end()
        self._skip(_SPACE)
        return offset, (*outer, _name(found[0]))

    def _is_wanted(self, path: Path) -> bool:
        return self._wanted is None or path in self._wanted

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _NoTomlError
        self._at = found.end()

    def _takes(self, token: str) -> bool:
        """Read this, if it comes next."""
        is_next = self.is_at(token)
        self._at += len(token) * is_next
        return is_next

    def _expect(self, token: str) -> None:
        if not self._takes(token):
            raise _NoTomlError


def _name(part: str) -> str:
    """What a part of a key means."""
    if part[0] not in "\"'":
        return part
    if part[0] == "'" or "\\" not in part:
        return part[1:-1]
    try:
        return next(iter(tomllib.loads(f"{part} = 0")))
    except tomllib.TOMLDecodeError:
        raise _NoTomlError from None
