# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that is read again: what is as it was is taken as it was, and all means what it means by tomllib."""

from __future__ import annotations

import tomllib
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npd6_xdp.core import plain_toml
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_parsers import targets
from npd6_xdp.core.config_words import Wrong
from npd6_xdp.core.errors import ConfigError, Mistake
from tests.core.test_config_properties import PREFIXES

HEADER = "[[interface.rule]]\n"
HEAD = '[[interface]]\nname = "wan0"\n'
PLAIN = [
    f'{HEADER}prefix = "{prefix}"\nmethod = "{method}"\n'
    for prefix in (
        "2001:db8:1::/64",
        "2001:db8:1:0::/64",
        "2001:db8:2::/64",
        "2001:db8:3::1",
        "2001:db8::5-2001:db8::5",
    )
    for method in ("static", "route", "kernel")
]
OTHER = [
    f'{HEADER}prefix = "2001:db8:1::/64"\nmethod = "static"\nrouter = false\n',
    f'{HEADER}prefix = "2001:db8:4::/64"\nmethod = "neighbour"\nvia = [\n  "lan0",\n]\n',
    f'{HEADER}method = "static"\nprefix = "2001:db8:2::/64"\n',
    f'{HEADER}prefix = "interface:lan0"\nmethod = "static"\n',
    f'{HEADER}prefix = "2001:db8:1::1/64"\nmethod = "static"\n',
    f'{HEADER}prefix = "2001:db8:1::/64\\"\nmethod = "static"\n',
    '[[interface.rule]] # c\nprefix = "2001:db8:2::/64"\nmethod = "static"\n',
    f'  {HEADER}  prefix = "2001:db8:2::/64"\n  method = "static"\n',
    '[[ interface . rule ]]\nprefix = "2001:db8:3::1"\nmethod = "static"\n',
    '[[interface.rules]]\nprefix = "2001:db8:3::1"\nmethod = "static"\n',
    *(HEADER, HEADER[:-1], HEAD, HEAD.replace("0", "1"), "[[interface]]\n", 'vlan = 5\nlink_address = "02::1"\n'),
    *("[limits]\npending = 5\n", "[interface]\n", "rule = []\n", "router = true\n", 'prefix = "a"\n', "\\", '"'),
    *('x = """\n', '"""\n', "x = '''\n", "'''\n", "via = [\n", "via = [ # ", "]\n", '"lan0",\n', "x = { a = 1 }\n"),
    *("\n", "\n\n", " \n", "# c\n", "  # c", "# \x00\n", "# \x7f", "\r\n", "\r", "\t", " ", "a"),
]
texts = st.builds(
    lambda start, blocks, cut, crlf: (start + "".join(blocks))[:cut].replace("\n", "\r\n" if crlf else "\n"),
    st.sampled_from([HEAD, HEAD, HEAD, ""]),
    st.lists(st.one_of(st.sampled_from(PLAIN), st.sampled_from(PLAIN), st.sampled_from(OTHER)), max_size=8),
    st.none() | st.integers(-80, -1),
    st.sampled_from([False, False, True]),
)
OLD = parse(
    f"{HEAD}{PLAIN[0]}{PLAIN[7]}{PLAIN[11]}{PLAIN[12]}{OTHER[1]}{HEAD.replace('0', '1')}{PLAIN[4]}{PLAIN[6]}", "f"
)


def by_tomllib(text: str) -> Config | list[Mistake]:
    with patch.object(plain_toml, "read", lambda *_: None):
        return found(text)


def found(text: str, before: Config | None = None) -> Config | list[Mistake]:
    try:
        return parse(text, "f", before)
    except ConfigError as error:
        return [*error.mistakes, Mistake("", str(error))]


@given(texts, texts)
@example("", f"{HEAD}{PLAIN[0]}{PLAIN[0]}")
@example("", f"{HEAD}{PLAIN[0]}{PLAIN[3]}{PLAIN[11]}")
@example("", f"{HEAD}{PLAIN[0]}{HEAD}{PLAIN[0]}")
@example("", f'{HEAD}control = """\n{PLAIN[0]}"""\n{PLAIN[0]}')
@example("", f"{HEAD}# {PLAIN[0]}{PLAIN[0]}")
@example("", f"{HEAD}{PLAIN[0]}via = [\n{PLAIN[11]}]\n")
@example("", f"{HEAD}{PLAIN[0]}# c\n\n# \x00\n{PLAIN[11]}")
@example("", f"{HEAD}{PLAIN[0]}\n  # c\nrouter = false\n{PLAIN[11]}")
@example("", f"[interface]\n{PLAIN[0]}")
@example("", f"{HEAD}rule = []\n{PLAIN[0]}{PLAIN[11]}")
@example("", f"{PLAIN[0]}{HEAD}{PLAIN[0]}")
def test_what_was_known_before_changes_neither_what_a_file_says_nor_its_mistakes(before: str, now: str) -> None:
    old = found(before)
    assert found(now, old if isinstance(old, Config) else OLD) == found(now) == by_tomllib(now)


@given(st.text("\x00\x1f\x7f\n\r\t \"\\'#-:./%0a1é[]", max_size=12) | st.sampled_from(PREFIXES))
def test_no_prefix_needs_an_escape(text: str) -> None:
    """So what stands between two quotes is one: core/plain_rules.py."""
    try:
        targets(text)
    except Wrong:
        return
    assert tomllib.loads(f'prefix = "{text}"') == {"prefix": text}


@pytest.mark.parametrize(
    "now",
    [
        "{0}{1}{2}",
        "{2}{0}{1}",
        "{0}\n{1}\n\n{2}\n",
        "# of one\n{0}# of another\n\n  # and more\n{1}{2}# the end",
        "{0}{3}{1}{4}{2}",
        "  [[interface.rule]]\n  prefix = '2001:db8:1::/64' # c\n  method = \"static\"\n{1}{2}",
    ],
    ids=["same", "moved", "blank lines", "comments", "others between", "written otherwise"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_plain_rule_is_the_very_same_as_before(now: str, end: str) -> None:
    rules = PLAIN[0], PLAIN[7], PLAIN[11]
    before = parse(HEAD + "".join(rules), "f")
    text = HEAD + now.format(*rules, OTHER[1], PLAIN[12])
    after = parse(text.replace("\n", end), "f", before)
    assert set(map(id, before.interfaces[0].rules)) <= set(map(id, after.interfaces[0].rules))
