# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that mend a configuration file change the line that is meant, and no other."""

from __future__ import annotations

import subprocess
from pathlib import Path

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
    text = mended(tmp_path, rule.put("method", 'method = "neighbour"', 'via = ["lan0"]'))
    text = mended(tmp_path, edits.rule_place(path, text, "wan0", "2001:db8:2::/64").replace(("via", '"lan0"', '"br0"')))
    text = mended(tmp_path, edits.rule_place(path, text, "wan0", P).add("host_routes = true"))
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
