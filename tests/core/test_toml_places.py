# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a text a key stands is found in every spelling that TOML has, and in no text does looking for it fail."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config_words import syntax_mistake
from npd6_xdp.core.toml_places import Path, Place, places, twice

SPACES = ("", "", " ", "\t", " \t ")
COMMENTS = ("", "", "# c", '# [a] "b', "#é😀 = {", "# '''")
SCALARS = (
    *("1", "-7", "1_000", "0x1f", "0b1", "1.5", "1e3", "-inf", "nan", "true", "false"),
    *("1979-05-27", "07:32:00", "1979-05-27 07:32:00", "1979-05-27T07:32:00.5+01:00"),
    *('""', '"a"', r'"a\"]\\"', '"# {"', "''", "'a'", r"'\'", "'] = #'", '"é😀"', r'"\u00e9\t"'),
    *('"""a"""', '""""""', '"""\n[a]\n"""', '"""""a"""""', '"""a\\"""\\\n  b = 1"""', '"""""\r\n"""""', '"""#"""'),
    *("'''a'''", "''''''", "'''\n[[a]]\nb = 1'''", "'''''a'''''", "'''\\'''"),
)
ENDINGS = ("", "", "-x", "_9", " b", ".", "é", "😀", '"', "'", "\\", "#", "=", "[", "\t", "\n")


class Writer:
    """Writes a document in random spellings, and notes where each path is named."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.one = random.choice
        self.text = ""
        self.at: dict[Path, int] = {}
        self._count = 0
        self._open: list[Path] = []  # tables that dotted keys have made

    def name(self) -> str:
        """One that nothing else has."""
        self._count += 1
        return f"k{self._count}{self.one(ENDINGS)}"

    def part(self, name: str) -> str:
        """A key's part, spelled."""
        bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
        ways = ["basic", "escaped", *(["bare"] * 3 if bare else []), *([] if set(name) & set("'\n") else ["literal"])]
        match self.one(ways):
            case "bare":
                return name
            case "literal":
                return f"'{name}'"
            case "escaped":
                return '"' + "".join(f"\\U{ord(each):08X}" for each in name) + '"'
        plain = name.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + plain.replace("\n", "\\n").replace("\t", "\\t") + '"'

    def space(self) -> None:
        self.text += self.one(SPACES)

    def end(self) -> None:
        """The end of a line, and empty ones."""
        self.space()
        self.text += self.one(COMMENTS)
        self.text += self.one(["\n", "\r\n", "\n\n", "\r\n\t\n", "\n# c\n"])

    def gap(self) -> None:
        """What may stand between the items of an array."""
        if self.one((True, False)):
            self.end()
        self.space()

    def key(self, table: Path) -> Path:
        """A key, maybe dotted, and what is in front of its value."""
        known = [path for path in self._open if path[:-1] == table]
        path = table
        for index in range(self.one([1, 1, 1, 2, 3])):
            again = known and index == 0 and self.one((True, False))
            path = self.one(known) if again else (*path, self.name())
            self.space()
            self.at.setdefault(path, len(self.text))
            self.text += self.part(str(path[-1]))
            self.space()
            self.text += "."
        if path in self._open:  # it is a table already, so this was no key yet
            path = (*path, self.name())
            self.at[path] = len(self.text)
            self.text += f"{self.part(str(path[-1]))}."
        self._open += [path[:end] for end in range(len(table) + 1, len(path))]
        self.text = self.text[:-1] + "="
        self.space()
        return path

    def value(self, path: Path, depth: int = 0) -> None:
        """A value, and where those in it are."""
        kind = self.one(["scalar"] * 3 + ["array", "table"] * (depth < 3))
        if kind == "scalar":
            self.text += self.one(SCALARS)
            return
        size = self.random.randint(0, 3)
        self.text += "[" if kind == "array" else "{"
        for index in range(size):
            if kind == "array":
                self.gap()
                item = (*path, index)
                self.at[item] = len(self.text)
            else:
                item = self.key(path)
            self.value(item, depth + 1)
            if kind == "array":
                self.gap()
            else:
                self.space()
            if index + 1 < size or (kind == "array" and self.one((True, False))):
                self.text += ","
        if kind == "array":
            self.gap()
        else:
            self.space()
        self.text += "]" if kind == "array" else "}"

    def statements(self, table: Path) -> None:
        for _ in range(self.random.randint(0, 3)):
            self.value(self.key(table))
            self.end()

    def header(self, parts: list[tuple[str, Path]], path: Path, brackets: str) -> None:
        """A header: its parts by name, each with the path that it is a part of."""
        self.space()
        start = len(self.text)
        self.text += brackets
        for index, (name, part) in enumerate(parts):
            self.text += "." if index else ""
            self.space()
            if part is not path:
                self.at.setdefault(part, len(self.text))
            self.text += self.part(name)
            self.space()
        self.at[path] = start
        self.text += brackets.replace("[", "]")
        self.end()

    def tables(self) -> None:
        """Tables, those inside of them and around them, and arrays of tables in arrays of tables."""
        for _ in range(self.random.randint(0, 3)):
            name, inner, deep = self.name(), self.name(), self.name()
            outer: Path = (name,)
            if self.one((True, False)):
                path = (name, inner, deep)
                self.header([(name, outer), (inner, path[:2]), (deep, path)], path, "[")
                self.statements(path)
                if self.one((True, False)):
                    self.header([(name, outer)], outer, "[")
                    self.statements(outer)
                continue
            for index in range(self.random.randint(1, 3)):
                entry = (name, index)
                first = self.at.get(outer)
                self.header([(name, outer)], outer, "[[")
                self.at[entry], self.at[outer] = self.at[outer], self.at[outer] if first is None else first
                self.statements(entry)
                for number in range(self.random.randint(0, 2)):
                    array = (*entry, inner)
                    first = self.at.get(array)
                    self.header([(name, outer), (inner, array)], array, "[[")
                    rule = (*array, number)
                    self.at[rule], self.at[array] = self.at[array], self.at[array] if first is None else first
                    self.statements(rule)
                    if self.one((True, False)):
                        table = (*rule, deep)
                        self.header([(name, outer), (inner, array), (deep, table)], table, "[")
                        self.statements(table)


