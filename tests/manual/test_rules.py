# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of docs/rules.md: each id that is cited anywhere is there, and each that is there is applied and held."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import npd6_xdp
from npd6_xdp.core.verdict import Outcome, Reason

ROOT = Path(npd6_xdp.__file__).parents[1]
RULE = re.compile(r"^\| ([A-Z]\d+) \|(.*)\| ([^|]*) \|$", re.MULTILINE)
ID = r"[A-J][1-9]\d?"
CITED = re.compile(rf"(?<![\w\\/#:]){ID}(?![\w/]|[.:]\w)")
"""An id by itself: no part of a word, a path, an address or a number."""


def rules() -> dict[str, tuple[str, str]]:
    """Each rule of the page: its text, reasons and outcomes with it, and where it comes from."""
    found = RULE.findall((ROOT / "docs/rules.md").read_text())
    assert len({rule for rule, _, _ in found}) == len(found), "an id stands for one rule"
    return {rule: (text.strip(), origin) for rule, text, origin in found}


def cited(*places: str) -> dict[str, list[str]]:
    """The ids that files cite, each with where: as "file:line"."""
    where = defaultdict(list)
    for place in places:
        for path in sorted(ROOT.glob(place)):
            if path == Path(__file__) or "__pycache__" in path.parts:
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                for rule in CITED.findall(line):
                    where[rule].append(f"{path.relative_to(ROOT)}:{number}")
    return where


CODE = ("bpf/*.[ch]", "npd6_xdp/**/*.py", "npd6_xdp/**/*.html")
TESTS = ("tests/**/*.py", "tests/**/*.[ch]")
WORDS = ("*.md", "docs/**/*.md", "docs/*.py", "deploy/**/*.md", "deploy/**/*.toml", "deploy/**/*.sh")


def test_an_id_is_told_from_what_only_looks_like_one() -> None:
    line = '/* A10, RFC 6980 §5 */ ("B7", "hop limit") (C4): D1: S603 0xA5 fe80::A1 A1.b (B2). /A2 #A3 A200 PA7 A0 B6B7'
    assert CITED.findall(line) == ["A10", "B7", "C4", "D1", "B2"]


def test_every_id_that_is_cited_is_a_rule_of_the_page() -> None:
    known = rules()
    unknown = {rule: where for rule, where in cited(*CODE, *TESTS, *WORDS).items() if rule not in known}
    assert unknown == {}, "mend the id, or write the rule in docs/rules.md"


def test_every_rule_is_cited_where_the_code_applies_it_and_where_a_test_holds_it() -> None:
    code, tests = cited(*CODE), cited(*TESTS)
    assert [rule for rule in rules() if rule not in code] == [], "cite them in bpf/ or npd6_xdp/"
    assert [rule for rule in rules() if rule not in tests] == [], "cite them in tests/"


def test_every_rule_says_where_it_comes_from() -> None:
    for rule, (_, origin) in rules().items():
        assert re.search(r"RFC \d{4}( §\d|$|;)|here", origin), rule


def test_every_rule_has_the_letter_of_its_section_and_they_are_counted_through() -> None:
    text = (ROOT / "docs/rules.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for section in sections:
        ids = [rule for rule, _, _ in RULE.findall(section)]
        assert ids == [f"{section[0]}{number}" for number in range(1, len(ids) + 1)]


def test_the_reasons_of_what_is_invalid_are_those_that_are_counted_in_their_order() -> None:
    text = (ROOT / "docs/rules.md").read_text()
    reasons = {rule: re.findall(r"`(\w+)`", what)[-1] for rule, (what, _) in rules().items() if rule.startswith("A")}
    order = re.search(r"in this order: ([^;]*);", text)
    assert order
    assert [reasons[rule] for rule in re.findall(ID, order[1])] == [str(reason) for reason in Reason]


def test_the_outcomes_of_what_is_never_answered_are_such() -> None:
    for rule, (text, _) in rules().items():
        if rule.startswith("C"):
            assert Outcome(re.findall(r"`(\w+)` *$", text)[0]) in {Outcome.OWN, Outcome.IGNORED, Outcome.UNMATCHED}
