# SPDX-License-Identifier: GPL-2.0-or-later
"""What the status page and `status --watch` say: numbers, no addresses, and no more of them than can be shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core.judgement import Counted, Facts, Judgement, Port, Problem, ProblemKind, State, judging
from npd6_xdp.core.snapshot import AnswerTimes, InterfaceSnapshot, RuleSnapshot, Snapshot, Status
from npd6_xdp.core.status import MOST_LISTED, MOST_SHOWN, overview_json, rules_values
from npd6_xdp.core.steps import finish
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from npd6_xdp.core.warnings import WarningKind
from npd6_xdp.core.watch import Look, Watch

WAN = InterfaceSnapshot(
    "wan0",
    "wan0",
    "native",
    "hybrid",
    True,
    {Outcome.ANSWERED_XDP: 7, Outcome.INVALID: 3, Outcome.LOST: 2},
    {Reason.HOP_LIMIT: 3},
    {"xdp": 7, "python": 1},
    {Limit.CROWDED: 5},
)
LAN = InterfaceSnapshot(
    *("lan0:100", "lan0", "", "monitor", False, {Outcome.INVALID: 1}, {Reason.HOP_LIMIT: 1}, {"xdp": 1, "python": 1}),
    {Limit.CROWDED: 2},
)
OVERVIEW = Status(
    Snapshot(
        [WAN, LAN],
        [
            RuleSnapshot("wan0", "2001:db8:1::/64", Method.STATIC, {Outcome.ANSWERED_XDP: 7}),
            RuleSnapshot("lan0:100", "::/0", Method.IGNORE, {}),
        ],
        {"lan0": 1},
        {"wan0": 2},
        AnswerTimes(),
        1_700_000_100.0,
        2,
        {"version": "1.0", "bcc": "0.26", "kernel": "6.1"},
        1_700_000_200.0,
        tx_errors={"wan0": 9},
        host_routes_missing=6,
    ),
    pending=3,
    host_routes=4,
    refused={"neighbours": 5},
    reload_error="npd6.toml: a mistake",
    warnings=["forwarding is off"],
    started=1_700_000_000.0,
    pid=4711,
)


def said(overview: Status = OVERVIEW) -> Any:
    return json.loads(json.dumps(overview_json(overview)))


def at(seconds: float, answered: int, overview: Status = OVERVIEW) -> Any:
    """An overview some seconds later, when so many had been answered by wan0's rule."""
    outcomes = {**WAN.outcomes, Outcome.ANSWERED_XDP: answered}
    snapshot = replace(
        overview.snapshot,
        time=overview.snapshot.time + seconds,
        interfaces=[replace(WAN, outcomes=outcomes), LAN],
        rules=[RuleSnapshot("wan0", "2001:db8:1::/64", Method.STATIC, {Outcome.ANSWERED_XDP: answered})],
    )
    return said(replace(overview, snapshot=snapshot))


def text(watch: Watch, width: int = 100, height: int | None = None, problem: str = "") -> list[str]:
    return [line.text for line in watch.lines(width, height, problem)]


def test_an_overview_has_numbers_where_status_has_addresses() -> None:
    found = said()
    numbers = ("neighbours", "pending", "host_routes", "host_routes_missing", "kernel_proxy_entries")
    assert {key: found[key] for key in numbers} == {
        "neighbours": {"lan0": 1},
        "pending": 3,
        "host_routes": 4,
        "host_routes_missing": 6,
        "kernel_proxy_entries": {"wan0": 2},
    }
    assert "targets" not in found
    assert found["refused"] == {"neighbours": 5}
    assert found["left_out"] == {"interfaces": 0, "rules": 0}
    assert (found["time"], found["pid"], found["warnings"]) == (1_700_000_200.0, 4711, ["forwarding is off"])
    assert found["interfaces"][0]["xdp_tx_errors"] == 9


def test_totals_are_sums_over_all_interfaces() -> None:
    totals = said()["totals"]
    assert totals["solicitations"] == {str(o): {"answered_xdp": 7, "invalid": 4, "lost": 2}.get(o, 0) for o in Outcome}
    assert totals["invalid"]["hop_limit"] == 4
    assert totals["rate_limited"]["crowded"] == 7
    assert totals["advertisements"] == {"xdp": 8, "python": 2}


def test_of_many_rules_the_busiest_are_shown_in_the_order_of_the_file() -> None:
    count = MOST_SHOWN + 100
    rules = [RuleSnapshot("wan0", str(number), Method.STATIC, {Outcome.LOST: number % 300}) for number in range(count)]
    interfaces = [replace(WAN, label=f"wan{number}") for number in range(count)]
    found = said(replace(OVERVIEW, snapshot=replace(OVERVIEW.snapshot, rules=rules, interfaces=interfaces)))
    assert found["left_out"] == {"interfaces": 100, "rules": 100}
    assert [int(rule["rule"]) for rule in found["rules"]] == [n for n in range(count) if n % 300 >= 50]
    assert len(found["interfaces"]) == MOST_SHOWN
    assert found["totals"]["solicitations"]["answered_xdp"] == 7 * count
    watch = Watch()
    watch.add(found)
    assert text(watch)[-1] == "… and 500 more rules (status --json has all)"


def test_rates_are_of_the_last_five_seconds() -> None:
    watch = Watch()
    watch.add(at(0, 1000))
    (line,) = (line for line in text(watch) if line.startswith("answered_xdp"))
    assert line.split() == ["answered_xdp", "-", "1,000"]
    for second in range(1, 11):
        watch.add(at(second, 1000 + (0 if second <= 5 else 70 * (second - 5))))
    shown = text(watch)
    (line,) = (line for line in shown if line.startswith("answered_xdp"))
    assert line.split() == ["answered_xdp", "70", "1,350", "█████"]
    assert any(
        line == "asked 70 per second   answered 70 per second, 80.0 % by XDP   lost or failed 2" for line in shown
    )
    assert any(re.match(r"wan0 +up +native +hybrid +70 ", line) for line in shown)
    assert any(re.match(r"2001:db8:1::/64 +wan0 +static +70 +answered_xdp 1,350$", line) for line in shown)


