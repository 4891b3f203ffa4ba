# SPDX-License-Identifier: GPL-2.0-or-later
"""The one judgement: working, degraded or not answering, with one problem for one cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from npd6_xdp.core.judgement import Counted, Facts, Judgement, Port, ProblemKind, State, headline, judging
from npd6_xdp.core.steps import finish
from npd6_xdp.core.warnings import WarningKind

FINE = Facts([Port("wan0")])
GONE = Facts([Port("ens3", "is not there")], absent=["ens3", "wan*"], present=["br0", "eth0"])
DOWN = Port("wan1", "is down", ProblemKind.DOWN)
FORWARDING = "wan0: forwarding is off, so method route finds no target there: sysctl -w net.ipv6.conf.all.forwarding=1"
LOOKS = "via wan1: it is down: ip link set wan1 up"
WAITING = "no such interface; waiting for it"


def judge(facts: Facts) -> Judgement:
    return finish(judging(facts))


def warned(kind: WarningKind, *lines: str) -> Facts:
    return replace(FINE, warnings={kind: lines})


@pytest.mark.parametrize(
    ("facts", "said", "kinds", "words"),
    [
        (FINE, "working", [], ""),
        (replace(FINE, silent=9.9), "working", [], ""),
        (replace(FINE, silent=float("-inf")), "working", [], ""),
        (replace(FINE, silent=12.3), "not answering", ["loop"], "has been stuck for 12 s"),
        (Facts([DOWN]), "not answering", ["down"], "no interface is attached and up: wan1 is down"),
        (Facts([Port("wan0"), DOWN]), "degraded: 1 problem", ["down"], "wan1 is down: nothing is answered there"),
        (
            Facts([Port("wan0"), DOWN], {WarningKind.VIA: [f"wan0 2001:db8:1::/64: {LOOKS}"]}),
            "degraded: 1 problem",
            ["via"],
            LOOKS,
        ),
        (Facts([]), "not answering", ["no_interface"], "no configured interface exists"),
        (GONE, "not answering", ["no_interface"], "exists: ens3, wan* (present: br0, eth0)"),
        (
            replace(GONE, warnings={WarningKind.INTERFACE: [f"ens3: {WAITING}", f"wan*: {WAITING}"]}),
            "not answering",
            ["no_interface"],
            "ens3, wan*",
        ),
        (replace(FINE, reload_error="x: y\nz"), "degraded: 1 problem", ["reload"], "the last reload failed"),
        (warned(WarningKind.FORWARDING, FORWARDING), "degraded: 1 problem", ["forwarding"], FORWARDING),
        (replace(FINE, counted=[Counted(ProblemKind.LOST, "wan0", 1200)]), "degraded: 1 problem", ["lost"], "1,200"),
        (
            replace(FINE, counted=[Counted(ProblemKind.DRIVER, "wan0", 3)]),
            "degraded: 1 problem",
            ["driver"],
            "dropped 3",
        ),
        (
            replace(FINE, counted=[Counted(ProblemKind.REFUSED, "neighbours", 3)]),
            "degraded: 1 problem",
            ["refused"],
            "no space was left for 3 neighbours",
        ),
        (replace(FINE, outcomes={"rate_limited": 301, "kernel": 1}), "degraded: 1 problem", ["rate_limited"], "301"),
        (
            replace(FINE, outcomes={"absent": 1700, "unmatched": 18}),
            "degraded: 1 problem",
            ["unanswered"],
            "none of 1,718 solicitations in the last five minutes was answered: absent 1,700, unmatched 18",
        ),
        (replace(FINE, outcomes={"absent": 1700, "answered_xdp": 1}), "working", [], ""),
        (replace(FINE, outcomes={"pending": 1700, "late": 1}), "working", [], ""),
        (
            replace(FINE, counted=[Counted(ProblemKind.LOG, "log", 1200)]),
            "degraded: 1 problem",
            ["log"],
            "log: 1,200 lines were dropped",
        ),
        (replace(FINE, tables={"neighbours": (80, 100), "kernel_entries": (0, 1)}), "working", [], ""),
        (
            replace(FINE, tables={"neighbours": (81, 100), "kernel_entries": (1, 1)}),
            "degraded: 2 problems",
            ["table", "table"],
            "limits.neighbours is nearly full: 81 of 100 are there",
        ),
        (
            replace(FINE, tables={"neighbours": (100, 100)}, counted=[Counted(ProblemKind.REFUSED, "neighbours", 3)]),
            "degraded: 1 problem",
            ["refused"],
            "no space was left for 3 neighbours",
        ),
        (replace(FINE, routes_missing=1), "degraded: 1 problem", ["host_routes"], "1 host route is missing: "),
        (replace(FINE, routes_missing=1200), "degraded: 1 problem", ["host_routes"], "1,200 host routes are missing"),
        (replace(FINE, outcomes={"own": 900, "ignored": 900, "standby": 900, "monitored": 900}), "working", [], ""),
    ],
)
def test_what_the_daemon_is_judged_to_be(facts: Facts, said: str, kinds: list[str], words: str) -> None:
    found = judge(facts)
    assert found.headline == said
    assert [str(each.kind) for each in found.problems] == kinds
    assert words in "".join(each.text for each in found.problems)


def test_what_showed_a_green_at_work_is_degraded_and_told_once() -> None:
    """Of 1,718 none answered, as forwarding is off, and a reload has failed."""
    facts = warned(WarningKind.FORWARDING, FORWARDING, FORWARDING.replace("wan0", "wan1"))
    facts = replace(facts, reload_error="npd6-xdp.toml: a mistake", outcomes={"absent": 1718})
    found = judge(facts)
    assert found.headline == "degraded: 2 problems"
    assert [str(each.kind) for each in found.problems] == ["reload", "forwarding"]
    assert found.problems[0].more == "npd6-xdp.toml: a mistake"
    assert found.problems[1].text == f"{FORWARDING}; likewise wan1"


ABSENT = {"absent": 1700}
UP_AND_DOWN = [Port("wan0"), DOWN]


@pytest.mark.parametrize(
    ("facts", "kinds"),
    [
        (replace(FINE, reload_error="x"), ["reload", "unanswered"]),
        (warned(WarningKind.RULE, "wan0: it covers"), ["rule", "unanswered"]),
        (warned(WarningKind.NEIGHBOUR_TABLE, "the table is small"), ["neighbour_table", "unanswered"]),
        (replace(FINE, counted=[Counted(ProblemKind.DRIVER, "wan1", 3)]), ["driver", "unanswered"]),
        (replace(FINE, routes_missing=1), ["host_routes", "unanswered"]),
        (Facts(UP_AND_DOWN), ["down", "unanswered"]),
        (warned(WarningKind.FORWARDING, FORWARDING), ["forwarding"]),
        (warned(WarningKind.VIA, "wan0: via lan7: there is no such interface"), ["via"]),
        (replace(FINE, counted=[Counted(ProblemKind.REFUSED, "neighbours", 3)]), ["refused"]),
        (Facts([DOWN]), ["down"]),
        (GONE, ["no_interface"]),
        (replace(FINE, silent=12.3), ["loop"]),
    ],
)
def test_that_nothing_is_answered_is_told_beside_what_is_no_reason_for_it(facts: Facts, kinds: list[str]) -> None:
    assert [str(each.kind) for each in judge(replace(facts, outcomes=ABSENT)).problems] == kinds


def test_what_limits_have_refused_and_was_told_is_no_question_that_wasnt_answered() -> None:
    refused = judge(replace(FINE, outcomes={"rate_limited": 301, "absent": 49}))
    assert [str(each.kind) for each in refused.problems] == ["rate_limited"]
    both = judge(replace(FINE, outcomes={"rate_limited": 301, "absent": 51}))
    assert [each.text[:42] for each in both.problems] == [
        "limits have refused 301 solicitations in t",
        "none of 51 solicitations in the last five ",
    ]


def test_problems_are_counted_by_kind_and_there_are_no_others() -> None:
    found = judge(warned(WarningKind.FORWARDING, FORWARDING, "wan1: another text")).by_kind
    assert {kind: many for kind, many in found.items() if many} == {"forwarding": 2}
    assert set(found) == {*map(str, WarningKind), *map(str, ProblemKind)}


def test_an_interface_that_something_is_wrong_with_is_told_once() -> None:
    absent = Port("wan1", "is not there")
    some = Facts([Port("wan0"), absent], {WarningKind.INTERFACE: [f"wan1: {WAITING}"]})
    assert [each.text for each in judge(some).problems] == [f"wan1: {WAITING}"]
    tags = "wan0: tags of VLAN 7 stand beside the frames"
    silent = Facts([Port("wan0", "has VLAN tags beside its frames", ProblemKind.DOWN)], {WarningKind.TAGS: [tags]})
    assert judge(silent).state is State.NOT_ANSWERING
    assert [each.text for each in judge(silent).problems] == [tags]


def test_the_same_of_thousands_of_interfaces_is_one_line() -> None:
    down = [DOWN._replace(name=f"p{number}") for number in range(4000)]
    (found,) = judge(Facts([Port("wan0"), *down])).problems
    assert found.text == "p0, p1, p2, p3, p4 and 3,995 more are down: nothing is answered there"
    lines = [f"p{number}: {WAITING}" for number in range(4000)]
    (found,) = judge(warned(WarningKind.INTERFACE, *lines)).problems
    assert found.text == f"p0: {WAITING}; likewise p1, p2, p3, p4, p5 and 3,994 more"


def test_a_kind_is_of_a_warning_or_of_another_problem() -> None:
    assert not {*map(str, WarningKind)} & {*map(str, ProblemKind)}


def test_a_headline_has_its_number_only_where_it_is_degraded() -> None:
    assert [headline(state, 1) for state in State] == ["working", "degraded: 1 problem", "not answering"]
    assert headline(State.DEGRADED, 1200) == "degraded: 1,200 problems"
