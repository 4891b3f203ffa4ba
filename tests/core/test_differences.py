# SPDX-License-Identifier: GPL-2.0-or-later
"""What `reload --json` says has changed from one configuration to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.differences import differences
from npd6_xdp.core.steps import finish
from npd6_xdp.core.web_config import WebConfig

TEXT = """\
[daemon]
log_level = "info"
[limits]
pending = 100
[[interface]]
name = "wan0"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "route"
[[interface]]
name = "wan0"
vlan = 100
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "ignore"
"""
SAME: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
NONE = {"added": 0, "removed": 0, "changed": 0}
RULE = '[[interface.rule]]\nprefix = "2001:db8:9::/64"\nmethod = "static"\n'


def between(old: Config, new: Config) -> dict[str, Any]:
    return finish(differences(old, new))


@pytest.mark.parametrize(
    ("before", "after", "keys", "interfaces", "rules"),
    [
        ("", "", [], {}, {}),
        ('log_level = "info"', 'log_level = "debug"', ["daemon.log_level"], {}, {}),
        ("pending = 100", "pending = 200", ["limits.pending"], {}, {}),
        ("[limits]", '[metrics]\nlisten = ""\n[limits]', ["metrics.listen"], {}, {}),
        ("vlan = 100", "vlan = 200", [], {"added": ["wan0:200"], "removed": ["wan0:100"]}, {"added": 1, "removed": 1}),
        ("vlan = 100", 'vlan = 100\ndad = "defend"', [], {"changed": ["wan0:100"]}, {}),
        ('"route"', '"static"', [], {"changed": ["wan0"]}, {"changed": 1}),
        ('method = "ignore"\n', f'method = "ignore"\n{RULE}', [], {"changed": ["wan0:100"]}, {"added": 1}),
        ('"2001:db8:2::/64"', '"2001:db8:3::/64"', [], {"changed": ["wan0"]}, {"added": 1, "removed": 1}),
    ],
)
def test_what_differs_is_said(
    before: str, after: str, keys: list[str], interfaces: dict[str, list[str]], rules: dict[str, int]
) -> None:
    assert before in TEXT
    new = parse(TEXT.replace(before, after) if before else TEXT, "new.toml")
    found = between(parse(TEXT, "old.toml"), new)
    assert found == {"keys": keys, "interfaces": SAME | interfaces, "rules": NONE | rules}


def test_a_web_configuration_that_says_something_else_is_a_change_of_its_key() -> None:
    old = parse(TEXT, "old.toml")
    assert between(old, replace(old, web=WebConfig("web.yml")))["keys"] == ["metrics.web_config"]
