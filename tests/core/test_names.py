# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of interfaces: shown as printable text, all different, and found by alternative names."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npd6_xdp
from npd6_xdp.core.altnames import duplicates, naming, with_names
from npd6_xdp.core.config import Config, InterfaceConfig
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.core.names import canonical, raw, shown, word
from tests.core.test_steps import timed

NAMES = st.binary(min_size=1, max_size=127)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"wan0", "wan0"),
        (b"lan0.100", "lan0.100"),
        ("büro".encode(), "büro"),
        (b"lan\xff", r"lan\xff"),
        (b"a\x1b[31mred", r"a\x1b[31mred"),
        (b'quote"x\\y', r'quote"x\x5cy'),
        (b"<b>x", "<b>x"),
        (b"\x7f\x01", r"\x7f\x01"),
        ("\u202egnp".encode(), r"\xe2\x80\xaegnp"),  # what follows would be shown from right to left
        ("a\u0085b".encode(), r"a\xc2\x85b"),
        ("\ufeffwan0".encode(), r"\xef\xbb\xbfwan0"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # a surrogate in UTF-8 is none
        (rb"lan\xff", r"lan\x5cxff"),
    ],
)
def test_a_name_is_shown_as_text_with_what_is_not_escaped(name: bytes, text: str) -> None:
    assert shown(name) == text
    assert raw(text) == name


@given(NAMES)
def test_whatever_the_bytes_a_name_is_printable_and_goes_back_to_them(name: bytes) -> None:
    text = shown(name)
    assert text.isprintable()
    assert text.encode().decode() == text
    assert json.loads(json.dumps(text)) == text
    assert raw(text) == name
    assert canonical(text) == text


@given(NAMES, NAMES)
def test_no_two_names_are_shown_alike(one: bytes, another: bytes) -> None:
    assert (shown(one) == shown(another)) == (one == another)


@pytest.mark.parametrize("written", [r"'lan\xff'", r'"lan\\xff"'])
def test_the_file_has_a_name_as_it_is_shown(written: str) -> None:
    (interface,) = config(name=written).interfaces
    assert interface.name == shown(b"lan\xff")


def test_a_backslash_of_a_name_may_stand_for_itself_in_the_file() -> None:
    (interface,) = config(name=r"'a\b'").interfaces
    assert interface.name == shown(rb"a\b")


@pytest.mark.parametrize("length", [16, 127])
def test_an_alternative_name_may_be_as_long_as_linux_has_them(length: int) -> None:
    (interface,) = config(name=f'"{"x" * length}"').interfaces
    assert interface.name == "x" * length


@pytest.mark.parametrize("name", ['"x*sixteen-letters"', f'"{"x" * 128}"'])
def test_a_name_that_no_interface_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 15 characters, an alternative one up to 127"):
        config(name=name)


def config(*more: str, name: str = '"uplink0"', rule: str = "") -> Config:
    text = f'[[interface]]\nname = {name}\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\n'
    rule = rule or 'method = "static"\n'
    return parse("\n".join((text + rule, *more)), "test")


BESIDE = '[[interface]]\nname = "{}"\n{}\n[[interface.rule]]\nprefix = "2001:db8:2::/64"\nmethod = "static"\n'


def test_an_alternative_name_stands_for_the_name_wherever_a_name_may_stand() -> None:
    written = config(
        '[[interface.rule]]\nprefix = "interface:down0"\nmethod = "static"\n',
        rule='method = "neighbour"\nvia = ["down0", "lan1", "lan0", "d*"]\n',
    )
    (named,) = with_names(written, {"uplink0": "eth0", "down0": "lan0", "other": "lan1"}).interfaces
    assert named.name == named.label == "eth0"
    assert named.rules[0].via == ("lan0", "lan1", "d*")
    assert named.rules[1].follows == "lan0"
    assert named.rules[1].prefix == "interface:down0"  # as the file has it: it is a label


