# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference configuration: it says every key, and its defaults are those of the program."""

from __future__ import annotations

import re
import tomllib

from npd6_xdp.core.config_file import parse
from npd6_xdp.core.verdict import Method
from tests.core.configs import MINIMAL, REFERENCE, TABLES


def test_the_reference_configuration_says_the_defaults() -> None:
    assert parse(REFERENCE, "") == parse(MINIMAL, "")


def said(text: str) -> dict[str, set[str]]:
    """The keys that a file says, by table."""
    file = tomllib.loads(text)
    entries = file.pop("interface")
    rules = [rule for entry in entries for rule in entry["rule"]]
    return {table: set(values) for table, values in file.items()} | {
        "interface": {key for entry in entries for key in entry},
        "rule": {key for rule in rules for key in rule},
    }


def with_examples() -> str:
    """The reference configuration with what is commented out."""
    return re.sub(r"^# (?=\[\[|\w+ = )", "", REFERENCE, flags=re.MULTILINE)


def test_the_reference_configuration_says_every_key() -> None:
    assert said(with_examples()) == TABLES
    depends = {"rule": TABLES["rule"] - {"prefix", "method"}, "interface": {"events_per_source"}}
    assert said(REFERENCE) == {table: keys - depends.get(table, set()) for table, keys in TABLES.items()}


def test_the_reference_configurations_short_form_does_the_same() -> None:
    short = re.findall(r"^#     (\[\[.*|\w+ = .*)", REFERENCE, re.MULTILINE)
    assert len(short) == 5
    assert parse("\n".join(short), "") == parse(REFERENCE, "")


def test_the_reference_configurations_examples_are_right() -> None:
    entries = parse(with_examples(), "").interfaces
    assert [(entry.label, len(entry.rules)) for entry in entries] == [("wan0", 5), ("wan0:100", 1)]
    wide, narrow = entries[0].rules[:2]
    assert wide.networks[0].covers(narrow.networks[0])
    assert {rule.method for rule in entries[0].rules} == set(Method)
    assert (entries[0].events_per_source, entries[1].source_limit) == (1000, 1000)
