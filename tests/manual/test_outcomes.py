# SPDX-License-Identifier: GPL-2.0-or-later
"""Wherever outcomes are explained to somebody, each of them is, and nothing else."""

from __future__ import annotations

import re
from collections import Counter

from npd6_xdp.core.verdict import Outcome
from tests.manual.tree import ROOT


def test_the_operators_table_has_every_outcome() -> None:
    text = (ROOT / "docs/operation.md").read_text()
    (table,) = re.findall(r"^\| outcome \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert Counter(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == Counter(map(str, Outcome))


def test_the_status_page_has_words_for_every_outcome() -> None:
    text = (ROOT / "npd6_xdp/system/http/status.html").read_text()
    (groups,) = re.findall(r"^const GROUPS = \[\n(.*?)^\];", text, re.MULTILINE | re.DOTALL)
    assert Counter(re.findall(r"^ +(\w+): \"", groups, re.MULTILINE)) == Counter(map(str, Outcome))
