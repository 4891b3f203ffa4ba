# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read without tomllib is what tomllib reads, and nothing that it refuses."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npd6_xdp.core import plain_toml
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_words import Float

ROOT = Path(__file__).resolve().parents[2]

keys = st.sampled_from(["a", "b", "rule", "interface", "1", "-", "a.b", '"a"', "", "ü", "a b"])
strings = st.text("ab\"\\'#[]=,\t\n\r\x00\x7f\xa0é😀", max_size=4)
atoms = st.one_of(
    strings.map(lambda text: f'"{text}"'),
    strings.map(lambda text: f"'{text}'"),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["true", "false", "True", "+1", "+0", "-0", "00", "01", "1_000", "0x1f", "1.5", "1e3", "inf"]),
    st.sampled_from(["nan", "1979-05-27", "07:32:00", "{}", "[true]"]),
    st.sampled_from(["", '"', "1979-05-27 07:32:00", '"""a"""', "'''a'''", '{a = "b"}', "[1, 2]", "[['a']]", "- 1"]),
)
spaces = st.sampled_from(["", " ", "\t", "  "])
items = st.lists(strings.map(lambda text: f'"{text}"'), max_size=3)
arrays = st.builds(
    lambda found, comma, space, last: f"[{space}{(space + comma + space).join(found)}{last}{space}]",
    items,
    st.sampled_from([",", ",,", " "]),
    st.sampled_from(["", " ", "\n", "\r\n", "\t", " # c\n"]),
    st.sampled_from(["", ","]),
)
ends = st.sampled_from(
    ["\n", "\r\n", "\n\n", "", " \n", "#\n", " # c [a] = 'b'\n", "# \x00\n", "\r", "# \r\n", "\x0b\n"]
)
values = st.builds(
    lambda space, key, value, end: f"{space}{key} ={space}{value}{end}", spaces, keys, atoms | arrays, ends
)
headers = st.builds(
    lambda space, form, one, other, end: space + form.format(one, other) + end,
    spaces,
    st.sampled_from(["[{}]", "[[{}]]", "[[{}.{}]]", "[{}.{}]", "[ {} ]", "[[ {} ]]", "[[{}]", "[{}]]", "[[{} . {}]]"]),
    keys,
    keys,
    ends,
)
documents = st.lists(values | headers | ends | st.text(max_size=3), max_size=8).map("".join)


def by_tomllib(text: str) -> dict[str, object] | None:
    try:
        return tomllib.loads(text, parse_float=Float)
    except ValueError:
        return None


@given(documents)
@example("[a]\n[[a.b]]\n")
@example("[[a]]\nb = []\n[[a.b]]\n")
@example("[[a]]\n[[a.b]]\nc = 1\n[[a.b]]\n[[a]]\n[[a.b]]\n")
@example("[[a]]\n[a]\n")
@example("[[a]]\n[[a.b]]\n[[a]]\nb = 1\n")
@example("a = 1\n[a]\n")
@example("a = 1\n[[a]]\n")
@example("[[a]]\nb = 1\n[[a.b]]\n")
@example('[[a]]\n[[a.b]]\nc = "1"\nd = "2"\n[[a.b]]\nc = "3"\nd = "4" # e\nf = 5\n')
@example('[[a]]\n[[a.b]]\nc = "1"\nc = "2"\n')
@example('[[a]]\n[[a.b]]\nc = "1"\nd = "2"\nc = "3"\n')
@example('[[a]]\n[[a.b]]\nc = "1"\nd = "2" e = 3\n')
@example('[[a]]\n[[a.b]]\nc = "1"\nd = "2\\""\n')
@example('[[a.b]]\nc = "1"\nd = "2"\n')
@example('[a]\n[[a.b]]\nc = "1"\nd = "2"\n')
@example("a = 1 a = 2")
@example("a = true # b\r\nc=[ \"d\" , \r\n 'e' ]")
@example("\ufeffa = 1")
@example("a = 1\r")
@example("a = 9223372036854775808")
def test_what_is_read_is_what_tomllib_reads(text: str) -> None:
    found = plain_toml.read(text)
    if found is not None:
        assert found == by_tomllib(text)
        assert repr(found) == repr(by_tomllib(text)), "True is 1, and the order counts"


_TWO_LINES = {'c = "1"\nd = "2"': {"c": "1", "d": "2"}, 'c = "\u00fc"\nd = ""': {"c": "\u00fc", "d": ""}}
_TABLES = st.sampled_from(
    [f"\n[[a.b]]\n{lines}{end}" for lines in _TWO_LINES for end in ("", "\n", "\n# c\n", " ", "\ne = 5\n")]
)


@given(
    st.lists(
        st.sampled_from(["[[a]]\n", "[[a.b]]\n", "b = []\n", "# \x00", '"""']) | _TABLES | values | ends, max_size=8
    )
)
def test_what_is_known_is_taken_as_it_is_known(blocks: list[str]) -> None:
    text = "[[a]]\n" + "".join(blocks)
    found = plain_toml.read(text, plain_toml.Known("a", "b", _TWO_LINES.get))
    assert found == plain_toml.read(text)


def test_of_what_is_known_no_line_is_read() -> None:
    one, other = object(), object()
    known = plain_toml.Known("a", "b", {"one": one, "the\nother": other}.get)
    text = "[[a]]\n[[a.b]]\none\n[[a.b]]\nc = 1\n[[a]]\n\n[[a.b]]\nthe\nother\n# c\n\n[[a.b]]\none"
    assert plain_toml.read(text, known) == {"a": [{"b": [one, {"c": 1}]}, {"b": [other, one]}]}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["[x{}]\n", "[[interface]]\n", "[[interface.rule]]\n", "\n", "# c\r\n"]),
            st.lists(
                st.sampled_from(['"::/64"', "100", "-7", "true", "'a'", '["lan0"]', '[\n  "a",\n  "b",\n]', "[]"]),
                max_size=3,
            ),
        )
    )
)
def test_what_is_written_as_usual_needs_no_tomllib(tables: list[tuple[str, list[str]]]) -> None:
    text = "[[interface]]\n"
    for number, (header, found) in enumerate(tables):
        text += header.format(number)
        text += "".join(f"key-{number}-{each} = {value} # c\n" for each, value in enumerate(found))
    assert plain_toml.read(text) == by_tomllib(text) is not None


@pytest.mark.parametrize(
    "path", [*ROOT.glob("deploy/**/*.toml"), *ROOT.glob("tests/**/*.toml")], ids=lambda path: path.name
)
def test_the_files_of_this_project_are_plain(path: Path) -> None:
    text = path.read_text()
    assert plain_toml.read(text) == by_tomllib(text) is not None


def test_a_file_that_is_not_plain_means_the_same() -> None:
    plain = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "static"\n'
    other = '[[ interface ]]\nname = """wan0"""\nrule = [{prefix = "2001:db8\\u003a:/64", "method" = \'static\'}]\n'
    assert plain_toml.read(other) is None
    assert parse(plain, "x") == parse(other, "x")