def paths_of(value: object, here: Path = ()) -> Iterator[Path]:
    """Every path in a document that was read."""
    items: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = enumerate(value)
    for name, inner in items:
        yield (*here, name)
        yield from paths_of(inner, (*here, name))


def counted(text: str, offset: int) -> Place:
    """Line and column, counted character by character."""
    line = column = 1
    for character in text[:offset]:
        line, column = (line + 1, 1) if character == "\n" else (line, column + 1)
    return Place(line, column)


@settings(deadline=None, max_examples=400)
@given(st.integers(0, 2**64))
def test_every_path_is_found_where_it_was_written_whatever_the_spelling(seed: int) -> None:
    writer = Writer(Random(seed))  # noqa: S311
    writer.statements(())
    writer.tables()
    text = writer.text
    assert set(paths_of(tomllib.loads(text))) == writer.at.keys(), text
    assert places(text, writer.at) == {path: counted(text, offset) for path, offset in writer.at.items()}, text
    for path, offset in writer.at.items():
        assert places(text, [path]) == {path: counted(text, offset)}, "what else is asked for is of no account"


TEXT = """\
name = "x"
a.b.c = 1
[daemon]\r
\t log_level = [ "a",
  # ]
  'é', {"é" = 1, "b c" = 2}]
[[interface]]
[[interface.rule]]
prefix = 1
[[ interface . "rule" ]]
[[interface]]
rule = [{ via = ["lan0"] }]
"""
KNOWN: tuple[tuple[Path, str], ...] = (
    (("name",), "1:1"),
    (("a",), "2:1"),
    (("a", "b"), "2:3"),
    (("a", "b", "c"), "2:5"),
    (("a", "none"), "2:1"),
    (("daemon",), "3:1"),
    (("daemon", "control"), "3:1"),
    (("daemon", "log_level"), "4:3"),
    (("daemon", "log_level", 0), "4:17"),
    (("daemon", "log_level", 1), "6:3"),
    (("daemon", "log_level", 2), "6:8"),
    (("daemon", "log_level", 2, "é"), "6:9"),
    (("daemon", "log_level", 2, "b c"), "6:18"),
    (("interface",), "7:1"),
    (("interface", 0), "7:1"),
    (("interface", 0, "rule"), "8:1"),
    (("interface", 0, "rule", 0, "prefix"), "9:1"),
    (("interface", 0, "rule", 0, "method"), "8:1"),
    (("interface", 0, "rule", 1, "method"), "10:1"),
    (("interface", 1, "name"), "11:1"),
    (("interface", 1, "rule"), "12:1"),
    (("interface", 1, "rule", 0), "12:9"),
    (("interface", 1, "rule", 0, "prefix"), "12:9"),
    (("interface", 1, "rule", 0, "via", 0), "12:18"),
)


