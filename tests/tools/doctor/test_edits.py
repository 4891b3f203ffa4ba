# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that mend a configuration file change the line that is meant, and no other."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from npd6_xdp.core.config_file import parse
from npd6_xdp.tools.doctor import edits

P = "2001:db8:1::/64"
TEXT = f"""\
# via = ["lan0"]
[[interface]]
name = "wan0"   # the upstream's
[[interface.rule]]
prefix = "{P}"
method = "route"
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "neighbour"
via = ["lan0", "lan01"]

[[interface]]
name = 'lan0'
[[interface.rule]]
prefix = "{P}"
method = "neighbour"
via = ["wan0"]
"""


def mended(tmp_path: Path, commands: tuple[str, ...]) -> str:
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True)
    return (tmp_path / "a b.toml").read_text()


def test_each_edit_is_of_the_rule_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a b.toml"
    path.write_text(TEXT)
    rule = edits.rule_place(path, TEXT, "wan0", P)
    text = mended(tmp_path, rule.put({"method": '"neighbour"', "via": '["lan0"]'}))
    text = mended(tmp_path, edits.rule_place(path, text, "wan0", "2001:db8:2::/64").replace(("via", "lan0", "br0")))
    text = mended(tmp_path, edits.rule_place(path, text, "wan0", P).put({"host_routes": "true"}))
    text = mended(tmp_path, edits.interface_place(path, text, "lan0").replace(("name", "lan0", "lan7")))
    wan, lan = parse(text, "x").interfaces
    assert (wan.name, lan.name) == ("wan0", "lan7")
    first, second = wan.rules
    assert (first.method, first.via, first.host_routes) == ("neighbour", ("lan0",), True)
    assert (second.via, second.host_routes) == (("br0", "lan01"), False)
    assert lan.rules == parse(TEXT, "x").interfaces[1].rules


def test_what_is_written_in_another_way_has_no_command(tmp_path: Path) -> None:
    path = tmp_path / "a b.toml"
    text = f'interface = [{{name = "wan0", rule = [{{prefix = "{P}", method = "route"}}]}}]\n'
    assert parse(text, "x").interfaces
    assert edits.rule_place(path, text, "wan0", P).replace(("method", "route", "static")) == ()
    assert edits.rule_place(path, TEXT, "wan0", P).replace(("method", "static", "kernel")) == ()
    assert edits.both(("a",), ()) == ()


def test_a_name_that_is_part_of_the_key_is_replaced_where_it_is_the_value(tmp_path: Path) -> None:
    path, text = tmp_path / "a b.toml", TEXT.replace('"wan0"   #', '"m" #')
    path.write_text(text)
    text = mended(tmp_path, edits.interface_place(path, text, "m").replace(("name", "m", "wan7")))
    assert parse(text, "x").interfaces[0].name == "wan7"


def test_odd_names_are_written_as_they_are_and_reach_no_shell(tmp_path: Path) -> None:
    path, odd = tmp_path / "a b.toml", r"""a&b|c'd"$(id)`;\x5c1"""
    path.write_text(TEXT)
    for name in ("x|.*", odd, "lan9"):
        before = path.read_text()
        place = edits.rule_place(path, before, "wan0", "2001:db8:2::/64")
        old = parse(before, "x").interfaces[0].rules[1].via[0]
        text = mended(tmp_path, place.replace(("via", old, name)))
        assert parse(text, "x").interfaces[0].rules[1].via == (name, "lan01")
        rule = edits.rule_place(path, text, "wan0", P)
        text = mended(tmp_path, rule.put({"method": '"neighbour"', "via": f"[{edits.string(name)}]"}))
        assert parse(text, "x").interfaces[0].rules[0].via == (name,)


def test_no_command_leaves_a_file_that_is_none(tmp_path: Path) -> None:
    """A value of several lines, a key that is there already, two entries of one name: each is seen to."""
    path = tmp_path / "a b.toml"
    text = TEXT.replace('via = ["lan0", "lan01"]', 'via = [\n  "lan0",\n]')
    path.write_text(text)
    place = edits.rule_place(path, text, "wan0", "2001:db8:2::/64")
    assert place.put({"via": '["br0"]'}) == (), "its other lines would be left"
    text = mended(tmp_path, place.put({"host_routes": "true"}))
    rule = parse(text, "x").interfaces[0].rules[1]
    assert (rule.via, rule.host_routes) == (("lan0",), True)
    text = mended(tmp_path, edits.rule_place(path, text, "lan0", P).put({"via": '["br0"]', "host_routes": "true"}))
    rule = parse(text, "x").interfaces[1].rules[0]
    assert (rule.via, rule.host_routes) == (("br0",), True)
    twice = TEXT + TEXT.replace('"wan0"', '"wan0"\nvlan = 7').replace("'lan0'", "'lan1'")
    assert edits.rule_place(path, twice, "wan0", P).put({"host_routes": "true"}) == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[limits]\nneighbours = 8\n"),
        ("[limits]\n", "[limits]\nneighbours = 8\n"),
        ("[limits]   # few\npending = 2\n", "[limits]   # few\nneighbours = 8\npending = 2\n"),
        ("[limits]\npending = 2\nneighbours=4 # few\n", "[limits]\npending = 2\nneighbours = 8\n"),
    ],
)
def test_a_limit_is_raised_where_it_stands_or_is_written_and_nothing_else_is_changed(
    tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / "a b.toml"
    path.write_text(before + TEXT)
    text = mended(tmp_path, edits.limit(path, before + TEXT, "neighbours", 8))
    assert text == (after + TEXT if before else TEXT + after)
    assert parse(text, "x").limits.neighbours == 8


@pytest.mark.parametrize(
    "before", ["limits.pending = 2\n", "limits = {pending = 2}\n", "[limits]\nneighbours = [\n4]\n"]
)
def test_a_limit_in_a_file_that_is_written_in_another_way_has_no_command(tmp_path: Path, before: str) -> None:
    assert edits.limit(tmp_path / "x.toml", before + TEXT, "neighbours", 8) == ()
    assert edits.limit(tmp_path / "x.toml", TEXT, "neighbours", 9_000_000) == (), "more than there may be"