def test_another_daemons_counters_begin_anew_and_one_moment_counts_once() -> None:
    watch = Watch()
    for second, count in ((0, 1000), (1, 2000), (1, 9000)):
        watch.add(at(second, count))
    assert any(line.startswith("asked 1,000 per second") for line in text(watch))
    watch.add(at(2, 5, replace(OVERVIEW, pid=1)))
    assert any(line.startswith("asked - per second") for line in text(watch))


def test_what_needs_a_look_stands_at_the_top_and_controls_no_terminal() -> None:
    watch = Watch()
    facts = Facts(
        [Port("wan0")],
        {WarningKind.FORWARDING: ["wan0: forwarding is off"]},
        "bad \x1b[2J key\nand \x07more",
        counted=[Counted(ProblemKind.REFUSED, "neighbours", 5), Counted(ProblemKind.DRIVER, "wan0", 9)],
    )
    snapshot = replace(OVERVIEW.snapshot, judgement=finish(judging(facts)))
    watch.add(said(replace(OVERVIEW, snapshot=snapshot, reload_error=facts.reload_error)))
    found = [line.text for line in watch.lines(100, problem="no answer") if line.look is Look.ALERT]
    assert found == [
        "! no answer",
        "! the last reload failed; the configuration before it is in use:",
        "!   bad ?[2J key",
        "!   and ?more",
        "! wan0: forwarding is off",
        "! no space was left for 5 neighbours; some in the last five minutes",
        "! wan0: the driver dropped 9 of the answers by XDP (xdp_tx_errors); some in the last five minutes",
    ]
    for line in watch.lines(100):
        assert line.text.isprintable()


def test_the_counter_of_pending_targets_stands_beside_the_gauge() -> None:
    watch = Watch()
    found = said()
    found["totals"]["solicitations"]["pending"] = 637
    watch.add(found)
    assert "637 sent for resolution   3 being resolved   2 after resolution" in text(watch)


def letters(lines: list[str]) -> str:
    """All that is written, without what stands between."""
    return "".join(lines).replace(" ", "")


@pytest.mark.parametrize("width", [100, 80, 60, 40, 24])
def test_what_is_too_wide_is_folded_and_nothing_is_cut(width: int) -> None:
    busy = {outcome: 1_000_000 + number for number, outcome in enumerate(Outcome)}
    prefix = "2001:db8:1234:5678:9abc:def0:1234:5678-2001:db8:1234:5678:9abc:def0:1234:ffff"
    rules = [RuleSnapshot("wan0", prefix, Method.NEIGHBOUR, busy), RuleSnapshot("wan0", "::/0", Method.IGNORE, {})]
    problems = Judgement(State.DEGRADED, [Problem(ProblemKind.DOWN, "wan1 is down: nothing is answered there")])
    watch = Watch()
    watch.add(said(replace(OVERVIEW, snapshot=replace(OVERVIEW.snapshot, rules=rules, judgement=problems))))
    wide, narrow = text(watch, 1000), text(watch, width)
    assert max(map(len, narrow)) <= width
    assert sorted(letters(narrow)) == sorted(letters(wide))
    first = wide[0].split("   ")[0]
    assert first == "degraded: 1 problem"
    assert narrow[0].startswith(first)


def test_a_row_that_is_folded_has_its_columns_below_their_heads() -> None:
    watch = Watch()
    for second in range(3):
        watch.add(at(second, 70 * second))
    shown = text(watch, 60)
    head = next(number for number, line in enumerate(shown) if line.startswith("INTERFACE"))
    assert shown[head + 1].split() == ["total", "by", "XDP", "by", "Python", "lost"]
    assert shown[head + 2].startswith("wan0 ")
    assert len(shown[head + 3]) == len(shown[head + 1]), "aligned to the right below these"
    rule = next(number for number, line in enumerate(shown) if line.startswith("RULE"))
    assert "outcomes since start" in f"{shown[rule]} {shown[rule + 1]}"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (10, 3), (1, 1), (300, 100)])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    watch = Watch()
    for second in range(80):
        watch.add(at(second, second * second))
    lines = text(watch, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if height < 20:
        assert re.match(r"… \d+ more lines"[:width] if width > 3 else "…", lines[-1])


def test_without_unicode_it_does_with_ascii() -> None:
    watch = Watch(unicode=False)
    for second in range(80):
        watch.add(at(second, second * second))
    assert all(line.isascii() for line in text(watch, height=12))


def test_all_rules_can_be_had_in_brief_to_search_in() -> None:
    found = finish(rules_values(OVERVIEW.snapshot))
    assert found == {
        "time": 1_700_000_200.0,
        "rules": [["wan0", "2001:db8:1::/64", "static", {"answered_xdp": 7}], ["lan0:100", "::/0", "ignore", {}]],
        "left_out": 0,
    }
    many = [RuleSnapshot("wan0", str(n), Method.STATIC, {Outcome.LOST: n}) for n in range(MOST_LISTED + 5)]
    found = finish(rules_values(replace(OVERVIEW.snapshot, rules=many)))
    assert (len(found["rules"]), found["left_out"]) == (MOST_LISTED, 5)
    assert found["rules"][0][1] == "5", "those that were asked for most"
    assert json.loads(json.dumps(found)) == found