@pytest.mark.parametrize(("path", "place"), KNOWN, ids=lambda value: str(value))
def test_what_is_not_there_is_where_its_table_is(path: Path, place: str) -> None:
    (found,) = places(TEXT, [path]).values()
    assert f"{found.line}:{found.column}" == place


def test_what_only_the_document_would_have_is_nowhere() -> None:
    assert places(TEXT, [("limits", "pending"), ()]) == {}


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("[a]\n\n  [a]\n", (1, 1), (3, 3)),
        ("[a]\n[[a]]\n", (1, 1), (2, 1)),
        ("[[a]]\n[a]\n", (1, 1), (2, 1)),
        ("a = 1\n[a]\n", (1, 1), (2, 1)),
        ("a = 1\na.b = 2\n", (1, 1), (2, 1)),
        ("a = {}\n[x]\n[a.b]\n", (1, 1), (3, 2)),
        ("a = {b = 1, 'b' = 2}\n", (1, 6), (1, 13)),
        ('[a]\nb = """\nb = 1\n"""\n\tb = 2\n', (2, 1), (5, 2)),
        ('[[a]]\nb = 1\n[[a]]\nb = 1\n"\\u0062" = 2', (4, 1), (5, 1)),
        ("[a.b]\n[a]\nb = 1\n", (1, 1), (3, 1)),
    ],
)
def test_a_mistake_that_something_is_there_twice_is_at_the_second_and_names_the_first(
    text: str, first: tuple[int, int], second: tuple[int, int]
) -> None:
    assert twice(text, len(text)) == (first, second)
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    for spelled in (text, text.replace("\n", "\r\n")):
        mistake = syntax_mistake(str(caught.value), spelled)
        assert mistake.told("f").startswith(f"f:{second[0]}:{second[1]}: not valid TOML: ")
        assert mistake.message.endswith(f"; the first is in line {first[0]}")


def test_what_is_there_once_is_no_second() -> None:
    for text in ("a.b = 1\na.c = 2\n", "[a.b]\n[a]\nc = 1\n", "a = [{b = 1}, {b = 1}]\n", ""):
        assert twice(text, len(text)) is None


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*"[]{}=.,#\"'\\ \t\n\r\x00ab1é", '"""', "'''", "[[a]]\n", "a = ", "\\u"])).map("".join)
    | st.text(),
    st.integers(0, 30),
)
def test_no_text_is_too_much(text: str, before: int) -> None:
    for found in places(text, [("a",), ("a", 0, "b"), ("a", "b", "a"), ()]).values():
        assert 1 <= found.line <= text.count("\n") + 1
        assert 1 <= found.column <= len(text.split("\n")[found.line - 1])
    twice(text, before)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        mistake = syntax_mistake(str(error), text)
        assert 1 <= mistake.line <= text.count("\n") + 1
        assert mistake.column >= 1


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{a=" * 100_000, "a." * 100_000, "[" + "a." * 9999])
def test_no_nesting_is_too_deep(text: str) -> None:
    assert places(text, [("a",)]) in ({}, {("a",): Place(1, 1)}, {("a",): Place(1, 2)})
    twice(text, len(text))