@pytest.mark.large
def test_of_many_rules_each_gets_its_names_in_bits_and_who_has_none_stays_the_very_same() -> None:
    """With 100,000 that have one, it took 0.15 s in one turn."""
    via = config(rule='method = "neighbour"\nvia = ["down0"]\n').interfaces[0].rules[0]
    other = via._replace(via=("lan1",))
    written = Config((InterfaceConfig("uplink0", (via, other) * 5_000), *config(name='"eth9"').interfaces))
    _, (*bits, config_named) = timed(naming(written, {"uplink0": "eth0", "down0": "lan0"}))
    assert len(bits) >= 10
    named = config_named.interfaces[0]
    assert named.name == "eth0"
    assert [rule.via for rule in named.rules] == [("lan0",), ("lan1",)] * 5_000
    assert all(rule is other for rule in named.rules[1::2])


def test_a_glob_means_names_only() -> None:
    written = config(name='"up*"')
    assert with_names(written, {"uplink0": "eth0"}) is written


def test_without_alternative_names_it_stays_the_very_same() -> None:
    written = config()
    assert with_names(written, {}) is written
    assert with_names(written, {"elsewhere": "eth0"}) is written


@pytest.mark.parametrize(
    ("first", "second"), [("eth0", "uplink0"), ("uplink0", "eth0"), ("uplink0", "uplink1")], ids=repr
)
def test_of_two_entries_for_one_interface_the_one_by_its_name_counts_else_the_first_and_that_is_said(
    first: str, second: str
) -> None:
    names = {"uplink0": "eth0", "uplink1": "eth0"}
    written = config(BESIDE.format(second, ""), name=f'"{first}"')
    (left,) = with_names(written, names).interfaces
    wins = "2001:db8:2::/64" if second == "eth0" else "2001:db8:1::/64"
    assert (left.name, left.rules[0].prefix) == ("eth0", wins)
    (line,) = duplicates(written, names)
    loser = first if second == "eth0" else second
    assert line.startswith(f"{loser}: left out, since {loser} is eth0")


def test_two_entries_for_different_frames_of_one_interface_both_count() -> None:
    written = config(BESIDE.format("eth0", "vlan = 100"))
    names = {"uplink0": "eth0"}
    assert [interface.label for interface in with_names(written, names).interfaces] == ["eth0", "eth0:100"]
    assert duplicates(written, names) == []


@pytest.mark.parametrize(
    "name",
    [
        b"wan0.100",
        b"a;id",
        b"$(id)",
        b"`id`",
        b"a'b",
        b'a"b\\c',
        b"&",
        b"*",
        b"!x",
        b"~",
        b"#a",
        "büro".encode(),
        b"a\xff\x1b%s;'",
    ],
)
def test_a_name_is_one_word_of_a_shell(name: bytes) -> None:
    command = f"printf %s {word(shown(name))}"
    assert command.isprintable()
    done = subprocess.run(["sh", "-c", os.fsencode(command)], stdout=subprocess.PIPE, check=True)
    assert done.stdout == name


COMMAND = re.compile(r"(?:dev|rdisc6|rdisc6 -1|--interface|ethtool -K|sysctl -w|ip link set) (?!\{word\()[^ ]*\{")
NO_NAMES = {
    "npd6_xdp/core/live_text.py",  # of a route that is there
    "npd6_xdp/core/table_space.py",  # of the neighbour table
    "npd6_xdp/core/trace_filter.py",  # as it was typed, in an error
    "npd6_xdp/core/warnings.py",  # in words that are made above
    "npd6_xdp/tools/doctor/forwarding.py",  # made in core/warnings.py
    "npd6_xdp/tools/doctor/routes.py",  # of the neighbour table
}


def test_what_is_printed_to_be_run_has_names_as_words_of_a_shell() -> None:
    package = Path(npd6_xdp.__file__).parent
    found = [
        f"{path.relative_to(package.parent)}: {line.strip()}"
        for room in ("core", "tools/doctor", "tools/init")
        for path in sorted((package / room).rglob("*.py"))
        for line in path.read_text().splitlines()
        if COMMAND.search(line)
    ]
    assert {line.partition(":")[0] for line in found} <= NO_NAMES, found
