# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a configuration file is refused, where, and with which words."""

from __future__ import annotations

import re

import pytest

from tests.core.configs import ITS_RULE, MINIMAL, interface, mistakes
from tests.core.mistaken_files import ENDPOINTS, LIMITS, NAMES, PATHS, SYNTAX, TABLES, TAGS, UNKNOWN, VALUES
from tests.core.mistaken_rules import RANGE_TARGETS, SELECTING, TARGETS, TWICE, WAYS

MISTAKES = (
    *SYNTAX,
    *TABLES,
    *UNKNOWN,
    *VALUES,
    *ENDPOINTS,
    *NAMES,
    *TAGS,
    *((name, text, f"{ITS_RULE}.prefix", fragment) for name, text, fragment in TARGETS),
    *((name, text, f"{ITS_RULE}.prefix", fragment) for name, text, fragment in RANGE_TARGETS),
    *LIMITS,
    *PATHS,
    *WAYS,
    *SELECTING,
    *TWICE,
)


@pytest.mark.parametrize(("text", "place", "fragment"), [pytest.param(*row, id=name) for name, *row in MISTAKES])
def test_a_mistake_is_refused_at_its_place_in_words_that_help(text: str, place: str, fragment: str) -> None:
    (mistake,) = mistakes(text)
    assert place == (mistake.where or (f"{mistake.line}:{mistake.column}" if mistake.line else ""))
    assert fragment in mistake.message


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text, *_ in MISTAKES])
def test_the_line_and_column_lead_to_what_is_named_or_to_the_table_that_lacks_it(text: str) -> None:
    (mistake,) = mistakes(text)
    assert (mistake.line == 0) == (mistake.column == 0)
    if not mistake.where:
        return  # tests/core/test_toml_places.py has those of TOML itself
    here = text.split("\n")[mistake.line - 1][mistake.column - 1 :]
    key = re.search(r'([\w-]+|"[^"]*")$', mistake.where)
    if key is None:  # an array's item, or an entry
        assert re.match(r"\[\[|[\"\[{0-9]", here)
    elif mistake.message.startswith("missing"):
        assert here.startswith("[[interface")
    else:
        name = key[0].strip('"').removesuffix("...") if "..." in key[0] else key[0]  # a long one is cut
        assert here.startswith((name, f"[{name}]", f"[[{name}]]", "[interface.rule]"))


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text, *_ in MISTAKES])
def test_a_message_is_one_line_without_the_words_of_python(text: str) -> None:
    (line,) = (str(mistake) for mistake in mistakes(text))
    assert len(line.splitlines()) == 1
    assert not re.search(r"\b(str|int|float|bool|dict|list|None|True|False|NoneType|Decimal)\b", line)
    assert len(line) < 250


def test_every_mistake_is_found_in_the_files_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("config_file", "errors"):
        monkeypatch.setattr(f"npd6_xdp.core.{module}.MOST_MISTAKES", 30)
    text = """
        [daemon]
        log_level = "loud"
        control = "run/x"
        [[interface]]
        vlan = 4095
        [[interface.rule]]
        prefix = "2001:db8::1/64"
        method = "neighbor"
        via = ["lan0", "lan[", ""]
        host_routes = true
        [[interface.rule]]
        prefix = "192.0.2.1"
        [[interface]]
        name = "wan["
        colour = "red"
        [[interface]]
        name = "wan0"
        attach = 7
        [[interface.rule]]
        [limits]
        pending = 0
        [metrics]
        listen = "localhost"
        """
    assert [mistake.where for mistake in mistakes(text)] == [
        "daemon.log_level",
        "daemon.control",
        "interface[0].vlan",
        "interface[0].name",
        "interface[0].rule[0].prefix",
        "interface[0].rule[0].method",
        "interface[0].rule[0].via[1]",
        "interface[0].rule[0].via[2]",
        "interface[0].rule[1].prefix",
        "interface[0].rule[1].method",
        "interface[1].name",
        "interface[1].colour",
        "interface[1]",
        "interface[2].attach",
        "interface[2].rule[0].prefix",
        "interface[2].rule[0].method",
        "limits.pending",
        "metrics.listen",
    ]


def test_every_mistake_between_rules_and_between_interfaces_is_found_at_the_later_one() -> None:
    text = """
        [[interface]]
        name = "wan0"
        [[interface.rule]]
        prefix = "::/0"
        method = "static"
        [[interface.rule]]
        prefix = "::/0"
        method = "statik"
        [[interface.rule]]
        prefix = "::/0"
        method = "static"
        via = ["lan0"]
        host_routes = false
        include = ["::/0", "fe80::/64"]
        [[interface]]
        name = "wan0"
        rule = [{ prefix = "fe80::1", method = "static" }]
        """
    assert [mistake.where for mistake in mistakes(text)] == [
        "interface[0].rule[1].method",
        "interface[0].rule[1].prefix",
        "interface[0].rule[2].via",
        "interface[0].rule[2].host_routes",
        "interface[0].rule[2].include[1]",
        "interface[0].rule[2].prefix",
        "interface[1]",
    ]


def test_what_stands_in_single_brackets_is_read_all_the_same() -> None:
    text = '[interface]\nname = 7\n[interface.rule]\nprefix = "::1"\n'
    assert [mistake.where for mistake in mistakes(text)] == [
        "interface",
        "interface.name",
        "interface.rule",
        "interface.rule.prefix",
        "interface.rule.method",
    ]


def test_an_entry_whose_vlan_is_wrong_is_nobodys_twin() -> None:
    """Whether it is one shows only when its vlan is right."""
    assert [mistake.where for mistake in mistakes(MINIMAL + interface("vlan = 0"))] == ["interface[1].vlan"]
